// The page of one run: what is shown, in which order, and judged by which line.

import { byId, clamp, count, element, nameLine, perFrame, plural, settled } from "./dom.js";
import { drawLegend, Scale } from "./colours.js";
import { RunData } from "./data.js";
import { Drop } from "./drop.js";
import { Explain } from "./explain.js";
import { Gallery, picture } from "./gallery.js";
import { Histogram } from "./histogram.js";
import { manual, originOf, pixelFor, regionLevel, tally, verdictOf, WORDS } from "./verdicts.js";
import { Viewer } from "./viewer.js";

const root = byId("run");
const growing = root.dataset.kind !== "run";
const run = await RunData.load(root.dataset.key);
const collator = new Intl.Collator("en", { numeric: true });

const page = { rule: run.rule, own: false, alpha: null, filter: "", table: null, pixel: 0.5 };
const address = new URL(location.href);
const asked = Number(address.searchParams.get("t"));
page.drawn = page.rule; // for the run's own scores
if (address.searchParams.has("t") && asked >= 0 && asked <= 1) { page.rule = page.drawn = manual(asked); page.own = true; }

/* With another alpha the scores lie elsewhere: the line goes where as many images raise an alarm as before. */
function reweigh(alpha) {
  const alarms = new Set(run.judged.filter((item) => item.own > page.drawn.threshold).map((item) => item.id));
  run.reweigh(alpha);
  const below = run.ascending.length - alarms.size;
  const line = alpha === null ? page.drawn.threshold
    : below <= 0 ? run.ascending[0] - 1e-4
      : below >= run.ascending.length ? run.ascending[below - 1]
        : (run.ascending[below - 1] + run.ascending[below]) / 2;
  page.alpha = alpha;
  page.rule = alpha === null ? page.drawn : manual(line);
  const swapped = run.judged.filter((item) => item.score > page.rule.threshold && !alarms.has(item.id)).length;
  byId("alpha-value").textContent = (alpha ?? run.alpha).toFixed(2);
  byId("alpha-reset").hidden = alpha === null;
  byId("alpha-words").textContent = alpha === null ? "score = (1 − alpha) · whole image + alpha · top of the map"
    : `The line keeps ${plural(alarms.size, "alarm")}; ${swapped ? `${plural(swapped, "image")} would change places with others` : "the same images raise them"}.`;
  judge();
}

/* The map threshold: the calibrated one while its own line is in use, else what fits the line. */
function pixelNow() { return !page.own && run.rule.pixel !== null ? run.rule.pixel : pixelFor(run.judged, page.rule.threshold); }

function pixelWords() {
  return !page.own && run.rule.pixel !== null ? "set together with the line" : "follows the line";
}

function caption(item) {
  const words = element("span", "words");
  words.append(element("i", "shape"), element("span", "score number"), element("span", "verdict"), element("span", "flagged"));
  const node = element("span", "caption");
  node.append(words, nameLine(item.name));
  return node;
}

function describe({ item, button }) {
  if (item.failed) return;
  const verdict = verdictOf(item.score, page.rule);
  const mark = run.marks.get(item.id);
  button.className = `card ${verdict}`;
  button.querySelector(".shape").className = `shape ${verdict}`;
  button.querySelector(".score").textContent = item.score.toFixed(3);
  button.querySelector(".verdict").textContent = WORDS[verdict];
  const flagged = button.querySelector(".flagged");
  flagged.replaceChildren(...(mark ? [element("i", "shape marked"), mark] : []));
}

function make(item) {
  const button = element("button", item.failed ? "card broken" : "card");
  button.type = "button";
  const shown = picture(run, item, () => page.table);
  button.append(shown.root, caption(item));
  if (item.failed) {
    button.querySelector(".shape").className = "shape failed";
    button.querySelector(".verdict").textContent = "Failed";
    button.setAttribute("aria-disabled", "true");
  } else describe({ item, button });
  return { button, load: shown.load, cancel: shown.cancel, repaint: shown.repaint };
}

