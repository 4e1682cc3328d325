// Small helpers that every module uses.

export const byId = (id) => document.getElementById(id);

export function element(tag, className = "", text = undefined) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export const count = (number) => number.toLocaleString("en");

export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

/* Call at most once a frame, with the latest arguments. */
export function perFrame(action) {
  let waiting = 0;
  let latest = [];
  return (...values) => {
    latest = values;
    if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; action(...latest); });
  };
}

/* Call once the calls have paused. */
export function settled(action, milliseconds) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}

/* An answer as JSON; refusals of the server become errors with its words. */
export async function request(address, options = {}) {
  const answer = await fetch(address, options);
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const error = new Error(content.detail || `the server answered ${answer.status}`);
    error.status = answer.status;
    error.retryAfter = Number(answer.headers.get("retry-after")) || 1;
    throw error;
  }
  return content;
}

/* A name whose end stays visible when it is too long for its place. */
export function nameLine(text) {
  const node = element("span", "name");
  node.title = text;
  node.append(element("bdi", "", text));
  return node;
}

/* Typing into a field is no command. */
export function isTyping(event) {
  return event.target.matches?.("input:not([type=range]):not([type=checkbox]), select, textarea");
}
