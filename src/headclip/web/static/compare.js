// Two runs of the same images: where they agree, where they do not, and the pictures side by side.

import { byId, clamp, count, element, nameLine, perFrame, plural, settled } from "./dom.js";
import { Scale } from "./colours.js";
import { RunData } from "./data.js";
import { Gallery, picture } from "./gallery.js";
import { Histogram } from "./histogram.js";
import { manual, originOf, pixelFor, regionLevel, verdictOf, WORDS } from "./verdicts.js";
import { Viewer } from "./viewer.js";

const root = byId("compare-page");
const { first: firstKey, second: secondKey } = root.dataset;
const runs = await Promise.all([firstKey, secondKey].map((key) => RunData.load(key)));
const names = [root.dataset.firstName, root.dataset.secondName];
const sides = runs.map((run, index) => ({ run, name: names[index], rule: run.rule, own: false, pixel: 0.5, table: null }));
const collator = new Intl.Collator("en", { numeric: true });

/* Pairs by name; where the folders differ, by the last part of the name, if that is unique in both. */
function pairUp([a, b]) {
  const by = (run, name) => {
    const found = new Map();
    for (const item of run.judged) found.set(name(item), found.has(name(item)) ? null : item);
    return found;
  };
  for (const name of [(item) => item.name, (item) => item.name.split("/").pop()]) {
    const others = by(b, name);
    const mine = by(a, name);
    const pairs = [...mine].filter(([key, item]) => item && others.get(key)).map(([key, item]) => ({ items: [item, others.get(key)] }));
    if (pairs.length) return pairs;
  }
  return [];
}

const pairs = pairUp(runs).map(({ items }) => ({
  id: items[0].id,
  name: items[0].name,
  lower: items[0].lower,
  items,
  apart: items[0].rank / runs[0].judged.length - items[1].rank / runs[1].judged.length,
  failed: false,
}));
byId("pairing").append(element("li", "", `${plural(pairs.length, "image")} in both`));
const alone = runs.map((run) => run.judged.length - pairs.length);
alone.forEach((number, index) => { if (number) byId("pairing").append(element("li", "", `${count(number)} only in ${"AB"[index]}`)); });

const alarm = (pair, index) => pair.items[index].score > sides[index].rule.threshold;
const kindOf = (pair) => {
  const [a, b] = [alarm(pair, 0), alarm(pair, 1)];
  return a && b ? "both" : a ? "first" : b ? "second" : "neither";
};

const split = (pair) => Number(alarm(pair, 0) !== alarm(pair, 1));

function describe({ item: pair, button }) {
  pair.items.forEach((item, index) => {
    const verdict = verdictOf(item.score, sides[index].rule);
    const part = button.querySelectorAll(".words")[index];
    part.querySelector(".shape").className = `shape ${verdict}`;
    part.querySelector(".score").textContent = item.score.toFixed(3);
    part.querySelector(".visually-hidden").textContent = WORDS[verdict];
  });
  const kind = kindOf(pair);
  button.className = `card ${kind === "both" ? "defect" : kind === "neither" ? "" : "review"}`;
}

function make(pair) {
  const button = element("button", "card");
  button.type = "button";
  const both = element("span", "pair");
  const shown = pair.items.map((item, index) => picture(runs[index], item, () => sides[index].table));
  both.append(...shown.map((part) => part.root));
  const words = element("span", "pair-words");
  for (const side of ["a", "b"]) {
    const part = element("span", "words");
    part.append(element("span", `tag ${side}`, side.toUpperCase()), element("i", "shape"), element("span", "score number"), element("span", "visually-hidden"));
    words.append(part);
  }
  const caption = element("span", "caption");
  caption.append(words, nameLine(pair.name));
  button.append(both, caption);
  describe({ item: pair, button });
  const all = (name) => () => { for (const part of shown) part[name](); };
  return { button, load: all("load"), cancel: all("cancel"), repaint: all("repaint") };
}

let shownPairs = [];
const gallery = new Gallery(byId("gallery"), {
  make,
  height: (width) => Math.round(width * 0.46) + 57,
  open: (index) => viewer.open(shownPairs, index),
});
gallery.size = 320;

const viewer = new Viewer({
  panes: (pair) => pair.items.map((item, index) => ({
    run: runs[index], item, rule: sides[index].rule, pixel: sides[index].pixel,
    level: sides[index].own ? sides[index].pixel : regionLevel(item.score, runs[index].rule, sides[index].pixel),
    pixelWords: "each run its own", label: `${"AB"[index]} · ${names[index]}`,
  })),
  closed: (pair, position) => gallery.focus(position),
});

const histograms = ["histogram-first", "histogram-second"].map((id, index) => new Histogram(byId(id), (threshold, final) => {
  sides[index].rule = manual(Math.round(threshold * 1e4) / 1e4);
  sides[index].own = true;
  judge();
  if (final) settle();
}));

