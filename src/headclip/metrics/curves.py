"""The metrics themselves, on counts per distinct score (or per bin), highest score first.

Every function takes arrays (..., K): leading axes are independent problems (bootstrap replicates), K runs over
scores from the highest to the lowest, equal scores together. `positives` and `negatives` are counts, `weights`
the share of defect regions (a pixel of a region of A pixels weighs 1/A, in any unit). Undefined is NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

FPR_LIMIT = 0.3
_SERIES_FROM = 64.0  # the next term of the series is below 1e-18 from there on

Counts = NDArray[np.float64]


def _divide(numerator: Counts, denominator: Counts) -> Counts:
    """Elementwise quotient; NaN where the denominator is 0."""
    out = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), np.nan)
    return np.divide(numerator, denominator, out=out, where=np.asarray(denominator) != 0)


def auroc(positives: Counts, negatives: Counts) -> Counts:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties half. (..., K) -> (...)."""
    tp = np.cumsum(positives, axis=-1)
    total = tp[..., -1] * negatives.sum(axis=-1)
    return _divide((negatives * (tp - 0.5 * positives)).sum(axis=-1), total)


def average_precision(positives: Counts, negatives: Counts) -> Counts:
    """Sum of recall steps times the precision at each distinct score, no interpolation. (..., K) -> (...)."""
    tp = np.cumsum(positives, axis=-1)
    seen = tp + np.cumsum(negatives, axis=-1)
    return _divide((positives * (tp / np.maximum(seen, 1.0))).sum(axis=-1), tp[..., -1])


def f1_max(positives: Counts, negatives: Counts) -> Counts:
    """Largest F1 over all thresholds that separate distinct scores. (..., K) -> (...)."""
    tp = np.cumsum(positives, axis=-1)
    total = tp[..., -1]
    f1 = 2.0 * tp / np.maximum(tp + np.cumsum(negatives, axis=-1) + total[..., None], 1.0)
    return np.where(total > 0, f1.max(axis=-1), np.nan)


def iou_max(positives: Counts, negatives: Counts) -> Counts:
    """Largest intersection over union over all thresholds; equals F1/(2 - F1) of the largest F1. (..., K) -> (...)."""
    f1 = f1_max(positives, negatives)
    return f1 / (2.0 - f1)


def aupro(weights: Counts, negatives: Counts, limit: float = FPR_LIMIT) -> Counts:
    """Area under the per-region overlap over the false-positive rate up to `limit`, divided by it. (..., K) -> (...).

    The curve joins the points of all distinct scores, from (0, 0), and is interpolated at the limit (Bergmann et
    al. 2021, equation of PRO; no threshold grid). Always in [0, 1].
    """
    fpr, overlap = _pro_curve(weights, negatives)
    rise, start, end = np.diff(overlap, axis=-1), fpr[..., :-1], fpr[..., 1:]
    low, high = np.minimum(start, limit), np.minimum(end, limit)
    width = end - start
    inside = np.divide(high - low, width, out=np.zeros_like(width), where=width > 0)
    area = ((high - low) * (overlap[..., :-1] + 0.5 * rise * inside)).sum(axis=-1)
    return np.clip(area / limit, 0.0, 1.0)  # the clip only removes rounding of the order of 1e-16; NaN passes


def _pro_curve(weights: Counts, negatives: Counts) -> tuple[Counts, Counts]:
    """(FPR, overlap), each (..., K + 1) from (0, 0) to (1, 1); NaN without negatives or without regions."""
    curves = []
    for values in (negatives, weights):
        cumulative = np.cumsum(values, axis=-1)
        curve = _divide(cumulative, cumulative[..., -1:])
        curves.append(np.concatenate([np.zeros_like(curve[..., :1]), curve], axis=-1))
    fpr, overlap = curves
    undefined = np.isnan(fpr[..., -1:]) | np.isnan(overlap[..., -1:])
    return np.where(undefined, np.nan, fpr), np.where(undefined, np.nan, overlap)


# --- what may be lost inside a bin ------------------------------------------------------------------------------
# `mixed` (K,) marks the bins that may hold more than one distinct score. Whatever the order inside such a bin, and
# whatever the ties, the true value lies within the returned (lower, upper).


def auroc_range(positives: Counts, negatives: Counts, mixed: NDArray[np.bool_]) -> tuple[float, float]:
    """Each pair of a positive and a negative in one mixed bin counts 0 at worst and 1 at best, instead of 1/2."""
    value = float(auroc(positives, negatives))
    pairs = float((positives * negatives)[mixed].sum() / (positives.sum() * negatives.sum()))
    return value - 0.5 * pairs, value + 0.5 * pairs


def average_precision_range(positives: Counts, negatives: Counts, mixed: NDArray[np.bool_]) -> tuple[float, float]:
    """Best: all positives of a bin tie before its negatives. Worst: negatives first, positives one by one."""
    tp, fp = np.cumsum(positives), np.cumsum(negatives)
    total = tp[-1]
    exact = positives * (tp / np.maximum(tp + fp, 1.0))
    best = positives * (tp / np.maximum(tp + fp - negatives, 1.0))
    # sum of (a + k) / (a + k + c) for k = 1..p, with a positives before the bin and c negatives up to its end
    worst = positives - fp * _harmonic(tp - positives + fp + 1.0, positives)
    upper = np.where(mixed, best, exact).sum() / total
    lower = np.where(mixed & (positives > 0), worst, exact).sum() / total
    return float(lower), float(upper)


def _harmonic(first: Counts, count: Counts) -> Counts:
    """1/first + 1/(first + 1) + ... of `count` terms, elementwise; first >= 1.

    The difference of two digammas, of which only rounding would be left among hundreds of millions of pixels: there
    from their series (Abramowitz and Stegun 6.3.18), in which nothing cancels.
    """
    last = first + count

    def correction(x: Counts) -> Counts:
        square = x * x
        return (-1 / 12 + (1 / 120 - (1 / 252 - 1 / (240 * square)) / square) / square) / square

    series = np.log1p(count / first) + count / (2.0 * first * last) + correction(last) - correction(first)
    return np.where(first < _SERIES_FROM, digamma(last) - digamma(first), series)


def f1_max_range(positives: Counts, negatives: Counts, mixed: NDArray[np.bool_]) -> tuple[float, float]:
    """The edges of bins are true thresholds, so the value is reached; best: a bin's positives before its negatives."""
    value = float(f1_max(positives, negatives))
    tp, fp = np.cumsum(positives), np.cumsum(negatives)
    best = 2.0 * tp / np.maximum(tp + fp - negatives + tp[-1], 1.0)
    return value, max(value, float(np.where(mixed, best, 0.0).max()))


def aupro_range(
    weights: Counts, negatives: Counts, mixed: NDArray[np.bool_], limit: float = FPR_LIMIT
) -> tuple[float, float]:
    """Inside a mixed bin the curve rises from its start to its end anywhere between first and last moment."""
    fpr, overlap = _pro_curve(weights, negatives)
    value = float(aupro(weights, negatives, limit))
    low, high = np.minimum(fpr[:-1], limit), np.minimum(fpr[1:], limit)
    width, rise = fpr[1:] - fpr[:-1], np.diff(overlap)
    inside = np.divide(high - low, width, out=np.zeros_like(width), where=width > 0)
    below = (high - low) * 0.5 * rise * inside  # what the straight line gives beyond the bin's first overlap
    above = (high - low) * rise - below
    lower = value - float(below[mixed].sum()) / limit
    upper = value + float(above[mixed].sum()) / limit
    return max(lower, 0.0), min(upper, 1.0)
