"""Thresholds from labelled images: the best F1, or the least expected cost. Optimal there, without any promise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headclip.errors import InputError

if TYPE_CHECKING:
    from headclip.metrics import PixelState

DRAWS = 2000
_LOW, _HIGH = 0.025, 0.975
_STEP = 1 / 65535  # of maps


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


@dataclass(frozen=True)
class OptimalPixels:
    """threshold: a pixel is anomalous where the map is above it; value: F1 over all pixels of all images together;
    precision, recall: of pixels, there; images: with a mask, normal ones included; defect: anomalous pixels."""

    threshold: float
    value: float
    precision: float
    recall: float
    images: int
    defect: int


class MaskedPixels:
    """Counts of pixels by map value, for `optimal_pixels`: constant memory, whatever the number of images.

    Args:
        border: frame in pixels that is not looked at (`RegionRules.ignore_border`).
    """

    def __init__(self, border: int = 0) -> None:
        from headclip.metrics import PixelMetrics

        self._metrics = PixelMetrics()
        self._border = border
        self.unmasked = 0

    def add(self, anomaly_map: NDArray[np.float32], mask: NDArray[Any] | None) -> None:
        """Count a map in [0, 1] with its mask, both (H, W); None: nobody marked the pixels of this anomalous image."""
        from headclip.data.levels import quantise

        if mask is None:
            self.unmasked += 1
            return
        border, (height, width) = self._border, anomaly_map.shape
        inner = (slice(border, height - border), slice(border, width - border))
        if min(height, width) > 2 * border:
            # as judging sees it: thresholds act on 16 bits
            self._metrics.update(quantise(anomaly_map[inner]), mask[inner])

    @property
    def state(self) -> PixelState:
        """All maps so far."""
        return self._metrics.state


def optimal_pixels(state: PixelState) -> OptimalPixels | None:
    """The map threshold of the best F1 over pixels; None where no pixel is anomalous, or all are.

    Thresholds are tried half-way between neighbouring values; of equally good ones the highest is taken (smaller
    regions). Exact for maps of 16 bits, and otherwise for the bins of the state (`headclip.metrics.state`).

    >>> counts = MaskedPixels()
    >>> counts.add(np.array([[0.1, 0.2], [0.6, 0.8]], np.float32), np.array([[0, 0], [1, 1]]))
    >>> round(optimal_pixels(counts.state).threshold, 3), optimal_pixels(counts.state).value
    (0.4, 1.0)
    """
    from headclip.metrics.pixel import bin_values, columns

    positive, negative, _ = columns(state)  # (K,) each, highest value first
    if not positive.any() or not negative.any():
        return None
    caught, false_alarms = np.cumsum(positive), np.cumsum(negative)
    total = float(caught[-1])
    f1 = 2 * caught / (total + caught + false_alarms)
    best = int(f1.argmax())
    values = bin_values(state)[::-1].astype(np.float64)
    below = values[best + 1] if best + 1 < len(values) else values[best] - _STEP
    return OptimalPixels(
        threshold=float((values[best] + below) / 2),
        value=float(f1[best]),
        precision=float(caught[best] / (caught[best] + false_alarms[best])),
        recall=float(caught[best] / total),
        images=state.images,
        defect=int(total),
    )


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
