// The same rules as on the server: above, not at, a threshold is on its far side.

export const VERDICTS = ["defect", "review", "ok"];
export const WORDS = { defect: "Defect", review: "Review", ok: "OK", failed: "Failed" };

export const manual = (threshold) => ({ threshold, low: threshold, high: threshold });

/* Where a line comes from, in two words, and whether it promises anything: only a calibration does. */
export function originOf(rule) {
  if (rule.origin === "guess") return ["not calibrated", "unsure"];
  return {
    conformal: ["calibrated", "sure"],
    labelled: ["from labels", ""],
    synthetic: ["a default", "unsure"],
  }[rule.source] ?? ["set by hand", ""];
}

export function verdictOf(score, rule) {
  if (score <= rule.low) return "ok";
  return rule.high === null || score <= rule.high ? "review" : "defect";
}

/* The map value above which regions lie in an image: in one that is not ok they are drawn more generously. */
export function regionLevel(score, rule, pixel) {
  const lower = rule.alarmPixel ?? null;
  return lower === null || verdictOf(score, rule) === "ok" ? pixel : Math.min(pixel, lower);
}

/* How many of the ascending scores are above a value. */
function above(ascending, value) {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ascending[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return ascending.length - low;
}

export function tally(ascending, rule) {
  const notOk = above(ascending, rule.low);
  const defect = rule.high === null ? 0 : above(ascending, rule.high);
  return { defect, review: notOk - defect, ok: ascending.length - notOk };
}

/* The map threshold that goes with a score threshold where none is calibrated: what the highest part of the map is
   worth in images that lie at the line. */
export function pixelFor(judged, threshold) {
  if (!judged.length) return 0.5;
  const nearest = [...judged].sort((a, b) => Math.abs(a.score - threshold) - Math.abs(b.score - threshold)).slice(0, 15);
  const locals = nearest.map((item) => item.local).sort((a, b) => a - b);
  return locals[locals.length >> 1];
}
