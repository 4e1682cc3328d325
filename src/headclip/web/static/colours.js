// One colour scale for a whole run, calibrated to the map threshold: what lies below it stays nearly untinted.

import { clamp } from "./dom.js";

const bytes = Uint8Array.from(atob(document.body.dataset.colours), (letter) => letter.charCodeAt(0)); // 256 x RGBA
const AT_THRESHOLD = 0.3; // place of the threshold on the colour table
const LEVELS = 65535;

const littleEndian = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

function packed(red, green, blue, alpha) {
  return littleEndian
    ? ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0
    : ((red << 24) | (green << 16) | (blue << 8) | alpha) >>> 0;
}

export class Scale {
  /* low: where colour begins; top: where it ends, unless the threshold lies there. */
  constructor([low, , top], pixel) {
    this.low = Math.min(low, pixel - 1e-4);
    this.pixel = pixel;
    this.high = Math.max(top, pixel + 0.05);
  }

  place(value) {
    const share = value < this.pixel
      ? AT_THRESHOLD * (value - this.low) / (this.pixel - this.low)
      : AT_THRESHOLD + (1 - AT_THRESHOLD) * (value - this.pixel) / (this.high - this.pixel);
    return clamp(share, 0, 1);
  }

  colour(value, opaque = false) {
    const index = 4 * Math.round(255 * this.place(value));
    return packed(bytes[index], bytes[index + 1], bytes[index + 2], opaque ? 255 : bytes[index + 3]);
  }

  /* For the small maps, whose 256 grey values span the run's scale. */
  smallTable([low, high]) {
    const table = new Uint32Array(256);
    for (let grey = 0; grey < 256; grey += 1) table[grey] = this.colour(low + (high - low) * grey / 255);
    return table;
  }

  /* For maps of 16 bits. */
  fullTable() {
    const table = new Uint32Array(LEVELS + 1);
    for (let level = 0; level <= LEVELS; level += 1) table[level] = this.colour(level / LEVELS);
    return table;
  }
}

export function drawLegend(canvas, words, scale) {
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, 1);
  const colours = new Uint32Array(pixels.data.buffer);
  const value = (x) => scale.low + (scale.high - scale.low) * x / (canvas.width - 1);
  for (let x = 0; x < canvas.width; x += 1) colours[x] = scale.colour(value(x), true);
  const mark = Math.round((canvas.width - 1) * (scale.pixel - scale.low) / (scale.high - scale.low));
  for (const x of [mark - 1, mark]) if (x >= 0) colours[x] = packed(255, 255, 255, 255);
  context.putImageData(pixels, 0, 0);
  words.textContent = `${scale.low.toFixed(2)} | ${scale.pixel.toFixed(3)} | ${scale.high.toFixed(2)}`;
}

export function paint(canvas, values, width, height, table) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const colours = new Uint32Array(pixels.data.buffer);
  for (let index = 0; index < values.length; index += 1) colours[index] = table[values[index]];
  context.putImageData(pixels, 0, 0);
}

/* The mask: one colour above the threshold, nothing below. */
export function maskTable(pixel) {
  const table = new Uint32Array(LEVELS + 1);
  table.fill(packed(255, 74, 54, 140), Math.floor(pixel * LEVELS + 1e-6) + 1);
  return table;
}

async function pixelsOf(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error("there is no map of this image");
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(await answer.blob(), options);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/* Grey values of a small map. */
export async function loadSmall(address) {
  const { data, width, height } = await pixelsOf(address);
  const values = new Uint8Array(width * height);
  for (let index = 0; index < values.length; index += 1) values[index] = data[4 * index];
  return { values, width, height };
}

/* 16-bit levels: the high byte is in red, the low one in green. */
export async function loadLevels(address) {
  const { data, width, height } = await pixelsOf(address);
  const values = new Uint16Array(width * height);
  for (let index = 0; index < values.length; index += 1) values[index] = (data[4 * index] << 8) | data[4 * index + 1];
  return { values, width, height };
}
