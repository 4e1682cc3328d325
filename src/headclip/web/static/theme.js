// Runs before the first paint, so that a chosen theme does not flash. A plain script: modules come too late.
"use strict";
(() => {
  const THEMES = ["auto", "light", "dark"];
  const WORDS = { auto: "as the system", light: "light", dark: "dark" };
  const read = () => {
    try { return localStorage.getItem("headclip-theme") || "auto"; } catch { return "auto"; }
  };
  let theme = THEMES.includes(read()) ? read() : "auto";
  const apply = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.setAttribute("aria-label", `Theme: ${WORDS[theme]}`);
    document.dispatchEvent(new Event("theme"));
  };
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      try { localStorage.setItem("headclip-theme", theme); } catch { /* a private window: for this page only */ }
      apply();
    });
  });
})();
