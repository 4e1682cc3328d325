// The large view: one stage or two side by side, what is said of the image, and the keys.

import { byId, clamp, count, element, isTyping, perFrame, settled } from "./dom.js";
import { drawLegend, loadLevels, Scale } from "./colours.js";
import { Stage } from "./stage.js";
import { verdictOf, WORDS } from "./verdicts.js";

export class Viewer {
  /* panes(entry): for each stage { run, item, rule, pixel, level, label }; an entry is what the gallery holds.
     pixel: what the run's colours turn on; level: where this image's mask and regions begin.
     mark(entry, kind): keep a mark; closed(entry): the dialog has closed. */
  constructor({ panes, mark = null, shown = () => {}, closed = () => {} }) {
    this.dialog = byId("viewer");
    this.panes = panes;
    this.mark = mark;
    this.shown = shown;
    this.closed = closed;
    this.entries = [];
    this.position = 0;
    this.layers = { map: true, mask: false, regions: false };
    this.ownPixel = null;
    this.chosen = 0;
    this.extraKeys = {};
    this.stages = [...this.dialog.querySelectorAll(".stage")].map((root) => new Stage(root, (view) => this.follow(view)));
    this.recolour = perFrame(() => this.colours());
    this.fetchRegions = settled(() => this.loadRegions(), 120);
    this.wire();
  }

  get isOpen() { return this.dialog.open; }

  get entry() { return this.entries[this.position]; }

  wire() {
    const on = (id, action, kind = "click") => byId(id).addEventListener(kind, action);
    on("close", () => this.dialog.close());
    on("previous", () => this.step(-1));
    on("next", () => this.step(1));
    on("zoom-in", () => this.stages[0].zoomAt(1.5));
    on("zoom-out", () => this.stages[0].zoomAt(1 / 1.5));
    on("zoom-fit", () => this.fit());
    on("opacity", () => this.recolour(), "input");
    on("pixel", (event) => {
      const { low, high } = this.pixelRange;
      this.ownPixel = low + (high - low) * Number(event.target.value) / 1000;
      this.recolour();
    }, "input");
    on("pixel-auto", () => { this.ownPixel = null; this.recolour(); });
    for (const button of this.dialog.querySelectorAll("[data-layer]")) {
      button.addEventListener("click", () => this.toggle(button.dataset.layer));
    }
    for (const button of this.dialog.querySelectorAll("[data-mark]")) {
      button.addEventListener("click", () => this.setMark(button.dataset.mark));
    }
    this.dialog.addEventListener("keydown", (event) => this.onKey(event));
    this.dialog.addEventListener("close", () => {
      for (const stage of this.stages) stage.image.removeAttribute("src");
      this.closed(this.entry, this.position);
    });
  }

  open(entries, position) {
    this.entries = entries;
    this.position = position;
    if (!this.dialog.open) this.dialog.showModal();
    this.show();
    this.stages[0].root.focus({ preventScroll: true });
  }

  find(direction) {
    for (let next = this.position + direction; next >= 0 && next < this.entries.length; next += direction) {
      if (!this.entries[next].failed) return next;
    }
    return -1;
  }

  step(direction) {
    const next = this.find(direction);
    if (next < 0) return;
    this.position = next;
    this.show();
  }

  show() {
    const { entry } = this;
    this.now = this.panes(entry);
    this.chosen = 0;
    byId("viewer-name").textContent = entry.name;
    byId("viewer-name").title = entry.name;
    byId("viewer-position").textContent = `${count(this.position + 1)} of ${count(this.entries.length)}`;
    byId("previous").disabled = this.find(-1) < 0;
    byId("next").disabled = this.find(1) < 0;
    const at = this.position;
    this.now.forEach((pane, index) => {
      const { run, item, label } = pane;
      const stage = this.stages[index];
      stage.show({
        width: item.width, height: item.height, name: item.name, label, roi: run.roi,
        preview: run.address("thumb", item), picture: run.address("picture", item),
      });
      stage.setLayers(this.layers);
      loadLevels(run.address("map", item)).then((levels) => {
        if (this.position === at && this.now[index] === pane) stage.setLevels(levels);
      }).catch(() => {});
    });
    this.fit();
    this.facts();
    this.colours();
    this.shown(entry);
    this.warm();
  }

  /* The next picture is asked for before it is wanted. */
  warm() {
    const next = this.find(1);
    if (next < 0) return;
    for (const { run, item } of this.panes(this.entries[next])) new Image().src = run.address("picture", item);
  }

  /* What the page says of this entry has changed: the threshold, or a mark. */
  refresh() {
    if (!this.isOpen) return;
    this.now = this.panes(this.entry);
    this.facts();
    this.colours();
  }

  facts() {
    byId("side-facts").replaceChildren(...this.now.map(({ item, rule, label }) => {
      const verdict = verdictOf(item.score, rule);
      const part = element("section", "side-part");
      const line = element("p", `verdict-line ${verdict}`);
      line.append(element("i", `shape ${verdict}`), element("b", "", WORDS[verdict]), element("span", "number", item.score.toFixed(3)));
      const meter = element("div", "meter");
      const low = Math.min(rule.threshold, item.score) * 0.8;
      const high = Math.max(rule.threshold, item.score) * 1.1;
      const share = (value) => `${100 * clamp((value - low) / (high - low || 1), 0, 1)}%`;
      const bar = element("i");
      bar.style.width = share(item.score);
      const tick = element("em");
      tick.style.left = share(rule.threshold);
      meter.append(bar, tick);
      meter.setAttribute("aria-hidden", "true");
      const table = element("dl", "table number");
      const rows = {
        Threshold: rule.threshold.toFixed(3),
        "Whole image": item.global?.toFixed(3) ?? "–",
        "Top of the map": item.local?.toFixed(3) ?? "–",
        Rank: `${count(item.rank)}`,
        Size: `${item.width} × ${item.height} px`,
      };
      for (const [name, value] of Object.entries(rows)) table.append(element("dt", "", name), element("dd", "", value));
      if (label) part.append(element("h3", "", label));
      part.append(line, meter, table);
      return part;
    }));
    if (!this.mark) return;
    const { run, item } = this.now[0];
    const mark = run.marks.get(item.id);
    for (const button of this.dialog.querySelectorAll("[data-mark]")) {
      button.setAttribute("aria-pressed", String(button.dataset.mark === mark));
    }
  }

