// The layers of the local stream: what each adds, where, and whether it counts.

import { element } from "./dom.js";

const nameOf = (part) => (part === 0 ? "start" : String(part));
const spoken = (part) => (part === 0 ? "the start" : `layer ${part}`);

export class LayerList {
  /* seen: what the server said of the image; changed(): other layers count; where(rows or null): show what one adds. */
  constructor(seen, { changed, where }) {
    this.own = seen.switch.own;
    this.changed = changed;
    this.where = where;
    this.shown = null;
    this.last = null;
    this.rows = Array.from({ length: seen.switch.depth + 1 }, (_, part) => this.row(part));
    this.list = element("ol", "layer-list");
    this.list.append(...this.rows.map((row) => row.node));
    this.hint = element("p", "hint");
    this.hint.setAttribute("role", "status");
    this.tools = element("div", "row");
    this.tools.append(
      this.tool("The model's own", () => this.choose(this.own)),
      this.tool("All layers", () => this.choose(this.rows.map((row) => row.part))),
    );
    this.nodes = [
      element("h4", "", "Layers"),
      element("p", "hint", "Choose which count; the map begins with what enters the lowest. Bars: what each adds to the log odds of “abnormal” where the map is highest, over the rest; press one to see where."),
      ...(seen.layers.own_share ? [element("p", "hint", `Linear heads on the tower's own stream weigh ${Math.round(100 * seen.layers.own_share)} % in the map, whatever is chosen here.`)] : []),
      ...(seen.layers.neighbour_weight ? [element("p", "hint", `Its odds are multiplied by how far each patch is from those most like it, to the power ${seen.layers.neighbour_weight}, whatever is chosen here.`)] : []),
      ...(seen.layers.refined ? [element("p", "hint", "The picture's own map is drawn finer than these patches, by a small network that sees the picture in cells.")] : []),
      this.list, this.tools, this.hint,
    ];
    this.choose(seen.switch.chosen, false);
    this.update(seen);
  }

  tool(words, action) {
    const button = element("button", "link", words);
    button.type = "button";
    button.addEventListener("click", action);
    return button;
  }

  row(part) {
    const node = element("li");
    const label = element("label", "number");
    const box = element("input");
    box.type = "checkbox";
    box.setAttribute("aria-label", `${spoken(part)} counts`);
    label.append(box, nameOf(part));
    const button = element("button");
    button.type = "button";
    const bar = element("span", "effect");
    const inner = element("i");
    bar.append(inner);
    const value = element("span", "number");
    button.append(bar, value);
    node.append(label, button);
    const row = { part, node, box, button, bar, inner, value };
    box.addEventListener("click", (event) => this.toggled(row, event.shiftKey));
    button.addEventListener("click", () => this.show(this.shown === part ? null : part));
    return row;
  }

  get chosen() { return this.rows.filter((row) => row.box.checked).map((row) => row.part); }

  get isOwn() { return this.chosen.join() === this.own.join(); }

  /* In words, such as "layers 2–6, 8 without the start". */
  get words() {
    const layers = this.chosen.filter((part) => part > 0);
    const spans = [];
    for (const layer of layers) {
      const open = spans.at(-1);
      if (open && open[1] === layer - 1) open[1] = layer;
      else spans.push([layer, layer]);
    }
    const words = spans.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`)).join(", ");
    return `layer${layers.length > 1 ? "s" : ""} ${words}${this.chosen[0] === 0 ? "" : ", without the start"}`;
  }

  choose(parts, tell = true) {
    for (const row of this.rows) row.box.checked = parts.includes(row.part);
    this.last = null;
    if (tell) this.settle();
  }

  /* With shift, all from the one before to this. */
  toggled(row, extend) {
    if (extend && this.last) {
      const [low, high] = [this.last.part, row.part].sort((a, b) => a - b);
      for (const other of this.rows) if (other.part >= low && other.part <= high) other.box.checked = row.box.checked;
    }
    if (!this.chosen.some((part) => part > 0)) {
      row.box.checked = true;
      this.hint.textContent = "One layer has to stay.";
      return;
    }
    this.last = row;
    this.settle();
  }

  settle() {
    this.hint.textContent = "";
    this.changed();
  }

  /* Another answer: what each part adds now. */
  update({ layers }) {
    this.layers = layers;
    const most = Math.max(...layers.contrast.map(Math.abs)) || 1;
    for (const row of this.rows) {
      const index = layers.parts.indexOf(row.part);
      row.node.classList.toggle("off", index < 0);
      row.button.disabled = index < 0;
      if (index < 0) {
        row.value.textContent = "–";
        row.inner.style.width = "0";
        row.button.removeAttribute("title");
        row.button.setAttribute("aria-label", `${spoken(row.part)} does not count`);
        continue;
      }
      const value = layers.contrast[index];
      row.bar.className = `effect ${value < 0 ? "down" : "up"}`;
      row.inner.style.width = `${50 * Math.abs(value) / most}%`;
      row.value.textContent = signed(value);
      row.button.title = `Local score without it: ${layers.local_without[index].toFixed(3)} instead of ${layers.local_score.toFixed(3)}`;
      row.button.setAttribute("aria-label", `Show where ${spoken(row.part)} adds: ${signed(value)}`);
    }
    this.show(layers.parts.includes(this.shown) ? this.shown : null);
  }

  show(part) {
    this.shown = part;
    for (const row of this.rows) row.button.setAttribute("aria-pressed", String(row.part === part));
    const index = this.layers.parts.indexOf(part);
    this.where(index < 0 ? null : aroundMedian(this.layers.contributions[index]));
  }
}

export const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

/* A part adds much the same everywhere; what differs from place to place is what tells a defect. */
function aroundMedian(rows) {
  const sorted = rows.flat().sort((a, b) => a - b);
  const median = sorted[sorted.length >> 1];
  return rows.map((row) => row.map((value) => value - median));
}
