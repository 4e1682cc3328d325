"""The pixel figures of the published tables: ADer's threshold grids, applied to counts per score.

F1-max and IoU-max: scores are min-max normalised over the category, 21 thresholds 0, 0.05 ... 1, strictly above.
AUPRO: thresholds from the smallest score in 200 equal steps, strictly above; only false-positive rates below 0.3
count, and they are stretched to [0, 1] by their own smallest and largest value before the trapezoid rule. With
skewed scores few of these thresholds matter, which biases the figures; they are here to be comparable with the
published ones. The arithmetic is float32 where theirs is, so that ties with a threshold fall on the same side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headclip.metrics.curves import FPR_LIMIT

EPSILON = 1e-8
F1_THRESHOLDS = np.arange(21) * 0.05
AUPRO_STEPS = 200

Counts = NDArray[np.float64]


def is_defined(minimum: float, maximum: float) -> bool:
    """Whether 200 steps between the extreme scores exist in float32; not for equal scores."""
    with np.errstate(over="ignore"):
        spread = np.float32(maximum) - np.float32(minimum)
    return bool(np.isfinite(spread) and spread / AUPRO_STEPS > 0)


def f1_cuts(values: NDArray[np.float32], minimum: float, maximum: float) -> NDArray[np.int64]:
    """(21,) for each threshold the number of ascending `values` (K,) that are not above it."""
    low, high = np.float32(minimum), np.float32(maximum)
    normalised = (values - low) / (high - low)
    return np.searchsorted(normalised, F1_THRESHOLDS, side="right")


def aupro_cuts(values: NDArray[np.float32], minimum: float, maximum: float) -> NDArray[np.int64]:
    """(200 or 201,) for each step the number of ascending `values` (K,) that are not above it."""
    low, high = np.float32(minimum), np.float32(maximum)
    thresholds = np.arange(low, high, (high - low) / AUPRO_STEPS)
    return np.searchsorted(values, thresholds, side="right")


def above(counts: Counts, cuts: NDArray[np.int64]) -> Counts:
    """Sum of the counts beyond each cut. (..., K) ascending, (T,) -> (..., T)."""
    beyond = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    beyond = np.concatenate([beyond, np.zeros_like(counts[..., :1])], axis=-1)  # (..., K + 1)
    return beyond[..., cuts]


def f1_iou_max(positives: Counts, negatives: Counts, cuts: NDArray[np.int64]) -> tuple[Counts, Counts]:
    """(F1-max, IoU-max) over the 21 thresholds; counts (..., K) ascending -> (...)."""
    tp, fp = above(positives, cuts), above(negatives, cuts)
    fn = positives.sum(axis=-1)[..., None] - tp
    precision, recall = tp / (tp + fp + EPSILON), tp / (tp + fn + EPSILON)
    f1 = 2.0 * precision * recall / (precision + recall + EPSILON)
    iou = tp / (tp + fp + fn + EPSILON)
    return f1.max(axis=-1), iou.max(axis=-1)


def aupro(weights: Counts, negatives: Counts, cuts: NDArray[np.int64]) -> Counts:
    """AUPRO over the 200 steps; counts (..., K) ascending -> (...); NaN where all kept rates are equal, as theirs."""
    total_weight, total = weights.sum(axis=-1)[..., None], negatives.sum(axis=-1)[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        overlap, fpr = above(weights, cuts) / total_weight, above(negatives, cuts) / total
        kept = fpr < FPR_LIMIT  # both curves fall with the threshold, so the kept rates are the last ones
        low = np.where(kept, fpr, np.inf).min(axis=-1)
        high = np.where(kept, fpr, -np.inf).max(axis=-1)
        steps = fpr[..., :-1] - fpr[..., 1:]
        heights = 0.5 * (overlap[..., :-1] + overlap[..., 1:])
        area = np.where(kept[..., :-1] & kept[..., 1:], steps * heights, 0.0).sum(axis=-1)
        share = area / (high - low)
        return np.where(high > low, np.clip(share, 0.0, 1.0), np.nan)  # the clip removes rounding of 1e-16 or so
