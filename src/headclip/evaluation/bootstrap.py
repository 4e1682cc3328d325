"""Bootstrap over images: an interval for every figure, and paired comparison of two methods.

Images, not pixels, are drawn with replacement, since the pixels of an image are not independent. A draw without any
anomalous image, or for image figures without any normal one, says nothing and is drawn again, within its category: in a
mean over many small categories, nearly all draws would lack something somewhere. Intervals are percentile intervals
(Efron and Tibshirani 1993, section 13).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headclip.errors import InputError
from headclip.metrics import ader, curves
from headclip.metrics.figures import IMAGE_METRICS, PIXEL_METRICS, check_protocol, macro_average
from headclip.metrics.image import check_scores
from headclip.metrics.per_image import ImageCounts

DEFAULT_REPLICATES = 1000
# Numbers of a chunk of draws; some eight such arrays are in memory at once. Pixel figures read the counts of all images
# once for each chunk, so that theirs are larger.
_CHUNK_NUMBERS, _IMAGE_CHUNK_NUMBERS = 1 << 20, 1 << 17

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure with the bounds of its confidence interval; `replicates` is how many of them were defined."""

    value: float
    low: float
    high: float
    confidence: float
    replicates: int


@dataclass(frozen=True)
class Comparison:
    """Figure of the second method minus the first, on the same draws of the same images.

    `p_value` is two-sided: the smallest significance level at which the percentile interval of the difference
    excludes 0, (1 + number of replicates on the other side of 0) / (1 + replicates), doubled, at most 1.
    """

    difference: float
    low: float
    high: float
    confidence: float
    p_value: float
    replicates: int


@dataclass(frozen=True, eq=False)
class Replicates:
    """Figures of all images, and of every draw.

    Attributes:
        estimate: metric -> figure of all images; no key where it is not defined.
        values: metric -> (B,) figure of each draw; NaN where it is not defined.
        pairing: what two results must share to be compared: draws, seed, number and labels of the images.
        images: how many were drawn from.
    """

    estimate: Mapping[str, float]
    values: Mapping[str, Values]
    pairing: tuple[object, ...]
    images: int

    def interval(self, metric: str, confidence: float = 0.95) -> Interval | None:
        """Percentile interval of a metric; None where the metric, or all its replicates, are not defined, and for a
        single image, of which all draws are the same."""
        if metric not in self.estimate or self.images < 2:
            return None
        defined = _defined(self.values[metric])
        if len(defined) == 0:
            return None
        low, high = _percentiles(defined, confidence)
        return Interval(self.estimate[metric], low, high, confidence, len(defined))

    def intervals(self, confidence: float = 0.95) -> dict[str, Interval]:
        """Intervals of all metrics that have one."""
        found = {metric: self.interval(metric, confidence) for metric in self.estimate}
        return {metric: interval for metric, interval in found.items() if interval is not None}


def image_replicates(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    replicates: int = DEFAULT_REPLICATES,
    seed: int = 0,
    stream: str = "",
) -> Replicates:
    """Image metrics of bootstrap draws; arguments and errors of the first two as in `image_metrics`.

    Args:
        scores, labels: (n,) each.
        replicates: number of draws.
        seed: same seed, same draws.
        stream: name of the category. Categories of one dataset need different streams, so that their draws
            are independent; two methods that are compared need the same.

    Example:
        >>> result = image_replicates([0.1, 0.4, 0.35, 0.8, 0.2, 0.9], [0, 0, 1, 1, 0, 1], replicates=200)
        >>> interval = result.interval("image_auroc")
        >>> interval.low <= interval.value <= interval.high
        True
    """
    values, is_positive = check_scores(scores, labels)
    order = np.argsort(-values, kind="stable")
    ranked, positive = values[order], is_positive[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])) if len(ranked) else order

    def figures(draws: NDArray[np.int64]) -> dict[str, Values]:
        drawn = draws[:, order]  # (B, n) by falling score
        positives = np.add.reduceat(drawn * positive, starts, axis=1).astype(np.float64)  # (B, K)
        negatives = np.add.reduceat(drawn * ~positive, starts, axis=1).astype(np.float64)
        return {
            "image_auroc": curves.auroc(positives, negatives),
            "image_ap": curves.average_precision(positives, negatives),
            "image_f1": curves.f1_max(positives, negatives),
        }

    pairing = (seed, stream, tuple(bool(label) for label in is_positive))
    chunk = _IMAGE_CHUNK_NUMBERS // max(1, len(values))
    needed = (is_positive, ~is_positive)
    return _replicate(figures, needed, chunk, replicates, pairing, (IMAGE_METRICS, "image_mad"))


