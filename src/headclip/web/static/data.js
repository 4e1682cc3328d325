// A run as the page knows it: its rows, and the addresses of its pictures.

import { request } from "./dom.js";

export class RunData {
  static async load(key) {
    const run = new RunData(key);
    await run.refresh();
    await run.loadMarks();
    return run;
  }

  constructor(key) {
    this.key = key;
    this.items = [];
    this.judged = [];
    this.ascending = [];
    this.marks = new Map();
    this.etag = "";
  }

  /* True when something is new. */
  async refresh() {
    const answer = await fetch(`/runs/${this.key}/images.json`, { headers: { "if-none-match": this.etag } });
    if (answer.status === 304) return false;
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const etag = answer.headers.get("etag") || "";
    if (etag && etag === this.etag) return false;
    this.etag = etag;
    const data = await answer.json();
    this.finished = data.finished;
    this.rule = data.rule;
    this.roi = data.roi;
    this.items = data.ids.map((id, index) => ({
      id,
      index,
      name: data.names[index],
      lower: data.names[index].toLocaleLowerCase(),
      score: data.scores[index],
      global: data.globals[index],
      local: data.locals[index],
      width: data.widths[index],
      height: data.heights[index],
      reason: data.reasons[index],
      failed: data.scores[index] === null,
      own: data.scores[index],
      version: `${data.scores[index]}-${data.widths[index]}x${data.heights[index]}`, // another one when judged again
      label: data.labels[index],
    }));
    this.judged = this.items.filter((item) => !item.failed);
    this.labelled = this.judged.filter((item) => item.label !== undefined);
    this.alpha = this.isJoint(data.alpha) ? data.alpha : null;
    const locals = Float64Array.from(this.judged, (item) => item.local).sort();
    // Ends of the small maps' grey values, and the top of the colours, which one odd image must not decide.
    this.scale = [...data.scale, locals[Math.floor(0.99 * locals.length)] ?? 1];
    this.order();
    return true;
  }

  order() {
    this.ascending = Float64Array.from(this.judged, (item) => item.score).sort();
    [...this.judged].sort((a, b) => b.score - a.score).forEach((item, index) => { item.rank = index + 1; });
  }

  /* Whether every score is (1 - alpha) * global + alpha * local, as far as their digits go. */
  isJoint(alpha) {
    const off = (item) => Math.abs((1 - alpha) * item.global + alpha * item.local - item.score);
    return alpha !== null && this.judged.length > 0 && this.judged.every((item) => off(item) < 1e-4);
  }

  /* Scores as they would be with another alpha; null for the run's own. */
  reweigh(alpha) {
    for (const item of this.judged) {
      item.score = alpha === null ? item.own : (1 - alpha) * item.global + alpha * item.local;
    }
    this.order();
  }

  async loadMarks() {
    this.marks = new Map(Object.entries(await request(`/runs/${this.key}/marks.json`)));
  }

  async mark(item, mark, threshold) {
    const body = JSON.stringify({ mark, threshold });
    const headers = { "content-type": "application/json" };
    await request(`/runs/${this.key}/marks/${item.id}`, { method: "PUT", headers, body });
    if (mark) this.marks.set(item.id, mark);
    else this.marks.delete(item.id);
  }

  regions(item, pixel, signal) {
    return request(`/runs/${this.key}/regions/${item.id}?pixel=${pixel}`, { signal });
  }

  address(kind, item) { return `/runs/${this.key}/${kind}/${item.id}?v=${item.version}`; }
}
