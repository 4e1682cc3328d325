"""Thresholds from labelled images: the best F1, or the least expected cost. Optimal there, without any promise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headclip.errors import InputError

DRAWS = 2000
_LOW, _HIGH = 0.025, 0.975


@dataclass(frozen=True)
class Costs:
    """What a decision costs. miss, false_alarm: of one each, in any unit; prevalence: share of anomalous images on the
    line, None for that of the labelled images."""

    miss: float = 1.0
    false_alarm: float = 1.0
    prevalence: float | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite([self.miss, self.false_alarm]).all() and self.miss > 0 and self.false_alarm > 0):
            raise InputError(f"costs {self.miss} and {self.false_alarm}: both must be positive numbers")
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            raise InputError(f"prevalence {self.prevalence}: a share between 0 and 1 is needed")


@dataclass(frozen=True)
class OptimalThreshold:
    """threshold: an image is anomalous when its score is above it; low, high: where it lies in 95 % of bootstrap draws
    of the images, threshold included; value: F1, or cost an image."""

    threshold: float
    low: float
    high: float
    value: float


def optimal_threshold(
    scores: ArrayLike, anomalous: ArrayLike, costs: Costs | None = None, *, seed: int = 0, draws: int = DRAWS
) -> OptimalThreshold:
    """The threshold of the best F1, or of the least expected cost where costs are given.

    Thresholds are tried half-way between neighbouring scores, so that no image lies on one; of equally good ones the
    lowest is taken (fewer misses). The review band is the 95 % percentile interval of the optimum over `draws`
    bootstrap samples (Efron 1979), drawn within normal and anomalous images: it says how far the optimum is known.

        F1(t) = 2 TP / (2 TP + FN + FP),    cost(t) = c_miss p FN / P + c_false (1 - p) FP / N

    with P anomalous and N normal images, and prevalence p.

    Args:
        scores: (n,); anomalous: (n,) bool.

    Raises:
        InputError: one of the kinds is missing.

    >>> found = optimal_threshold([0.1, 0.2, 0.3, 0.6, 0.8], [False, False, True, True, True])
    >>> round(found.threshold, 3), found.value
    (0.25, 1.0)
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(anomalous, dtype=bool)
    if not truth.any() or truth.all():
        raise InputError("both normal and anomalous images are needed")
    distinct, place = np.unique(values, return_inverse=True)  # (K,), (n,)
    positive = np.bincount(place[truth], minlength=len(distinct)).astype(np.float64)  # (K,)
    negative = np.bincount(place[~truth], minlength=len(distinct)).astype(np.float64)
    # candidate k: everything from distinct[k] on is an alarm; k = K: nothing is
    middles = (distinct[1:] + distinct[:-1]) / 2
    middles = np.where(middles < distinct[1:], middles, distinct[:-1])  # halves of neighbouring floats round up
    candidates = np.concatenate([[np.nextafter(distinct[0], -np.inf)], middles, [distinct[-1]]])  # (K + 1,)
    worth = _worth(positive[None], negative[None], costs)[0]
    best = int(worth.argmax())
    rng = np.random.default_rng(seed)
    drawn = [candidates[best]]
    for _ in range(0, draws, 200):  # in portions, for the memory's sake
        more = rng.multinomial(int(positive.sum()), positive / positive.sum(), size=200)
        less = rng.multinomial(int(negative.sum()), negative / negative.sum(), size=200)
        drawn += candidates[_worth(more, less, costs).argmax(axis=1)].tolist()
    low, high = np.quantile(drawn, [_LOW, _HIGH])
    threshold = float(candidates[best])
    value = float(worth[best] if costs is None else -worth[best])
    return OptimalThreshold(threshold, min(float(low), threshold), max(float(high), threshold), value)


def _worth(positive: NDArray, negative: NDArray, costs: Costs | None) -> NDArray[np.float64]:
    """What each candidate is worth, higher is better. positive, negative: (B, K) counts by score -> (B, K + 1)."""
    caught, false_alarms = _from_above(positive), _from_above(negative)
    anomalous, normal = caught[:, :1], false_alarms[:, :1]
    if costs is None:
        return 2 * caught / (anomalous + caught + false_alarms)
    share = anomalous / (anomalous + normal) if costs.prevalence is None else costs.prevalence
    missed = costs.miss * share * (1 - caught / anomalous)
    return -(missed + costs.false_alarm * (1 - share) * false_alarms / normal)


def _from_above(counts: NDArray) -> NDArray[np.float64]:
    """(B, K) -> (B, K + 1): the number in bin k and above."""
    sums = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1].astype(np.float64)
    return np.concatenate([sums, np.zeros((len(counts), 1))], axis=1)
