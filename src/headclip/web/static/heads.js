// The weight of each head, a row for each layer that counts; pressing one switches it off. Arrow keys move in the grid.

import { clamp, element } from "./dom.js";
import { signed } from "./layers.js";

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -1e3], End: [0, 1e3] };

export class HeadGrid {
  /* seen: what the server said of the image; changed(): other heads count. */
  constructor(seen, changed) {
    this.changed = changed;
    this.silent = new Set();
    this.at = [0, 0];
    this.table = element("table", "heads number");
    this.table.setAttribute("role", "grid");
    this.table.addEventListener("keydown", (event) => this.onKey(event));
    this.frame = element("div", "scroll");
    this.frame.append(this.table);
    this.all = element("button", "link", "All heads");
    this.all.type = "button";
    this.all.addEventListener("click", () => {
      this.silent.clear();
      this.changed();
      this.cell()?.focus();
    });
    this.tools = element("div", "row");
    this.tools.append(this.all);
    const words = seen.heads.learnt
      ? "What was learnt for each head: 1 leaves it as it was. Press one to switch it off."
      : "No weights were learnt: every head counts as it is. Press one to switch it off.";
    this.nodes = [element("h4", "", "Heads"), element("p", "hint", words), this.frame, this.tools];
    this.update(seen);
  }

  /* Of some layers, the heads that are off, as LAYER.HEAD. */
  silentIn(layers) { return [...this.silent].filter((name) => layers.includes(Number(name.split(".")[0]))); }

  /* The grid holds the layers that count, so it is made again; whoever was in it stays at the same head. */
  update({ heads, layers }) {
    const held = this.table.contains(document.activeElement) ? document.activeElement.dataset.head : null;
    const off = Math.max(...heads.weights.flat().map((weight) => Math.abs(weight - 1))) || 1;
    const caption = element("caption", "visually-hidden", "Head weights: a row for each layer, a column for each head");
    this.table.replaceChildren(caption, ...heads.layers.map((layer, index) => {
      const line = element("tr");
      const head = element("th", "", String(layer));
      head.scope = "row";
      head.setAttribute("aria-label", `Layer ${layer}`);
      line.append(head, ...heads.weights[index].map((weight, position) => (
        this.cellOf(layer, position + 1, weight, off, layers.head_contrast[index][position])
      )));
      return line;
    }));
    this.cells = [...this.table.rows].map((row) => [...row.querySelectorAll("button")]);
    this.all.hidden = this.silentIn(heads.layers).length === 0;
    const place = held && this.table.querySelector(`[data-head="${held}"]`);
    if (place) this.at = this.placeOf(place);
    this.at = [clamp(this.at[0], 0, this.cells.length - 1), clamp(this.at[1], 0, this.cells[0].length - 1)];
    this.cell().tabIndex = 0;
    if (held) this.cell().focus({ preventScroll: true });
  }

  cellOf(layer, head, weight, off, adds) {
    const name = `${layer}.${head}`;
    const cell = element("td", weight >= 1 ? "up" : "down");
    const button = element("button", "", weight.toFixed(1));
    const counts = !this.silent.has(name);
    cell.style.setProperty("--strength", `${counts ? Math.round(60 * Math.abs(weight - 1) / off) : 0}%`);
    Object.assign(button, { type: "button", tabIndex: -1 });
    button.dataset.head = name;
    button.setAttribute("aria-pressed", String(counts));
    button.setAttribute("aria-label", `Layer ${layer}, head ${head}: weight ${weight.toFixed(1)}`);
    button.title = `Layer ${layer}, head ${head}: weight ${weight.toFixed(3)}, ${counts ? `adds ${signed(adds)} where the map is highest` : "switched off"}`;
    button.addEventListener("click", () => {
      if (this.silent.has(name)) this.silent.delete(name);
      else this.silent.add(name);
      button.setAttribute("aria-pressed", String(!this.silent.has(name)));
      this.move(...this.placeOf(button));
      this.changed();
    });
    cell.append(button);
    return cell;
  }

  cell() { return this.cells[this.at[0]]?.[this.at[1]]; }

  placeOf(button) {
    const row = this.cells.findIndex((line) => line.includes(button));
    return [row, this.cells[row].indexOf(button)];
  }

  move(row, column) {
    this.cell().tabIndex = -1;
    this.at = [clamp(row, 0, this.cells.length - 1), clamp(column, 0, this.cells[0].length - 1)];
    this.cell().tabIndex = 0;
    this.cell().focus();
  }

  onKey(event) {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation(); // the same keys step through the images
    this.move(this.at[0] + step[0], this.at[1] + step[1]);
  }
}
