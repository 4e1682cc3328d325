"""Pixel metrics of a state: figures under both protocols, how far they can be off, and a stateful wrapper."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headclip.metrics import ader, curves
from headclip.metrics.figures import PIXEL_METRICS, Figures, check_protocol
from headclip.metrics.keys import key_values, single_valued
from headclip.metrics.state import (
    DEFAULT_CAPACITY,
    PixelState,
    empty_state,
    image_state,
    merge,
)

_UNLIMITED = 2**62


def compute(state: PixelState, protocol: str = "exact") -> Figures:
    """`pixel_auroc`, `pixel_aupro`, `pixel_ap`, `pixel_f1`, `pixel_iou` and `pixel_mad`, each in [0, 1].

    "exact": every distinct score is a threshold; AUPRO is interpolated at a false-positive rate of 0.3 and divided
    by it. At state level 0 these are the exact values, else they lie within `bounds(state)`.
    "ader": the figures of the published tables (ader.py). At level 0 they are those of the official code. At level
    L they are the figures of maps in which each score is lowered to the edge of its bin, by less than 2^(L - 23)
    of itself (of its distance to 1, for scores above 0.5); only pixels that close to a threshold can matter.

    What is not defined has no key, and `absent` says why: no defect pixel, only defect pixels, or, under "ader",
    maps whose scores leave the official code with NaN or an error.
    """
    check_protocol(protocol)
    figures = Figures()
    positives, negatives, weights = columns(state)
    if positives.sum() == 0:
        reason = "no defect pixel" if state.images else "no map"
        figures.absent = dict.fromkeys(PIXEL_METRICS, reason)
        return figures.add_mad()
    only = "every pixel is defective"
    figures.put("pixel_auroc", float(curves.auroc(positives, negatives)), only)
    figures.put("pixel_ap", float(curves.average_precision(positives, negatives)), only)
    if protocol == "exact":
        figures.put("pixel_aupro", float(curves.aupro(weights, negatives)), only)
        figures.put("pixel_f1", float(curves.f1_max(positives, negatives)), only)
        figures.put("pixel_iou", float(curves.iou_max(positives, negatives)), only)
    else:
        _put_ader(figures, state, only)
    return figures.add_mad()


def _put_ader(figures: Figures, state: PixelState, only: str) -> None:
    if not ader.is_defined(state.minimum, state.maximum):
        reason = "all scores are equal, so that their min-max normalisation is not defined"
        figures.absent |= dict.fromkeys(("pixel_aupro", "pixel_f1", "pixel_iou"), reason)
        return
    values = bin_values(state)
    ascending = tuple(column[::-1] for column in columns(state))
    cuts = ader.f1_cuts(values, state.minimum, state.maximum)
    f1, iou = ader.f1_iou_max(ascending[0], ascending[1], cuts)
    cuts = ader.aupro_cuts(values, state.minimum, state.maximum)
    value = float(ader.aupro(ascending[2], ascending[1], cuts))
    reason = only if ascending[1].sum() == 0 else "fewer than two of the 200 thresholds have distinct rates below 0.3"
    figures.put("pixel_aupro", value, reason)
    figures.put("pixel_f1", float(f1), only)
    figures.put("pixel_iou", float(iou), only)


def columns(state: PixelState) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(positives, negatives, region weights) per bin as floats, highest score first; (K,) each."""
    positives, negatives, weights = (
        column[::-1].astype(np.float64) for column in (state.positives, state.negatives, state.weights)
    )
    return positives, negatives, weights


def bin_values(state: PixelState) -> NDArray[np.float32]:
    """(K,) ascending: the lowest score of each bin, which at level 0 is the score itself."""
    values = key_values(state.bins << state.level).astype(np.float32)
    return np.clip(values, np.float32(state.minimum), np.float32(state.maximum))


def bounds(state: PixelState) -> dict[str, tuple[float, float]]:
    """(lower, upper) between which the exact value of each "exact" metric lies, whatever happens inside the bins.

    Computed from the masses in the bins; no assumption on the scores. Zero width at state level 0. Metrics that
    are absent from `compute(state)` are absent here.
    """
    mixed = ~single_valued(state.bins, state.level, state.maximum)[::-1]
    return ranges(*columns(state), mixed)