def pixel_replicates(
    counts: ImageCounts,
    protocol: str = "exact",
    *,
    replicates: int = DEFAULT_REPLICATES,
    seed: int = 0,
    stream: str = "",
) -> Replicates:
    """Pixel metrics of bootstrap draws of images; see `image_replicates` for the other arguments.

    Each figure is computed on the coarse bins of `counts`, whose `bounds` say how far that can be from the exact
    figure. Under "ader" the thresholds stay those of all images, also where a draw lacks the extreme scores.
    """
    check_protocol(protocol)

    def figures(draws: NDArray[np.int64]) -> dict[str, Values]:
        ascending = counts.weighted(draws)  # three of (B, G)
        positives, negatives, weights = (column[:, ::-1] for column in ascending)
        found = {
            "pixel_auroc": curves.auroc(positives, negatives),
            "pixel_ap": curves.average_precision(positives, negatives),
        }
        if protocol == "exact":
            found["pixel_aupro"] = curves.aupro(weights, negatives)
            found["pixel_f1"] = curves.f1_max(positives, negatives)
            found["pixel_iou"] = curves.iou_max(positives, negatives)
        elif len(counts.bins.f1_cuts):
            f1, iou = ader.f1_iou_max(ascending[0], ascending[1], counts.bins.f1_cuts)
            has_positives = positives.sum(axis=-1) > 0
            found["pixel_aupro"] = ader.aupro(ascending[2], ascending[1], counts.bins.aupro_cuts)
            found["pixel_f1"] = np.where(has_positives, f1, np.nan)
            found["pixel_iou"] = np.where(has_positives, iou, np.nan)
        return found

    pairing = (seed, stream, counts.has_defect)
    chunk = _CHUNK_NUMBERS // max(counts.images, 4 * len(counts.bins.edges))
    needed = (np.asarray(counts.has_defect, dtype=bool),)
    return _replicate(figures, needed, chunk, replicates, pairing, (PIXEL_METRICS, "pixel_mad"))


def _replicate(
    figures: Callable[[NDArray[np.int64]], dict[str, Values]],
    needed: Sequence[NDArray[np.bool_]],
    chunk: int,
    replicates: int,
    pairing: tuple[object, ...],
    level: tuple[tuple[str, ...], str],
) -> Replicates:
    """Figures of all images and of all draws, of which `chunk` are in memory at once, at least one.

    needed: kinds of image, (n,) each, of which a draw has to have one.
    """
    images = len(needed[0])
    if images == 0 or replicates < 1:
        raise InputError("a bootstrap needs at least one image and one replicate")
    names, mad = level
    parts = [figures(draws) for draws in _draws(needed, max(1, chunk), replicates, pairing)]
    values = {name: np.concatenate([part[name] for part in parts]) for name in names if name in parts[0]}
    whole = {name: float(value[0]) for name, value in figures(np.ones((1, images), dtype=np.int64)).items()}
    if len(values) == len(names):
        values[mad] = np.mean([values[name] for name in names], axis=0)  # NaN where a part is
        whole[mad] = float(np.mean([whole[name] for name in names]))
    estimate = {name: value for name, value in whole.items() if np.isfinite(value)}
    return Replicates(estimate, values, (replicates, *pairing), images)


