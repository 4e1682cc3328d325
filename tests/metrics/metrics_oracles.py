"""The metrics once more, by brute force: every threshold, every pixel, every region, in plain loops."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st


def thresholds(scores: np.ndarray) -> list[float]:
    return sorted({float(score) for score in scores.ravel()}, reverse=True)


def auroc(scores, labels) -> float | None:
    positives = [s for s, label in zip(scores, labels, strict=True) if label]
    negatives = [s for s, label in zip(scores, labels, strict=True) if not label]
    if not positives or not negatives:
        return None
    wins = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))


def average_precision(scores, labels) -> float | None:
    scores, labels = np.asarray(scores), np.asarray(labels, dtype=bool)
    if not labels.any():
        return None
    total, before = 0.0, 0
    for threshold in thresholds(scores):
        chosen = scores >= threshold
        hits = int((chosen & labels).sum())
        total += (hits - before) / labels.sum() * hits / chosen.sum()
        before = hits
    return float(total)


def f1_and_iou_max(scores, labels) -> tuple[float, float] | None:
    scores, labels = np.asarray(scores), np.asarray(labels, dtype=bool)
    if not labels.any():
        return None
    pairs = []
    for threshold in thresholds(scores):
        chosen = scores >= threshold
        tp, fp, fn = (chosen & labels).sum(), (chosen & ~labels).sum(), (~chosen & labels).sum()
        pairs.append((2 * tp / (2 * tp + fp + fn), tp / (tp + fp + fn)))
    return float(max(f1 for f1, _ in pairs)), float(max(iou for _, iou in pairs))


def regions(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """8-connected regions by flood fill."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    found = []
    while left:
        todo, region = [left.pop()], []
        while todo:
            y, x = todo.pop()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo.extend(near)
        found.append(region)
    return found


def _pro_and_fpr(maps, masks, chosen) -> tuple[float, float]:
    overlaps = [
        sum(bool(pick[y, x]) for y, x in region) / len(region)
        for pick, mask in zip(chosen, masks, strict=True)
        for region in regions(mask)
    ]
    background = sum(int((mask == 0).sum()) for mask in masks)
    false = sum(int((pick & (mask == 0)).sum()) for pick, mask in zip(chosen, masks, strict=True))
    return sum(overlaps) / len(overlaps), false / background


def aupro(maps, masks, limit: float = 0.3) -> float | None:
    if not any(mask.any() for mask in masks) or all(mask.all() for mask in masks):
        return None
    points = [(0.0, 0.0)]
    for threshold in thresholds(np.stack(maps)):
        pro, fpr = _pro_and_fpr(maps, masks, [scores >= threshold for scores in maps])
        points.append((fpr, pro))
    area = 0.0
    for (f0, r0), (f1, r1) in pairwise(points):
        if f0 >= limit:
            break
        end = min(f1, limit)
        at_end = r1 if end == f1 else r0 + (r1 - r0) * (end - f0) / (f1 - f0)
        area += (end - f0) * (r0 + at_end) / 2
    return area / limit


def ader_aupro(maps, masks) -> float | None:
    """The 200-threshold way: each threshold binarises all maps, each region is counted in each."""
    stack = np.stack(maps).astype(np.float32)
    low, high = stack.min(), stack.max()
    if low == high or not any(mask.any() for mask in masks) or all(mask.all() for mask in masks):
        return None
    points = [_pro_and_fpr(maps, masks, list(stack > t)) for t in np.arange(low, high, (high - low) / 200)]
    kept = [(fpr, pro) for pro, fpr in points if fpr < 0.3]
    rates = [fpr for fpr, _ in kept]
    if not kept or min(rates) == max(rates):
        return None
    area = sum((a[0] - b[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(kept))
    return area / (max(rates) - min(rates))


def ader_f1_and_iou(maps, masks) -> tuple[float, float] | None:
    stack, truth = np.stack(maps).astype(np.float32), np.stack(masks) > 0
    low, high = stack.min(), stack.max()
    if low == high or not truth.any():
        return None
    scaled = (stack - low) / (high - low)
    pairs = []
    for threshold in np.arange(0, 1.001, 0.05):
        chosen = scaled > threshold
        tp, fp, fn = (chosen & truth).sum(), (chosen & ~truth).sum(), (~chosen & truth).sum()
        precision, recall = tp / (tp + fp + 1e-8), tp / (tp + fn + 1e-8)
        pairs.append((2 * precision * recall / (precision + recall + 1e-8), tp / (tp + fp + fn + 1e-8)))
    return float(max(f1 for f1, _ in pairs)), float(max(iou for _, iou in pairs))


def same(value: float | None, expected: float | None, tolerance: float = 1e-9) -> bool:
    """Both absent, or both there and close."""
    if value is None or expected is None:
        return value is None and expected is None
    return math.isclose(value, expected, rel_tol=0.0, abs_tol=tolerance)


def _scores(kind: str, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Maps as methods make them: smooth, tied, flat, crowded at 0, at 1 or anywhere, of any range."""
    uniform = random.random(shape)
    made = {
        "uniform": uniform,
        "ties": np.round(uniform * 3) / 3,
        "constant": np.full(shape, 0.37),
        "binary": (uniform > 0.8).astype(float),
        "tiny": uniform * 1e-7,
        "powers": 10.0 ** (-30 * uniform),
        "near_one": 1.0 - uniform * 1e-6,
        "crowded": 0.5 + uniform * 1e-5,
        "saturated": 1.0 / (1.0 + np.exp(-60.0 * (uniform - 0.5))),
        "signed": 10.0 * uniform - 5.0,
        "heavy": np.exp(9.0 * uniform),
    }
    return made[kind].astype(np.float32)


KINDS = [
    "uniform",
    "ties",
    "constant",
    "binary",
    "tiny",
    "powers",
    "near_one",
    "crowded",
    "saturated",
    "signed",
    "heavy",
]


@st.composite
def cases(draw, most_pixels: int = 7, kinds=tuple(KINDS)):
    """(maps, masks): a few small maps of one shape, with no, tiny, diagonal or full regions."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    images = draw(st.integers(1, 4))
    shape = (images, draw(st.integers(1, most_pixels)), draw(st.integers(1, most_pixels)))
    share = draw(st.sampled_from([0.0, 0.03, 0.3, 0.6, 1.0]))
    maps = _scores(draw(st.sampled_from(kinds)), random, shape)
    masks = (random.random(shape) < share).astype(np.uint8)
    if draw(st.booleans()):
        masks[0] = 0
    if draw(st.booleans()):  # a map that knows something
        maps = np.where(masks > 0, np.maximum(maps, np.float32(maps.max() * 0.9)), maps)
    return list(maps), list(masks)
