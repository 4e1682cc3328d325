// Bars of the scores, and a line through them that one drags: a slider for the pointer, the keyboard and screen readers.

import { clamp, count, perFrame } from "./dom.js";
import { tally, verdictOf, WORDS } from "./verdicts.js";

const SVG = "http://www.w3.org/2000/svg";
const BINS = 72;

export class Histogram {
  /* change(threshold, final): the line moved; final when it was let go. */
  constructor(root, change) {
    this.root = root;
    this.bars = root.querySelector(".bars");
    this.line = root.querySelector(".line");
    this.flag = root.querySelector(".flag");
    this.axis = root.querySelector(".axis");
    this.change = change;
    this.move = perFrame((threshold) => this.change(threshold, false));
    this.line.addEventListener("keydown", (event) => this.onKey(event));
    root.addEventListener("pointerdown", (event) => this.onPointer(event));
  }

  /* ascending: scores; rule: what they are judged by. */
  show(ascending, rule) {
    if (ascending !== this.ascending) this.measure(ascending, rule);
    this.rule = rule;
    if (rule.threshold < this.low || rule.threshold > this.high) this.measure(ascending, rule);
    this.draw();
  }

  measure(ascending, rule) {
    this.ascending = ascending;
    const first = ascending.length ? Math.min(ascending[0], rule.threshold) : 0;
    const last = ascending.length ? Math.max(ascending[ascending.length - 1], rule.threshold) : 1;
    const margin = Math.max(0.03 * (last - first), 0.005);
    this.low = Math.max(0, first - margin);
    this.high = Math.min(1, last + margin);
    this.counts = new Array(BINS).fill(0);
    const width = (this.high - this.low) / BINS;
    for (const score of ascending) this.counts[clamp(Math.floor((score - this.low) / width), 0, BINS - 1)] += 1;
    this.axis.replaceChildren(...[0, 0.25, 0.5, 0.75, 1].map((share) => {
      const tick = document.createElement("span");
      tick.textContent = (this.low + share * (this.high - this.low)).toFixed(3);
      return tick;
    }));
  }

  draw() {
    const { low, high, counts, rule } = this;
    const most = Math.max(1, ...counts);
    const width = (high - low) / BINS;
    const parts = document.createDocumentFragment();
    if (rule.high === null || rule.high > rule.low) {
      const from = clamp((rule.low - low) / width, 0, BINS);
      const to = rule.high === null ? BINS : clamp((rule.high - low) / width, 0, BINS);
      parts.append(rectangle("band", from, 0, to - from, 100));
    }
    counts.forEach((number, bin) => {
      if (!number) return;
      const height = Math.max(3, 100 * number / most);
      const kind = verdictOf(low + (bin + 0.5) * width, rule);
      parts.append(rectangle(kind, bin + 0.08, 100 - height, 0.84, height));
    });
    this.bars.setAttribute("viewBox", `0 0 ${BINS} 100`);
    this.bars.replaceChildren(parts);
    const totals = tally(this.ascending, rule);
    this.bars.setAttribute("aria-label", `Histogram of ${count(this.ascending.length)} scores from ${low.toFixed(3)} to ${high.toFixed(3)}`);
    this.line.style.left = `${100 * (rule.threshold - low) / (high - low)}%`;
    this.flag.textContent = rule.threshold.toFixed(3);
    this.line.setAttribute("aria-valuemin", low.toFixed(4));
    this.line.setAttribute("aria-valuemax", high.toFixed(4));
    this.line.setAttribute("aria-valuenow", rule.threshold.toFixed(4));
    const said = Object.entries(totals).map(([kind, number]) => `${count(number)} ${WORDS[kind].toLowerCase()}`);
    this.line.setAttribute("aria-valuetext", `${rule.threshold.toFixed(3)}: ${said.join(", ")}`);
  }

  onKey(event) {
    const step = (this.high - this.low) / 200;
    const now = this.rule.threshold;
    const moves = {
      ArrowRight: now + step, ArrowUp: now + step, ArrowLeft: now - step, ArrowDown: now - step,
      PageUp: now + 10 * step, PageDown: now - 10 * step, Home: this.low, End: this.high,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.change(clamp(moves[event.key], this.low, this.high), true);
  }

  onPointer(event) {
    if (event.button !== 0) return;
    const box = this.bars.getBoundingClientRect();
    if (!event.target.closest(".line") && (event.clientY < box.top || event.clientY > box.bottom)) return;
    event.preventDefault();
    this.line.focus({ preventScroll: true });
    this.line.classList.add("dragging");
    const at = (moved) => {
      const share = clamp((moved.clientX - box.left) / box.width, 0, 1);
      return this.low + share * (this.high - this.low);
    };
    const onMove = (moved) => this.move(at(moved));
    const onUp = (moved) => {
      window.removeEventListener("pointermove", onMove);
      window.removeEventListener("pointerup", onUp);
      window.removeEventListener("pointercancel", onUp);
      this.line.classList.remove("dragging");
      if (moved.type === "pointerup") this.change(at(moved), true);
    };
    window.addEventListener("pointermove", onMove);
    window.addEventListener("pointerup", onUp);
    window.addEventListener("pointercancel", onUp);
    if (!event.target.closest(".line")) this.move(at(event));
  }
}

function rectangle(kind, x, y, width, height) {
  const node = document.createElementNS(SVG, "rect");
  node.setAttribute("class", kind);
  for (const [name, value] of Object.entries({ x, y, width, height })) node.setAttribute(name, String(value));
  return node;
}