const gallery = new Gallery(byId("gallery"), {
  make,
  height: (width) => Math.round(width * 0.86) + 57,
  open: (index) => { if (!shownItems[index].failed) viewer.open(shownItems, index); },
  key: (event, item) => {
    const kinds = { f: "false alarm", m: "miss" };
    const kind = kinds[event.key.toLowerCase()];
    if (!kind || item.failed || event.ctrlKey || event.metaKey || event.altKey) return false;
    keepMark(item, run.marks.get(item.id) === kind ? null : kind).catch((error) => { byId("announce").textContent = error.message; });
    return true;
  },
});

const viewer = new Viewer({
  panes: (item) => {
    const level = page.own ? page.pixel : regionLevel(item.score, run.rule, page.pixel);
    return [{ run, item, rule: page.rule, pixel: page.pixel, level, pixelWords: pixelWords() }];
  },
  mark: keepMark,
  shown: (item) => { history.replaceState(null, "", `#${item.id}`); explain?.shown(item, viewer.stages[0]); },
  closed: (item, position) => {
    history.replaceState(null, "", location.pathname + location.search);
    gallery.focus(position);
  },
});

const explain = byId("explain") ? new Explain(run, () => page.rule) : null;
const histogram = new Histogram(byId("histogram"), (threshold, final) => draw(threshold, final));

async function keepMark(item, kind) {
  await run.mark(item, kind, page.rule.threshold);
  gallery.renew(describe);
  counts();
  if (page.filter === "marked") choose();
}

/* The line was drawn somewhere else, by hand. */
function draw(threshold, final) {
  page.rule = manual(Math.round(threshold * 1e4) / 1e4);
  page.own = true;
  if (page.alpha === null) page.drawn = page.rule;
  judge();
  if (final) settle();
}

const settle = settled(() => {
  const now = new URL(location.href);
  if (page.own) now.searchParams.set("t", String(page.drawn.threshold));
  else now.searchParams.delete("t");
  history.replaceState(null, "", now);
  const totals = tally(run.ascending, page.rule);
  byId("announce").textContent = `Threshold ${page.rule.threshold.toFixed(3)}: ${Object.entries(totals).map(([kind, number]) => `${count(number)} ${WORDS[kind]}`).join(", ")}`;
  if (["defect", "review", "ok"].includes(page.filter) || byId("sort").value === "near") choose();
}, 150);

const recolour = perFrame(() => {
  const scale = new Scale(run.scale, page.pixel);
  page.table = scale.smallTable(run.scale);
  drawLegend(byId("legend"), byId("legend-values"), scale);
  gallery.renew((card) => card.repaint());
});

/* Everything that follows from the line; nothing is asked of the server. */
function judge() {
  page.pixel = pixelNow();
  histogram.show(run.ascending, page.rule);
  counts();
  known();
  gallery.renew(describe);
  recolour();
  const [word, kind] = page.alpha !== null ? ["what if", ""] : page.own ? ["drawn by hand", ""] : originOf(run.rule);
  byId("origin").textContent = word;
  byId("origin").className = `origin ${kind}`;
  byId("words").textContent = page.own || page.alpha !== null ? "" : run.rule.words;
  byId("reset").hidden = !page.own;
  if (document.activeElement !== byId("threshold")) byId("threshold").value = page.rule.threshold.toFixed(3);
  viewer.refresh();
}

/* How the line does on images whose label is known. */
function known() {
  const node = byId("known");
  node.hidden = run.labelled.length === 0;
  if (node.hidden) return;
  const bad = run.labelled.filter((item) => item.label === 1);
  const good = run.labelled.filter((item) => item.label === 0);
  const alarms = (items) => items.filter((item) => item.score > page.rule.threshold).length;
  const parts = [];
  if (bad.length) parts.push(`${count(alarms(bad))} of ${plural(bad.length, "labelled defect")} caught`);
  if (good.length) parts.push(`${plural(alarms(good), "false alarm")} on ${plural(good.length, "labelled good image")}`);
  node.textContent = parts.join(" · ");
}

/* A live page without images has nothing to draw a line through. */
function emptiness() {
  const bare = growing && !run.items.length;
  document.querySelector(".bench").hidden = bare;
  document.querySelector(".toolbar").hidden = bare;
}

function counts() {
  const failed = run.items.length - run.judged.length;
  const numbers = { ...tally(run.ascending, page.rule), marked: run.marks.size, failed };
  for (const [kind, number] of Object.entries(numbers)) byId(`count-${kind}`).textContent = count(number);
}