def ranges(
    positives: NDArray[np.float64],
    negatives: NDArray[np.float64],
    weights: NDArray[np.float64],
    mixed: NDArray[np.bool_],
) -> dict[str, tuple[float, float]]:
    """`bounds` on counts per bin, highest score first, (K,) each; `mixed` marks bins of more than one score."""
    found: dict[str, tuple[float, float]] = {}
    if positives.sum() == 0:
        return found
    if negatives.sum() > 0:
        found["pixel_auroc"] = curves.auroc_range(positives, negatives, mixed)
        found["pixel_aupro"] = curves.aupro_range(weights, negatives, mixed)
    found["pixel_ap"] = curves.average_precision_range(positives, negatives, mixed)
    low, high = curves.f1_max_range(positives, negatives, mixed)
    found["pixel_f1"] = (low, high)
    found["pixel_iou"] = (low / (2.0 - low), high / (2.0 - high))
    if len(found) == len(PIXEL_METRICS):
        low, high = (float(np.mean([pair[side] for pair in found.values()])) for side in (0, 1))
        found["pixel_mad"] = (low, high)
    return found


def pixel_metrics(
    maps: Iterable[NDArray[Any]], masks: Iterable[NDArray[Any] | None], protocol: str = "exact"
) -> Figures:
    """Exact figures of maps held in memory (no capacity, so memory grows with the number of distinct scores).

    Example:
        >>> import numpy as np
        >>> anomaly_map = np.array([[0.1, 0.9], [0.2, 0.3]], dtype=np.float32)
        >>> pixel_metrics([anomaly_map], [np.array([[0, 1], [0, 0]])])["pixel_aupro"]
        1.0
    """
    states = [
        image_state(anomaly_map, mask, capacity=_UNLIMITED) for anomaly_map, mask in zip(maps, masks, strict=True)
    ]
    return compute(merge(*states), protocol) if states else compute(empty_state(), protocol)


class PixelMetrics:
    """Pixel metrics over a stream of maps: constant memory, one pass, mergeable across processes.

    Example:
        >>> import numpy as np
        >>> metrics = PixelMetrics()
        >>> metrics.update(np.array([[0.1, 0.9], [0.2, 0.3]], dtype=np.float32), np.array([[0, 1], [0, 0]]))
        >>> metrics.compute()["pixel_auroc"]
        1.0
    """

    def __init__(self, protocol: str = "exact", capacity: int = DEFAULT_CAPACITY) -> None:
        check_protocol(protocol)
        self.protocol = protocol
        self._state = empty_state(capacity)
        self._pending: list[PixelState] = []  # merged in groups, since one merge sorts all bins
        self._pending_bins = 0

    @property
    def state(self) -> PixelState:
        """All maps so far."""
        if self._pending:
            self._state = merge(self._state, *self._pending)
            self._pending, self._pending_bins = [], 0
        return self._state

    def update(self, anomaly_map: NDArray[Any], mask: NDArray[Any] | None) -> None:
        """Add one (H, W) map with its mask (None: no defects); see `state.update` for types and errors."""
        self._add(image_state(anomaly_map, mask, level=self._state.level, capacity=self._state.capacity))

    def merge(self, other: PixelMetrics | PixelState) -> None:
        """Add all maps of another instance or state; `other` is not changed."""
        self._add(other.state if isinstance(other, PixelMetrics) else other)

    def _add(self, state: PixelState) -> None:
        self._pending.append(state)
        self._pending_bins += len(state.bins)
        if self._pending_bins > 4 * self._state.capacity:
            _ = self.state

    def compute(self, protocol: str | None = None) -> Figures:
        """The figures, under the instance's protocol unless another one is named."""
        return compute(self.state, protocol or self.protocol)

    def bounds(self) -> dict[str, tuple[float, float]]:
        """See `bounds`; for the exact protocol."""
        return bounds(self.state)
