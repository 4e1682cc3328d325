// How the model came to a score: its two parts, what other settings would give, layers, and head weights.

import { byId, element, request } from "./dom.js";
import { verdictOf, WORDS } from "./verdicts.js";

const percent = (share) => `${(100 * share).toPrecision(2)} %`;

export class Explain {
  /* rule(): what the page judges by now. */
  constructor(run, rule) {
    this.run = run;
    this.rule = rule;
    this.content = byId("explain-content");
    byId("explain").addEventListener("click", () => this.open());
  }

  /* Another image is shown: what was said is about the one before. */
  shown(item, stage) {
    this.item = item;
    this.stage = stage;
    this.content.replaceChildren();
    byId("explain").hidden = false;
  }

  async open() {
    const { item } = this;
    byId("explain").hidden = true;
    this.content.replaceChildren(element("p", "hint", "Asking the model …"));
    try {
      const seen = await request(`/runs/${this.run.key}/inspect/${item.id}`);
      if (this.item === item) this.show(seen);
    } catch (error) {
      if (this.item !== item) return;
      this.content.replaceChildren(element("p", "hint", error.message));
      byId("explain").hidden = error.status === 409;
    }
  }

  show({ split, layers, absent, heads }) {
    const parts = [...this.parts(split), ...this.whatIf(split)];
    if (layers) parts.push(...this.layers(layers));
    else if (absent.layers) parts.push(element("p", "hint", `No layers: ${absent.layers}.`));
    if (heads) parts.push(...headTable(heads));
    this.content.replaceChildren(...parts);
  }

  parts(split) {
    const whole = (1 - split.alpha) * split.global_score;
    const local = split.alpha * split.local_score;
    const bar = element("div", "split");
    for (const [kind, value] of [["whole", whole], ["local", local]]) {
      const part = element("i", kind);
      part.style.flexGrow = String(1000 * Math.max(value, 1e-6)); // grow factors below 1 would not fill the bar
      bar.append(part);
    }
    bar.setAttribute("aria-hidden", "true");
    const words = element("dl", "table number");
    const rows = { "From the whole image": whole, "From the map": local };
    Object.entries(rows).forEach(([name, value], index) => {
      const term = element("dt");
      term.append(element("i", `key ${index ? "local" : "whole"}`), name);
      words.append(term, element("dd", "", value.toFixed(3)));
    });
    return [bar, words];
  }

  whatIf(split) {
    const title = element("h4", "", "What if");
    const slider = (name, min, max, step, value, say) => {
      const label = element("label", "row");
      const input = element("input");
      Object.assign(input, { type: "range", min, max, step });
      input.value = String(value);
      const output = element("output", "number");
      label.append(element("span", "soft", name), input, output);
      input.addEventListener("input", update);
      return { label, input, output, say };
    };
    const alpha = slider("alpha", 0, 1, 0.01, split.alpha, (value) => value.toFixed(2));
    const logs = split.shares.map(Math.log);
    const share = slider("top share", logs[0], 0, 0.01, Math.log(split.top_share), (value) => percent(Math.exp(value)));
    const result = element("p", "number");
    result.setAttribute("role", "status");
    function interpolate(log) {
      let index = logs.findIndex((value) => value >= log - 1e-12);
      if (index <= 0) index = index < 0 ? logs.length - 1 : 0;
      if (index === 0) return split.local_by_share[0];
      const between = (log - logs[index - 1]) / (logs[index] - logs[index - 1]);
      return split.local_by_share[index - 1] + between * (split.local_by_share[index] - split.local_by_share[index - 1]);
    }
    const rule = this.rule;
    function update() {
      for (const one of [alpha, share]) {
        one.output.textContent = one.say(Number(one.input.value));
        one.input.setAttribute("aria-valuetext", one.output.textContent);
      }
      const weight = Number(alpha.input.value);
      const score = (1 - weight) * split.global_score + weight * interpolate(Number(share.input.value));
      result.textContent = `Score ${score.toFixed(3)}, by the line of the page: ${WORDS[verdictOf(score, rule())]}`;
    }
    update();
    return [title, alpha.label, share.label, result];
  }

  layers(layers) {
    const title = element("h4", "", "Layers");
    const hint = element("p", "hint", "What each adds to the log odds of “abnormal” where the map is highest, over the rest. Choose one to see where.");
    const list = element("ol", "layer-list");
    const most = Math.max(...layers.contrast.map(Math.abs)) || 1;
    layers.parts.forEach((part, index) => {
      const button = element("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      const bar = element("span", `effect ${layers.contrast[index] < 0 ? "down" : "up"}`);
      const inner = element("i");
      inner.style.width = `${50 * Math.abs(layers.contrast[index]) / most}%`;
      bar.append(inner);
      button.append(element("span", "number", part === 0 ? "start" : String(part)), bar, element("span", "number", layers.contrast[index].toFixed(2)));
      button.title = `Local score without it: ${layers.local_without[index].toFixed(3)} instead of ${layers.local_score.toFixed(3)}`;
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        for (const other of list.querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-pressed", String(on));
        this.stage.setExtra(on ? aroundMedian(layers.contributions[index]) : null);
      });
      const row = element("li");
      row.append(button);
      list.append(row);
    });
    return [title, hint, list];
  }
}

/* A part adds much the same everywhere; what differs from place to place is what tells a defect. */
function aroundMedian(rows) {
  const sorted = rows.flat().sort((a, b) => a - b);
  const median = sorted[sorted.length >> 1];
  return rows.map((row) => row.map((value) => value - median));
}

/* The learnt weight of each head: 1 leaves it as it was. */
function headTable(heads) {
  const table = element("table", "heads number");
  table.append(element("caption", "", "Head weights, a row for each layer"));
  const off = Math.max(...heads.weights.flat().map((weight) => Math.abs(weight - 1))) || 1;
  heads.weights.forEach((row, index) => {
    const line = element("tr");
    const head = element("th", "", String(heads.layers[index]));
    head.scope = "row";
    line.append(head);
    row.forEach((weight, position) => {
      const cell = element("td", weight >= 1 ? "up" : "down", weight.toFixed(1));
      cell.style.setProperty("--strength", `${Math.round(60 * Math.abs(weight - 1) / off)}%`);
      cell.title = `Layer ${heads.layers[index]}, head ${position + 1}: ${weight.toFixed(3)}`;
      line.append(cell);
    });
    table.append(line);
  });
  const frame = element("div", "scroll");
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", "Head weights");
  frame.append(table);
  return [frame];
}