let shownItems = [];
const ORDERS = {
  high: (a, b) => (b.score ?? -1) - (a.score ?? -1),
  low: (a, b) => (a.score ?? 2) - (b.score ?? 2),
  near: (a, b) => Math.abs((a.score ?? 9) - page.rule.threshold) - Math.abs((b.score ?? 9) - page.rule.threshold),
  name: (a, b) => collator.compare(a.name, b.name),
  order: (a, b) => a.index - b.index,
};

function belongs(item) {
  switch (page.filter) {
    case "": return true;
    case "failed": return item.failed;
    case "marked": return run.marks.has(item.id);
    default: return !item.failed && verdictOf(item.score, page.rule) === page.filter;
  }
}

/* Which images, in which order. */
function choose() {
  emptiness();
  const words = byId("query").value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  shownItems = run.items.filter((item) => belongs(item) && words.every((word) => item.lower.includes(word)));
  shownItems.sort(ORDERS[byId("sort").value]);
  byId("shown").textContent = shownItems.length === run.items.length
    ? plural(run.items.length, "image") : `${count(shownItems.length)} of ${plural(run.items.length, "image")}`;
  const empty = byId("empty");
  empty.hidden = shownItems.length > 0;
  empty.textContent = run.items.length ? "No image fits." : growing ? "Nothing has been judged yet." : "This run holds no image.";
  gallery.show(shownItems);
  gallery.renew(describe); // cards that were used again
}

for (const button of document.querySelectorAll("[data-filter]")) {
  button.addEventListener("click", () => {
    page.filter = page.filter === button.dataset.filter ? "" : button.dataset.filter;
    for (const other of document.querySelectorAll("[data-filter]")) {
      other.setAttribute("aria-pressed", String(other.dataset.filter === page.filter));
    }
    choose();
  });
}
byId("query").addEventListener("input", settled(choose, 80));
byId("sort").addEventListener("change", choose);
byId("size").addEventListener("input", (event) => { gallery.size = Number(event.target.value); gallery.layout(); });
byId("overlay").addEventListener("change", (event) => byId("gallery").classList.toggle("plain", !event.target.checked));
byId("threshold").addEventListener("change", (event) => {
  const value = Number(event.target.value);
  if (event.target.value !== "" && Number.isFinite(value)) draw(clamp(value, 0, 1), true);
});
byId("reset").addEventListener("click", () => {
  page.drawn = run.rule;
  page.own = false;
  if (page.alpha === null) { page.rule = run.rule; judge(); } else reweigh(page.alpha);
  settle();
  histogram.line.focus();
});
viewer.extraKeys.e = () => explain?.open();
byId("what-if").hidden = run.alpha === null;
byId("alpha").value = String(run.alpha ?? 0.5);
byId("alpha-value").textContent = (run.alpha ?? 0.5).toFixed(2);
byId("alpha").addEventListener("input", perFrame(() => reweigh(Number(byId("alpha").value))));
byId("alpha").addEventListener("change", settled(choose, 50));
byId("alpha-reset").addEventListener("click", () => {
  byId("alpha").value = String(run.alpha);
  reweigh(null);
  choose();
  byId("alpha").focus();
});
byId("compare")?.addEventListener("change", (event) => { if (event.target.value) location.href = event.target.value; });
if (matchMedia("(max-width: 620px)").matches) { byId("size").value = "150"; gallery.size = 150; }

async function update() {
  const before = run.items.length;
  if (!(await run.refresh().catch(() => false))) return;
  if (!page.own) page.drawn = run.rule;
  byId("what-if").hidden = run.alpha === null;
  if (page.alpha === null || run.alpha === null) { page.alpha = null; page.rule = page.drawn; judge(); } else reweigh(page.alpha);
  if (run.items.length !== before || run.finished) choose();
}

judge();
choose();
if (growing || !run.finished) setInterval(() => { if (!document.hidden) update(); }, 2000);
if (byId("drop")) new Drop(byId("drop"), update);
const wanted = shownItems.findIndex((item) => `#${item.id}` === location.hash && !item.failed);
if (wanted >= 0) viewer.open(shownItems, wanted);
root.dataset.ready = "true";