  get pixelRange() {
    const { run, pixel, level } = this.now[0];
    const [low, high] = run.scale;
    return { low: Math.min(low, level), high: Math.max(high, pixel + 0.05) };
  }

  pixelOf(pane) { return this.ownPixel ?? pane.pixel; }

  levelOf(pane) { return this.ownPixel ?? pane.level; }

  colours() {
    const opacity = Number(byId("opacity").value) / 100;
    this.now.forEach((pane, index) => {
      this.stages[index].setColours(new Scale(pane.run.scale, this.pixelOf(pane)), opacity, this.levelOf(pane));
    });
    const pixel = this.levelOf(this.now[0]);
    const { low, high } = this.pixelRange;
    byId("pixel").value = String(Math.round(1000 * (pixel - low) / (high - low)));
    byId("pixel").setAttribute("aria-valuetext", pixel.toFixed(3));
    byId("pixel-value").textContent = pixel.toFixed(3);
    byId("pixel-auto").hidden = this.ownPixel === null;
    byId("pixel-hint").textContent = this.ownPixel === null ? this.now[0].pixelWords : "";
    drawLegend(byId("viewer-legend"), byId("viewer-legend-values"), new Scale(this.now[0].run.scale, this.pixelOf(this.now[0])));
    if (this.layers.regions) this.fetchRegions();
  }

  async loadRegions() {
    this.abort?.abort();
    if (!this.layers.regions || !this.isOpen) return;
    const abort = new AbortController();
    this.abort = abort;
    const found = await Promise.all(this.now.map((pane) => pane.run.regions(pane.item, this.levelOf(pane), abort.signal).catch(() => null)));
    if (abort.signal.aborted) return;
    this.found = found.map((answer) => answer?.regions ?? []);
    this.found.forEach((regions, index) => this.stages[index].setRegions(regions, this.chosen));
    this.listRegions(found[0]);
  }

  listRegions(answer) {
    const { regions = [], count: total = 0 } = answer ?? {};
    byId("regions-title").textContent = total ? `Regions (${count(total)})` : "No region above the map threshold";
    const list = byId("regions-list");
    const focused = list.contains(document.activeElement);
    list.replaceChildren(...regions.slice(0, 60).map((region) => {
      const row = element("li");
      const button = element("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(region.number === this.chosen));
      const area = region.area_mm2 === null ? `${count(region.area)} px` : `${region.area_mm2.toPrecision(3)} mm²`;
      const words = element("span", "number", area);
      words.append(element("span", "soft", ` at ${Math.round(region.peak_at[0])}, ${Math.round(region.peak_at[1])}`));
      button.append(element("span", "soft number", String(region.number)), words, element("span", "number", `peak ${region.peak.toFixed(3)}`));
      button.title = "Zoom to this region";
      button.addEventListener("click", () => {
        this.chosen = region.number;
        this.stages[0].setRegions(this.found[0], this.chosen);
        this.stages[0].lookAt(region.box);
        this.listRegions(answer);
      });
      row.append(button);
      return row;
    }));
    // Whoever was in the list stays there: with the focus nowhere, the keys would be dead.
    if (focused) (list.querySelector("[aria-pressed=true]") ?? list.querySelector("button") ?? this.stages[0].root).focus();
  }

  toggle(layer) {
    this.layers[layer] = !this.layers[layer];
    for (const button of this.dialog.querySelectorAll("[data-layer]")) {
      button.setAttribute("aria-pressed", String(this.layers[button.dataset.layer]));
    }
    byId("regions-part").hidden = !this.layers.regions;
    for (const stage of this.stages) stage.setLayers(this.layers);
    if (layer === "regions") this.loadRegions();
  }

  async setMark(kind) {
    if (!this.mark) return;
    const { run, item } = this.now[0];
    const hint = byId("mark-hint");
    try {
      await this.mark(this.entry, run.marks.get(item.id) === kind ? null : kind);
      hint.textContent = run.marks.has(item.id) ? "Kept." : "Taken back.";
    } catch (error) {
      hint.textContent = `Not kept: ${error.message}`;
    }
    this.facts();
  }

  fit() { this.stages[0].change({ zoom: 1, x: 0.5, y: 0.5 }); }

  /* All stages show the same part, whatever the sizes of their images. */
  follow(view) {
    for (const stage of this.stages) stage.setView(view);
    byId("zoom-value").textContent = `${Math.round(100 * this.stages[0].factor)} %`;
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event)) return;
    if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
    const [stage] = this.stages;
    const actions = {
      ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1),
      "+": () => stage.zoomAt(1.5), "=": () => stage.zoomAt(1.5), "-": () => stage.zoomAt(1 / 1.5), 0: () => this.fit(),
      w: () => stage.pan(0, 80), s: () => stage.pan(0, -80), a: () => stage.pan(80, 0), d: () => stage.pan(-80, 0),
      1: () => this.toggle("map"), 2: () => this.toggle("mask"), 3: () => this.toggle("regions"),
      f: () => this.setMark("false alarm"), m: () => this.setMark("miss"), ...this.extraKeys,
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}
