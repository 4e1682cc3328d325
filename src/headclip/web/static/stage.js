// One image that one zooms and pans, with its map, mask and regions over it.

import { clamp, element, perFrame } from "./dom.js";
import { maskTable, paint } from "./colours.js";

const SVG = "http://www.w3.org/2000/svg";
const MOST = 64; // times the size that fits

/* The border of a region of interest, LEFT,TOP,WIDTH,HEIGHT in pixels or percent, as a path. */
function borderOf(roi, width, height) {
  const sides = [width, height, width, height];
  const [x, y, w, h] = roi.split(",").map((part, i) => part.endsWith("%") ? parseFloat(part) / 100 * sides[i] : Number(part));
  return `M${x} ${y}h${w}v${h}h${-w}Z`;
}

export class Stage {
  /* moved(view): zoom or place has changed by hand. view: zoom as multiple of what fits, and the centre in shares. */
  constructor(root, moved) {
    this.root = root;
    this.moved = moved;
    this.readout = root.querySelector(".readout");
    this.label = root.querySelector(".stage-label");
    this.sheet = element("div", "sheet");
    this.image = element("img");
    this.image.alt = "";
    this.image.draggable = false;
    this.heat = element("canvas");
    this.mask = element("canvas");
    this.outlines = document.createElementNS(SVG, "svg");
    this.outlines.setAttribute("aria-hidden", "true");
    this.border = document.createElementNS(SVG, "svg");
    this.border.setAttribute("aria-hidden", "true");
    this.border.setAttribute("class", "roi");
    this.extra = element("canvas"); // one layer's part of the map
    this.extra.hidden = true;
    this.sheet.append(this.image, this.heat, this.mask, this.extra, this.border, this.outlines);
    root.prepend(this.sheet);
    this.view = { zoom: 1, x: 0.5, y: 0.5 };
    this.layers = { map: true, mask: false, regions: false };
    this.pointers = new Map();
    this.repaint = perFrame(() => this.paintNow());
    new ResizeObserver(() => this.apply()).observe(root);
    root.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    root.addEventListener("pointerdown", (event) => this.onDown(event));
    root.addEventListener("pointermove", (event) => this.onMove(event));
    for (const name of ["pointerup", "pointercancel"]) root.addEventListener(name, (event) => this.onUp(event));
    root.addEventListener("pointerleave", () => { this.readout.hidden = true; });
    root.addEventListener("dblclick", (event) => this.zoomAt(this.view.zoom > 1.01 ? 1 / this.view.zoom : 4, event));
  }