def _draws(
    needed: Sequence[NDArray[np.bool_]], chunk: int, replicates: int, pairing: tuple[object, ...]
) -> Iterator[NDArray[np.int64]]:
    """How often each image is drawn, (b, n) at a time; the same draws whatever the size of the chunks."""
    seed, stream = pairing[:2]
    generator = np.random.default_rng([int(str(seed)), *str(stream).encode()])
    images, kinds = len(needed[0]), [kind for kind in needed if kind.any()]
    for start in range(0, replicates, chunk):
        wanted = min(chunk, replicates - start)
        parts: list[NDArray[np.int64]] = []
        while wanted:
            drawn = generator.multinomial(images, np.full(images, 1.0 / images), size=wanted)
            parts.append(drawn[np.all([drawn[:, kind].any(axis=1) for kind in kinds], axis=0)] if kinds else drawn)
            wanted -= len(parts[-1])
        yield np.concatenate(parts)


def macro_replicates(rows: Sequence[Replicates]) -> Replicates:
    """The mean figure over categories (or datasets) with its draws: images are drawn within each category.

    Means of means work the same way: over datasets, each row being the mean over a dataset's categories. Each metric
    is averaged over the rows that have it, as in `macro_average`; mAD is the mean of the averages. A draw counts only
    where it is defined in all of these rows.

    Raises:
        InputError: no rows, different numbers of draws, or two rows of one stream, whose draws would be the same.
    """
    if not rows or len({row.pairing[0] for row in rows}) > 1:
        raise InputError("a mean needs at least one category, and the same number of replicates in all of them")
    streams = [row.pairing[1:3] for row in rows]
    if len(rows) > 1 and len(set(streams)) < len(streams):
        raise InputError("categories must be drawn independently: give each its own stream (its name)")
    values: dict[str, Values] = {}
    for name in (*IMAGE_METRICS, *PIXEL_METRICS):
        having = [row.values[name] for row in rows if name in row.estimate]
        if having:
            values[name] = np.mean(having, axis=0)
    average = macro_average([row.estimate for row in rows])
    for mad, names in (("image_mad", IMAGE_METRICS), ("pixel_mad", PIXEL_METRICS)):
        if mad in average:
            values[mad] = np.mean([values[name] for name in names], axis=0)
    # like that of a single row: draws, seed, stream, labels; the stream is that of all parts together
    pairing = (rows[0].pairing[0], 0, ("mean", *streams), tuple(row.pairing for row in rows))
    return Replicates(average, values, pairing, sum(row.images for row in rows))


def compare(first: Replicates, second: Replicates, metric: str, confidence: float = 0.95) -> Comparison | None:
    """Paired difference of a metric, second minus first; None where it is not defined for both.

    Raises:
        InputError: the two were not made from the same images (by number and label, in the same order) with the
            same seed, stream and number of replicates.

    Example:
        >>> labels = [0, 0, 0, 1, 1, 1]
        >>> weak = image_replicates([0.5, 0.1, 0.8, 0.6, 0.3, 0.7], labels, replicates=200)
        >>> strong = image_replicates([0.1, 0.2, 0.3, 0.6, 0.8, 0.7], labels, replicates=200)
        >>> result = compare(weak, strong, "image_auroc")
        >>> round(result.difference, 3), result.low >= 0.0
        (0.444, True)
    """
    if first.pairing != second.pairing:
        raise InputError(
            "two methods can only be compared on the same images in the same order, "
            "with the same seed, stream and number of replicates"
        )
    if metric not in first.estimate or metric not in second.estimate:
        return None
    differences = _defined(second.values[metric] - first.values[metric])
    if len(differences) == 0:
        return None
    low, high = _percentiles(differences, confidence)
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p_value = min(1.0, 2.0 * (tail + 1) / (len(differences) + 1))
    difference = second.estimate[metric] - first.estimate[metric]
    return Comparison(difference, low, high, confidence, p_value, len(differences))


def _defined(values: Values) -> Values:
    return values[np.isfinite(values)]


def _percentiles(values: Values, confidence: float) -> tuple[float, float]:
    if not 0.0 < confidence < 1.0:
        raise InputError(f"the confidence must lie between 0 and 1, not {confidence}")
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)
