"""Constant-memory pixel counts: one pass over maps, mergeable in any order, exact until the capacity is reached.

A state is a histogram over at most `capacity` occupied bins of the scores' ordered keys (keys.py). It starts at
level 0, where each distinct float32 has a bin of its own, and drops one low bit of all keys whenever more bins
than that are occupied. The level so depends only on the set of all pixels, never on their order or on how they
were split, which makes `merge` associative and commutative to the last bit (all counts are integers).
16-bit maps have at most 65,536 distinct values, so with the default capacity the figures of these values are exact.
For float maps `bounds` (pixel.py) computes from the state itself how far each metric can be off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headclip.errors import InputError
from headclip.metrics.keys import LEVEL_KEYS, MAP_LEVELS, MAX_LEVEL, float_keys

DEFAULT_CAPACITY = 131_072
MAX_CAPACITY = 1 << 24  # of a state from a file: half a gigabyte
_MOST_KEY, _MOST_COUNT = 1 << 33, 2.0**62
MIN_CAPACITY = 1_024  # at the coarsest level, one bin per octave, every float32 fits in about 540 bins
# Region weights are integers in units of 2^-40, so that sums do not depend on their order. A pixel of a region of
# A pixels is off by at most A / 2^41 of its weight; 2^63 / 2^40 leaves room for eight million regions.
WEIGHT_UNIT = 1 << 40
_EIGHT_CONNECTED = np.ones((3, 3), dtype=np.int8)

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PixelState:
    """Counts of pixels per bin of score. Treat the arrays as read-only.

    Attributes:
        bins: (K,) ascending, key >> level of each occupied bin; K <= capacity.
        positives, negatives: (K,) defect and other pixels.
        weights: (K,) sum of 1/area over the defect pixels, in units of 2^-40.
        regions: number of 8-connected defect regions.
        images: number of maps seen.
        minimum, maximum: smallest and largest score seen (inf, -inf before the first).
        level: number of low key bits dropped; 0 means that every figure is exact.
        capacity: most bins that may be occupied; memory is about 32 bytes times this.
    """

    bins: Integers
    positives: Integers
    negatives: Integers
    weights: Integers
    regions: int = 0
    images: int = 0
    minimum: float = float("inf")
    maximum: float = float("-inf")
    level: int = 0
    capacity: int = DEFAULT_CAPACITY

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays, for `numpy.savez`, so that states of several processes can be merged later."""
        scalars = [self.regions, self.images, self.level, self.capacity]
        return {
            "bins": self.bins,
            "positives": self.positives,
            "negatives": self.negatives,
            "weights": self.weights,
            "scalars": np.array(scalars, dtype=np.int64),
            "limits": np.array([self.minimum, self.maximum], dtype=np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> PixelState:
        """Inverse of `to_arrays`.

        Raises:
            KeyError, TypeError, ValueError: the arrays are those of no state.
        """
        regions, images, level, capacity = (int(value) for value in arrays["scalars"])
        minimum, maximum = (float(value) for value in arrays["limits"])
        bins, positives, negatives, weights = (arrays[name] for name in ("bins", "positives", "negatives", "weights"))
        state = cls(bins, positives, negatives, weights, regions, images, minimum, maximum, level, capacity)
        if fault := _fault(state):
            raise ValueError(fault)
        return state


def _fault(state: PixelState) -> str:
    """What makes arrays from a file no state, or ""."""
    bins, *counts = columns = [state.bins, state.positives, state.negatives, state.weights]
    if any(column.ndim != 1 or column.dtype != np.int64 or len(column) != len(bins) for column in columns):
        return "counts are not four columns of integers"
    if not (0 <= state.level <= MAX_LEVEL and MIN_CAPACITY <= state.capacity <= MAX_CAPACITY):
        return f"there is no level {state.level} with {state.capacity} bins"
    if state.regions < 0 or state.images < 0 or len(bins) > state.capacity:
        return "counts are out of range"
    if len(bins) == 0:
        return ""
    if not (np.isfinite(state.minimum) and np.isfinite(state.maximum) and state.minimum <= state.maximum):
        return f"scores from {state.minimum} to {state.maximum} are none"
    if bins[0] < -_MOST_KEY or bins[-1] > _MOST_KEY or (np.diff(bins) <= 0).any():
        return "bins are not in order"
    if any(column.min() < 0 or column.sum(dtype=np.float64) > _MOST_COUNT for column in counts):
        return "counts are out of range"
    return ""


def empty_state(capacity: int = DEFAULT_CAPACITY) -> PixelState:
    """The state before any map; neutral in `merge`."""
    if capacity < MIN_CAPACITY:
        raise InputError(f"a pixel state needs a capacity of at least {MIN_CAPACITY} bins, not {capacity}")
    nothing = np.empty(0, dtype=np.int64)
    return PixelState(nothing, nothing, nothing, nothing, capacity=capacity)


def update(state: PixelState, anomaly_map: NDArray[Any], mask: NDArray[Any] | None) -> PixelState:
    """The state after one more map; `state` itself is not changed.

    Args:
        state: from `empty_state` or an earlier update.
        anomaly_map: (H, W), finite floats of any range (taken as float32), or uint16 levels that stand for
            level / 65535.
        mask: (H, W), non-zero where defective; None for an image without defects.

    Raises:
        InputError: wrong shapes or dtype, no pixel, NaN or infinite scores.
    """
    return merge(state, image_state(anomaly_map, mask, level=state.level, capacity=state.capacity))


def merge(*states: PixelState) -> PixelState:
    """The state of all maps together; associative and commutative, bit for bit.

    Raises:
        InputError: no state, or states of different capacities.
    """
    if not states or len({state.capacity for state in states}) > 1:
        raise InputError("only pixel states of one capacity can be merged, and at least one is needed")
    level = max(state.level for state in states)
    merged = replace(
        states[0],
        regions=sum(state.regions for state in states),
        images=sum(state.images for state in states),
        minimum=min(state.minimum for state in states),
        maximum=max(state.maximum for state in states),
        level=level,
        bins=np.concatenate([state.bins >> (level - state.level) for state in states]),
        positives=np.concatenate([state.positives for state in states]),
        negatives=np.concatenate([state.negatives for state in states]),
        weights=np.concatenate([state.weights for state in states]),
    )
    order = np.argsort(merged.bins, kind="stable")
    return _fit(_take(merged, order))


def _take(state: PixelState, order: Integers) -> PixelState:
    return replace(
        state,
        bins=state.bins[order],
        positives=state.positives[order],
        negatives=state.negatives[order],
        weights=state.weights[order],
    )


def _fit(state: PixelState) -> PixelState:
    """Join equal neighbours, after dropping as few low bits as make the occupied bins fit the capacity."""
    dropped, bins = 0, state.bins
    while _distinct(bins) > state.capacity:
        dropped += 1
        bins = state.bins >> dropped
    if state.level + dropped > MAX_LEVEL:
        raise AssertionError("the minimum capacity holds one bin per octave")
    if len(bins) == 0:
        return state
    starts = np.flatnonzero(np.concatenate([[True], bins[1:] != bins[:-1]]))
    return replace(
        state,
        level=state.level + dropped,
        bins=bins[starts],
        positives=np.add.reduceat(state.positives, starts),
        negatives=np.add.reduceat(state.negatives, starts),
        weights=np.add.reduceat(state.weights, starts),
    )


def _distinct(ascending: Integers) -> int:
    return int(np.count_nonzero(ascending[1:] != ascending[:-1])) + (len(ascending) > 0)


def image_state(
    anomaly_map: NDArray[Any],
    mask: NDArray[Any] | None,
    *,
    level: int = 0,
    capacity: int = DEFAULT_CAPACITY,
) -> PixelState:
    """The state of a single map, at `level` or the first coarser one that fits. Arguments as in `update`."""
    scores, defect = _check(anomaly_map, mask)
    if scores.dtype == np.uint16:
        codes: NDArray[Any] = scores
        low, high = (float(np.float32(value) / np.float32(MAP_LEVELS - 1)) for value in (scores.min(), scores.max()))
    else:
        codes, low, high = float_keys(scores)
        codes >>= level
    if defect is None:
        bins, negatives = _count(codes.reshape(-1))  # (H, W) -> (H*W,)
        positives = weights = np.zeros_like(negatives)
        regions = 0
    else:
        labels, regions = ndimage.label(defect, structure=_EIGHT_CONNECTED)
        inside = labels[defect]  # (number of defect pixels,) region of each, from 1
        shares = np.rint(WEIGHT_UNIT / np.bincount(inside)[1:]).astype(np.int64)
        bins, positives, negatives, weights = _stack(codes[defect], shares[inside - 1], codes[~defect])
    if scores.dtype == np.uint16:
        bins = LEVEL_KEYS[bins].astype(np.int64) >> level
    return _fit(PixelState(bins, positives, negatives, weights, int(regions), 1, low, high, level, capacity))


def _check(anomaly_map: NDArray[Any], mask: NDArray[Any] | None) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    scores = np.asarray(anomaly_map)
    if scores.ndim != 2 or scores.size == 0:
        raise InputError(f"an anomaly map must be (H, W) with at least one pixel, not {scores.shape}")
    if scores.dtype != np.uint16:
        if scores.dtype.kind != "f":
            raise InputError(f"an anomaly map must be of floats or of uint16 levels, not {scores.dtype}")
        scores = np.ascontiguousarray(scores, dtype=np.float32)
    if mask is None:
        return scores, None
    defect = np.asarray(mask)
    if defect.shape != scores.shape:
        raise InputError(
            f"the mask has shape {defect.shape} and the anomaly map {scores.shape}: resize the one to the other"
        )
    defect = defect.astype(np.bool_, copy=False)
    return scores, defect if defect.any() else None


def _count(codes: NDArray[Any]) -> tuple[Integers, Integers]:
    """(distinct codes ascending, their counts), through a table where codes lie close together, else by sorting."""
    if len(codes) == 0:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    low, high = int(codes.min()), int(codes.max())
    if high - low < 2 * len(codes) + 1024:
        counts = np.bincount(codes - codes.dtype.type(low))
        distinct = np.flatnonzero(counts)
        return distinct + low, counts[distinct]
    values, repeats = np.unique(codes, return_counts=True)
    return values.astype(np.int64), repeats.astype(np.int64)


def _stack(
    defect_codes: NDArray[Any], defect_weights: Integers, other_codes: NDArray[Any]
) -> tuple[Integers, Integers, Integers, Integers]:
    """Ascending codes, possibly repeated, with the positives, negatives and weights of each entry."""
    other, negatives = _count(other_codes)
    order = np.argsort(defect_codes, kind="stable")
    codes = defect_codes[order].astype(np.int64)  # (number of defect pixels,) one entry per pixel; _fit joins them
    bins = np.concatenate([other, codes])
    none, ones = np.zeros_like(negatives), np.ones(len(codes), dtype=np.int64)
    ascending = np.argsort(bins, kind="stable")
    columns = (
        np.concatenate([none, ones]),
        np.concatenate([negatives, np.zeros_like(ones)]),
        np.concatenate([none, defect_weights[order]]),
    )
    positives, negatives, weights = (column[ascending] for column in columns)
    return bins[ascending], positives, negatives, weights