  /* size in pixels of the image; preview: shown until picture has arrived; roi: the part that is judged, if not all. */
  show({ width, height, preview, picture, name, label, roi }) {
    this.width = width;
    this.height = height;
    this.sheet.style.width = `${width}px`;
    this.sheet.style.height = `${height}px`;
    this.outlines.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.outlines.replaceChildren();
    this.border.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.border.replaceChildren();
    if (roi) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("d", borderOf(roi, width, height));
      this.border.append(path);
    }
    this.levels = null;
    this.heat.hidden = this.mask.hidden = this.extra.hidden = true;
    this.image.src = preview;
    this.image.alt = name;
    this.label.hidden = !label;
    this.label.textContent = label || "";
    const full = new Image();
    full.onload = () => { if (this.full === full) this.image.src = full.src; };
    this.full = full;
    full.src = picture;
    this.apply();
  }

  setLevels(levels) { this.levels = levels; this.repaint(); }

  /* Words in the corner, where the map is not the run's own. */
  setNote(words) {
    this.label.hidden = !words;
    this.label.textContent = words;
  }

  /* scale: colours of the map; opacity in [0, 1]; level: map value at which the mask begins. */
  setColours(scale, opacity, level = scale.pixel) {
    this.scale = scale;
    this.opacity = opacity;
    this.level = level;
    this.repaint();
  }

  setLayers(layers) { this.layers = { ...layers }; this.repaint(); }

  /* values: rows of numbers around 0, drawn over the image: orange above, blue below; null takes them away. */
  setExtra(values) {
    this.extra.hidden = !values;
    this.repaint();
    if (!values) return;
    const [height, width] = [values.length, values[0].length];
    const most = Math.max(...values.flat().map(Math.abs)) || 1;
    this.extra.width = width;
    this.extra.height = height;
    const context = this.extra.getContext("2d");
    const pixels = context.createImageData(width, height);
    values.flat().forEach((value, index) => {
      const colour = value > 0 ? [236, 110, 20] : [40, 100, 235];
      pixels.data.set([...colour, Math.round(225 * Math.abs(value) / most)], 4 * index);
    });
    context.putImageData(pixels, 0, 0);
  }

  setRegions(regions, chosen) {
    this.outlines.replaceChildren(...regions.map((region) => {
      const path = document.createElementNS(SVG, "path");
      const rings = [region.polygon, ...region.holes];
      path.setAttribute("d", rings.map((ring) => `M${ring.map((point) => point.join(" ")).join("L")}Z`).join(""));
      if (region.number === chosen) path.setAttribute("class", "chosen");
      return path;
    }));
  }

  paintNow() {
    const { levels, scale } = this;
    this.heat.hidden = !levels || !this.layers.map || !this.extra.hidden;
    this.mask.hidden = !levels || !this.layers.mask;
    this.outlines.style.display = this.layers.regions ? "" : "none";
    if (!levels || !scale) return;
    this.heat.style.opacity = String(this.opacity);
    if (this.layers.map) paint(this.heat, levels.values, levels.width, levels.height, scale.fullTable());
    if (this.layers.mask) paint(this.mask, levels.values, levels.width, levels.height, maskTable(this.level));
  }

  get fit() {
    const { clientWidth, clientHeight } = this.root;
    return Math.min((clientWidth - 24) / this.width, (clientHeight - 24) / this.height) || 1;
  }

  get factor() { return this.fit * this.view.zoom; }

  setView(view) { this.view = { ...view }; this.apply(); }

  apply() {
    if (!this.width) return;
    const { clientWidth, clientHeight } = this.root;
    const factor = this.factor;
    const left = clientWidth / 2 - this.view.x * this.width * factor;
    const top = clientHeight / 2 - this.view.y * this.height * factor;
    this.sheet.style.transform = `translate(${left}px, ${top}px) scale(${factor})`;
    this.sheet.classList.toggle("crisp", factor >= 4);
  }

  change(view) {
    this.setView({ zoom: clamp(view.zoom, 0.5, MOST), x: clamp(view.x, -0.1, 1.1), y: clamp(view.y, -0.1, 1.1) });
    this.moved(this.view);
  }

  /* Zoom so that what is under the pointer stays there; without a pointer, what is in the middle. */
  zoomAt(times, event = null) {
    const zoom = clamp(this.view.zoom * times, 0.5, MOST);
    let { x, y } = this.view;
    if (zoom <= 1.0001 && times < 1) { x = y = 0.5; } else if (event) {
      const box = this.root.getBoundingClientRect();
      const dx = (event.clientX - box.left - box.width / 2) / this.width / this.fit;
      const dy = (event.clientY - box.top - box.height / 2) / this.height / this.fit;
      x += dx / this.view.zoom - dx / zoom;
      y += dy / this.view.zoom - dy / zoom;
    }
    this.change({ zoom, x, y });
  }

  pan(dx, dy) {
    this.change({ zoom: this.view.zoom, x: this.view.x - dx / this.width / this.factor, y: this.view.y - dy / this.height / this.factor });
  }

  /* A box in pixels of the image, with room around it. */
  lookAt([left, top, width, height]) {
    const { clientWidth, clientHeight } = this.root;
    const factor = Math.min(clientWidth / (3 * width), clientHeight / (3 * height));
    this.change({
      zoom: clamp(factor / this.fit, 1, 12),
      x: (left + width / 2) / this.width,
      y: (top + height / 2) / this.height,
    });
  }

  onWheel(event) {
    event.preventDefault();
    const pixels = event.deltaMode === 1 ? 24 * event.deltaY : event.deltaY;
    this.zoomAt(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0022)), event);
  }

  onDown(event) {
    if (event.button !== 0) return;
    this.root.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.root.classList.add("panning");
  }

  onMove(event) {
    this.read(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
    if (others.length) {
      const far = (point) => Math.hypot(point.x - others[0].x, point.y - others[0].y) || 1;
      const now = { x: event.clientX, y: event.clientY };
      this.zoomAt(far(now) / far(before), { clientX: (now.x + others[0].x) / 2, clientY: (now.y + others[0].y) / 2 });
    } else this.pan(event.clientX - before.x, event.clientY - before.y);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  }

  onUp(event) {
    this.pointers.delete(event.pointerId);
    if (!this.pointers.size) this.root.classList.remove("panning");
  }

  /* Where the pointer is, and what the map says there. */
  read(event) {
    const box = this.root.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left - box.width / 2) / this.factor + this.view.x * this.width);
    const y = Math.floor((event.clientY - box.top - box.height / 2) / this.factor + this.view.y * this.height);
    const inside = x >= 0 && y >= 0 && x < this.width && y < this.height;
    this.readout.hidden = !inside;
    if (!inside) return;
    let value = "";
    if (this.levels) {
      const column = Math.floor(x * this.levels.width / this.width);
      const row = Math.floor(y * this.levels.height / this.height);
      value = ` · map ${(this.levels.values[row * this.levels.width + column] / 65535).toFixed(3)}`;
    }
    this.readout.textContent = `${x}, ${y}${value}`;
  }
}
