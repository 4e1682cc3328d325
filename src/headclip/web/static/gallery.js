// A grid of which only what can be seen exists: ten thousand images cost as much as fifty.

import { clamp, element, perFrame } from "./dom.js";
import { loadSmall, paint } from "./colours.js";

const GAP = 12;
const AHEAD = 600; // pixels above and below the window

export class Gallery {
  /* make(item): the card's content; height(width): of a card; open(index): a card was chosen; key(event, item): a key
     on a card. */
  constructor(list, { make, height, open, key = () => false }) {
    this.list = list;
    this.make = make;
    this.height = height;
    this.open = open;
    this.key = key;
    this.items = [];
    this.cards = new Map(); // by index
    this.spare = new Map(); // by id, for one change of the list
    this.active = 0;
    this.size = 190;
    this.layout = perFrame(() => this.place());
    addEventListener("scroll", this.layout, { passive: true });
    new ResizeObserver(this.layout).observe(list);
    list.addEventListener("keydown", (event) => this.onKey(event));
    list.addEventListener("click", (event) => {
      const item = event.target.closest("li");
      if (item) { this.active = Number(item.dataset.index); this.open(this.active); }
    });
    list.addEventListener("focusin", (event) => {
      const item = event.target.closest("li");
      if (item) this.activate(Number(item.dataset.index));
    });
  }

  /* Other items, or the same ones in another order; cards of images that stay in sight are used again. */
  show(items) {
    const focused = this.list.contains(document.activeElement);
    const kept = focused ? this.items[this.active]?.id : undefined;
    this.items = items;
    const found = kept === undefined ? -1 : items.findIndex((item) => item.id === kept);
    this.active = clamp(found, 0, Math.max(0, items.length - 1));
    for (const card of this.cards.values()) {
      card.node.remove();
      this.spare.set(card.item.id, card);
    }
    this.cards.clear();
    this.place();
    for (const card of this.spare.values()) this.drop(card);
    this.spare.clear();
    if (focused && items.length) this.focus(this.active, false);
  }

  /* The same items; what is said of them has changed. */
  renew(change) { for (const card of this.cards.values()) change(card); }

  place() {
    const width = this.list.clientWidth;
    if (!width) return;
    this.columns = Math.max(1, Math.floor((width + GAP) / (Math.min(this.size, width) + GAP)));
    const cardWidth = (width - GAP * (this.columns - 1)) / this.columns;
    const cardHeight = this.height(cardWidth);
    const rows = Math.ceil(this.items.length / this.columns);
    this.list.style.height = `${Math.max(0, rows * (cardHeight + GAP) - GAP)}px`;
    const top = -this.list.getBoundingClientRect().top;
    const first = clamp(Math.floor((top - AHEAD) / (cardHeight + GAP)), 0, rows) * this.columns;
    const last = Math.min(this.items.length, clamp(Math.ceil((top + innerHeight + AHEAD) / (cardHeight + GAP)), 0, rows) * this.columns);
    const wanted = [];
    if (this.active < first && this.active < this.items.length) wanted.push(this.active); // it may hold the focus
    for (let index = first; index < last; index += 1) wanted.push(index);
    if (this.active >= last && this.active < this.items.length) wanted.push(this.active);
    const needed = new Set(wanted);
    for (const [index, card] of this.cards) {
      if (!needed.has(index)) { this.drop(card); this.cards.delete(index); }
    }
    wanted.forEach((index, position) => {
      let card = this.cards.get(index);
      if (!card) {
        card = this.create(index);
        this.list.insertBefore(card.node, this.list.children[position] || null);
      }
      const { style } = card.node;
      style.width = `${cardWidth}px`;
      style.height = `${cardHeight}px`;
      style.left = `${(index % this.columns) * (cardWidth + GAP)}px`;
      style.top = `${Math.floor(index / this.columns) * (cardHeight + GAP)}px`;
    });
  }

  create(index) {
    const item = this.items[index];
    const old = this.spare.get(item.id);
    const again = old !== undefined && old.item.version === item.version;
    const card = again ? old : { node: element("li"), ...this.make(item) };
    if (again) this.spare.delete(item.id);
    card.item = item;
    card.node.dataset.index = String(index);
    card.node.setAttribute("aria-setsize", String(this.items.length));
    card.node.setAttribute("aria-posinset", String(index + 1));
    card.button.tabIndex = index === this.active ? 0 : -1;
    this.cards.set(index, card);
    if (again) return card;
    card.node.append(card.button);
    // A fast scroll passes many cards; their pictures are asked for only if they stay.
    card.timer = setTimeout(() => card.load?.(), 40);
    return card;
  }

  drop(card) {
    clearTimeout(card.timer);
    card.cancel?.();
    card.node.remove();
  }

  activate(index) {
    if (index === this.active) return;
    const old = this.cards.get(this.active);
    if (old) old.button.tabIndex = -1;
    this.active = index;
    const card = this.cards.get(index);
    if (card) card.button.tabIndex = 0;
  }

  focus(index, scroll = true) {
    this.activate(clamp(index, 0, this.items.length - 1));
    this.place();
    const card = this.cards.get(this.active);
    if (!card) return;
    card.button.tabIndex = 0;
    card.button.focus({ preventScroll: true });
    if (scroll) card.node.scrollIntoView({ block: "nearest" });
  }

  onKey(event) {
    const item = this.items[this.active];
    const page = this.columns * Math.max(1, Math.floor(innerHeight / (this.height(this.size) + GAP)));
    const moves = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns,
      PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity,
    };
    if (event.key in moves) {
      event.preventDefault();
      this.focus(this.active + moves[event.key]);
    } else if (item && this.key(event, item)) event.preventDefault();
  }
}

/* A picture with its map over it, both loaded when asked for. table(): the colours of now. */
export function picture(run, item, table) {
  const root = element("span", "picture");
  if (item.failed) {
    root.append(element("span", "", item.reason));
    return { root, load() {}, cancel() {}, repaint() {} };
  }
  const image = element("img");
  image.alt = "";
  image.decoding = "async";
  const heat = element("canvas", "heat");
  heat.setAttribute("aria-hidden", "true");
  root.append(image, heat);
  let small = null;
  let gone = false;
  const repaint = () => { if (small) paint(heat, small.values, small.width, small.height, table()); };
  return {
    root,
    repaint,
    load() {
      const after = () => loadSmall(run.address("heat", item)).then((loaded) => {
        if (gone) return;
        small = loaded;
        repaint();
      }).catch(() => {}); // a picture without its map is still a picture
      image.onload = () => { image.onload = null; if (!gone) after(); };
      image.src = run.address("thumb", item);
    },
    cancel() { gone = true; image.removeAttribute("src"); },
  };
}
