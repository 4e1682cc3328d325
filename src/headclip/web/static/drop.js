// Images dropped on the page, or chosen: sent a few at a time, and again when the server is busy.

import { byId, count, element, plural, request } from "./dom.js";

const AT_ONCE = 4; // images in one request
const TRIES = 30;

const pause = (seconds) => new Promise((done) => { setTimeout(done, 1000 * seconds); });

export class Drop {
  /* judged(): some images have been judged. */
  constructor(root, judged) {
    this.root = root;
    this.judged = judged;
    this.waiting = [];
    this.done = 0;
    this.failed = 0;
    this.total = 0;
    this.busy = false;
    let inside = 0;
    const over = (yes) => document.documentElement.classList.toggle("over", yes);
    addEventListener("dragenter", () => { inside += 1; over(true); });
    addEventListener("dragleave", () => { inside -= 1; if (inside <= 0) { inside = 0; over(false); } });
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      inside = 0;
      over(false);
      this.add([...event.dataTransfer.files]);
    });
    byId("files").addEventListener("change", (event) => {
      this.add([...event.target.files]);
      event.target.value = "";
    });
  }

  add(files) {
    if (!files.length) return;
    if (!this.busy) { this.done = this.failed = this.total = 0; byId("drop-errors").replaceChildren(); }
    this.waiting.push(...files);
    this.total += files.length;
    if (!this.busy) this.work();
  }

  async work() {
    this.busy = true;
    while (this.waiting.length) {
      this.say(`Judging ${this.done} of ${plural(this.total, "image")}`);
      const part = this.waiting.splice(0, AT_ONCE);
      await this.send(part);
      this.done += part.length;
      this.judged();
    }
    this.busy = false;
    const failed = this.failed ? `, ${count(this.failed)} failed` : "";
    this.say(`${plural(this.total - this.failed, "image")} judged${failed}`);
  }

  async send(files) {
    const body = new FormData();
    for (const file of files) body.append("images", file, file.name);
    for (let attempt = 1; ; attempt += 1) {
      try {
        const { results } = await request("/live/images", { method: "POST", body });
        const failed = results.filter((result) => result.status === "failed");
        for (const { name, reason } of failed) this.complain(`${name}: ${reason}`);
        this.failed += failed.length;
        return;
      } catch (error) {
        if (error.status === 429 && attempt < TRIES) { await pause(error.retryAfter); continue; }
        this.complain(`${files.map((file) => file.name).join(", ")}: ${error.message}`);
        this.failed += files.length;
        return;
      }
    }
  }

  say(words) { byId("drop-state").textContent = words; }

  complain(words) { byId("drop-errors").append(element("li", "", words)); }
}