const settle = settled(() => {
  byId("announce").textContent = ["both", "first", "second", "neither"].map((kind) => byId(`count-${kind}`).parentElement.innerText.replace(/\s+/g, " ")).join(", ");
  if (filter) choose();
}, 150);

const recolour = perFrame(() => {
  for (const side of sides) side.table = new Scale(side.run.scale, side.pixel).smallTable(side.run.scale);
  gallery.renew((card) => card.repaint());
});

function judge() {
  sides.forEach((side, index) => {
    side.pixel = !side.own && side.run.rule.pixel !== null ? side.run.rule.pixel : pixelFor(side.run.judged, side.rule.threshold);
    histograms[index].show(side.run.ascending, side.rule);
    const origin = byId(index ? "origin-second" : "origin-first");
    origin.textContent = side.own ? "drawn by hand" : originOf(side.run.rule)[0];
  });
  const counts = { both: 0, first: 0, second: 0, neither: 0 };
  for (const pair of pairs) counts[kindOf(pair)] += 1;
  for (const [kind, number] of Object.entries(counts)) byId(`count-${kind}`).textContent = count(number);
  gallery.renew(describe);
  recolour();
  scatter();
  viewer.refresh();
}

/* Scores of A against B: the corners off the diagonal are where the runs disagree. */
const scatter = perFrame(() => {
  const canvas = byId("scatter");
  const box = canvas.getBoundingClientRect();
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(box.width * ratio);
  canvas.height = Math.round(box.height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const colour = (name) => { canvas.style.color = `var(--${name})`; return getComputedStyle(canvas).color; };
  const place = (index, score) => {
    const { low, high } = histograms[index];
    const share = clamp((score - low) / (high - low || 1), 0, 1);
    return index ? box.height - 1 - share * (box.height - 2) : 1 + share * (box.width - 2);
  };
  context.strokeStyle = colour("line-strong");
  context.strokeRect(0.5, 0.5, box.width - 1, box.height - 1);
  const dots = { neither: colour("ok"), first: colour("accent"), second: colour("marked"), both: colour("defect") };
  context.globalAlpha = clamp(400 / pairs.length, 0.25, 0.9);
  for (const pair of pairs) {
    context.fillStyle = dots[kindOf(pair)];
    context.beginPath();
    context.arc(place(0, pair.items[0].score), place(1, pair.items[1].score), 2.2, 0, 7);
    context.fill();
  }
  context.globalAlpha = 1;
  context.strokeStyle = colour("text");
  context.beginPath();
  const x = place(0, sides[0].rule.threshold);
  const y = place(1, sides[1].rule.threshold);
  context.moveTo(x, 0); context.lineTo(x, box.height);
  context.moveTo(0, y); context.lineTo(box.width, y);
  context.stroke();
});

let filter = "";
const ORDERS = {
  apart: (a, b) => split(b) - split(a) || Math.abs(b.apart) - Math.abs(a.apart),
  first: (a, b) => b.items[0].score - a.items[0].score,
  second: (a, b) => b.items[1].score - a.items[1].score,
  name: (a, b) => collator.compare(a.name, b.name),
};

function choose() {
  const words = byId("query").value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  shownPairs = pairs.filter((pair) => (!filter || kindOf(pair) === filter) && words.every((word) => pair.lower.includes(word)));
  shownPairs.sort(ORDERS[byId("sort").value]);
  byId("shown").textContent = `${count(shownPairs.length)} of ${plural(pairs.length, "image")}`;
  byId("empty").hidden = shownPairs.length > 0;
  byId("empty").textContent = pairs.length ? "No image fits." : "The two runs have no image name in common.";
  gallery.show(shownPairs);
}

for (const button of document.querySelectorAll("[data-filter]")) {
  button.addEventListener("click", () => {
    filter = filter === button.dataset.filter ? "" : button.dataset.filter;
    for (const other of document.querySelectorAll("[data-filter]")) other.setAttribute("aria-pressed", String(other.dataset.filter === filter));
    choose();
  });
}
byId("query").addEventListener("input", settled(choose, 80));
byId("sort").addEventListener("change", choose);
byId("size").addEventListener("input", (event) => { gallery.size = Number(event.target.value); gallery.layout(); });
byId("overlay").addEventListener("change", (event) => byId("gallery").classList.toggle("plain", !event.target.checked));
for (const id of ["choose-first", "choose-second"]) {
  byId(id)?.addEventListener("change", () => {
    const [a, b] = [byId("choose-first").value, byId("choose-second").value];
    if (a !== b) location.href = `/compare/${a}/${b}`;
  });
}
document.addEventListener("theme", scatter);
new ResizeObserver(scatter).observe(byId("scatter").parentElement);
judge();
choose();
root.dataset.ready = "true";
