// How the model came to a score: its two parts, what other settings would give, and layers and heads to switch.

import { byId, element, request, settled } from "./dom.js";
import { loadLevels } from "./colours.js";
import { HeadGrid } from "./heads.js";
import { LayerList } from "./layers.js";
import { verdictOf, WORDS } from "./verdicts.js";

const percent = (share) => `${(100 * share).toPrecision(2)} %`;

export class Explain {
  /* rule(): what the page judges by now. */
  constructor(run, rule) {
    this.run = run;
    this.rule = rule;
    this.content = byId("explain-content");
    this.state = byId("explain-state");
    this.button = byId("explain");
    this.ask = settled(() => this.switched(), 120);
    this.button.addEventListener("click", () => this.open());
  }

  /* Another image is shown: what was said is about the one before. */
  shown(item, stage) {
    this.item = item;
    this.stage = stage;
    this.abort?.abort();
    this.seen = null;
    this.content.replaceChildren();
    this.say("");
    this.button.hidden = false;
  }

  say(words) { this.state.textContent = words; }

  get address() { return `/runs/${this.run.key}/inspect/${this.item.id}`; }

  async open() {
    if (this.seen || this.button.hidden) return;
    const { item } = this;
    const focused = document.activeElement === this.button;
    this.button.hidden = true;
    this.say("Asking the model …");
    if (focused) this.content.focus({ preventScroll: true }); // with the focus nowhere, the keys would be dead
    try {
      const seen = await request(this.address);
      if (this.item === item) this.show(seen);
    } catch (error) {
      if (this.item !== item) return;
      this.say(error.message);
      this.button.hidden = error.status === 409;
    }
  }

  /* The first answer: the model as it is. */
  show(seen) {
    this.say("");
    this.seen = this.now = seen;
    this.bar = element("div", "split");
    this.bar.setAttribute("aria-hidden", "true");
    this.table = element("dl", "table number");
    this.result = element("p", "result number");
    this.result.setAttribute("role", "status");
    const parts = [this.result, this.bar, this.table, ...this.whatIf(seen.split)];
    if (seen.switch) {
      this.layers = new LayerList(seen, { changed: () => this.ask(), where: (values) => this.stage.setExtra(values) });
      this.heads = new HeadGrid(seen, () => this.ask());
      parts.push(...this.layers.nodes, ...this.heads.nodes);
    } else {
      this.layers = this.heads = null;
      if (seen.absent.layers) parts.push(element("p", "hint", `No layers: ${seen.absent.layers}.`));
    }
    this.content.replaceChildren(...parts);
    this.update();
  }

  /* Other layers or heads count: the answer comes from features that the server has kept. */
  async switched() {
    const { item, layers, heads } = this;
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    const silent = heads.silentIn(layers.chosen);
    const query = new URLSearchParams({ layers: layers.chosen.join(",") });
    if (silent.length) query.set("silent", silent.join(","));
    this.content.setAttribute("aria-busy", "true");
    try {
      const seen = await request(`${this.address}?${query}`, { signal: abort.signal });
      if (this.item !== item) return;
      this.now = seen;
      this.say("");
      layers.update(seen);
      heads.update(seen);
      this.update();
      if (layers.isOwn && !silent.length) {
        this.stage.setNote("");
        this.stage.setLevels(await loadLevels(this.run.address("map", item)));
      } else {
        this.stage.setNote(`Map by ${layers.words}${silent.length ? `, ${silent.length} head${silent.length > 1 ? "s" : ""} off` : ""}`);
        this.stage.setLevels(unpacked(seen.map));
      }
    } catch (error) {
      if (!abort.signal.aborted && this.item === item) this.say(error.message);
    } finally {
      if (this.abort === abort) this.content.removeAttribute("aria-busy");
    }
  }

  whatIf(split) {
    const title = element("h4", "", "What if");
    const slider = (name, words, min, max, step, value, say) => {
      const label = element("label", "row");
      label.title = words;
      const input = element("input");
      Object.assign(input, { type: "range", min, max, step });
      input.value = String(value);
      const output = element("output", "number");
      label.append(element("span", "soft", name), input, output);
      input.addEventListener("input", () => this.update());
      return { label, input, output, say };
    };
    const low = Math.log(split.shares[0]);
    const share = Math.log(split.top_share);
    this.alpha = slider("alpha", "Weight of the map in the score", 0, 1, 0.01, split.alpha, (value) => value.toFixed(2));
    this.share = slider("top share", "Share of the map, its highest values, whose mean is the local score", low, 0, 0.01, share, (value) => percent(Math.exp(value)));
    this.back = element("button", "link", "Back to the model's");
    this.back.type = "button";
    this.back.addEventListener("click", () => {
      this.alpha.input.value = String(split.alpha);
      this.share.input.value = String(share);
      this.update();
      this.alpha.input.focus();
    });
    const row = element("div", "row");
    row.append(this.back);
    return [title, this.alpha.label, this.share.label, row];
  }

  /* Everything that follows from the sliders and the latest answer. */
  update() {
    const { split } = this.now;
    for (const one of [this.alpha, this.share]) {
      one.output.textContent = one.say(Number(one.input.value));
      one.input.setAttribute("aria-valuetext", one.output.textContent);
    }
    const own = this.seen.split;
    const weight = Number(this.alpha.input.value);
    const log = Number(this.share.input.value);
    const touched = Math.abs(weight - own.alpha) > 1e-9 || Math.abs(log - Math.log(own.top_share)) > 0.006;
    const local = touched ? interpolate(split, log) : split.local_score;
    const alpha = touched ? weight : split.alpha;
    const score = (1 - alpha) * split.global_score + alpha * local;
    this.showParts((1 - alpha) * split.global_score, alpha * local);
    this.back.hidden = !touched;
    const asJudged = Math.abs(score - own.score) < 5e-5 ? "" : `, ${own.score.toFixed(3)} as judged`;
    this.result.textContent = `Score ${score.toFixed(3)}${asJudged}: ${WORDS[verdictOf(score, this.rule())]} by the line of the page`;
  }

  showParts(whole, local) {
    const parts = [["whole", "From the whole image", whole], ["local", "From the map", local]];
    this.bar.replaceChildren(...parts.map(([kind, , value]) => {
      const part = element("i", kind);
      part.style.flexGrow = String(1000 * Math.max(value, 1e-6)); // grow factors below 1 would not fill the bar
      return part;
    }));
    this.table.replaceChildren(...parts.flatMap(([kind, name, value]) => {
      const term = element("dt");
      term.append(element("i", `key ${kind}`), name);
      return [term, element("dd", "", value.toFixed(3))];
    }));
  }
}

/* The local score at another share of the map, between the points that the server gave. */
function interpolate({ shares, local_by_share: values }, log) {
  const logs = shares.map(Math.log);
  let index = logs.findIndex((value) => value >= log - 1e-12);
  if (index <= 0) index = index < 0 ? logs.length - 1 : 0;
  if (index === 0) return values[0];
  const between = (log - logs[index - 1]) / (logs[index] - logs[index - 1]);
  return values[index - 1] + between * (values[index] - values[index - 1]);
}

/* A map of 16 bits, low byte first. */
function unpacked({ levels, width, height }) {
  const bytes = Uint8Array.from(atob(levels), (letter) => letter.charCodeAt(0));
  const values = new Uint16Array(width * height);
  for (let index = 0; index < values.length; index += 1) values[index] = bytes[2 * index] | (bytes[2 * index + 1] << 8);
  return { values, width, height };
}
