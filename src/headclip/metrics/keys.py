"""Scores as ordered integers, so that dropping low bits makes bins that are fine where scores crowd.

The key of a float32 is its bit pattern, which orders like the value and has 2^23 keys per octave: bins are
relative, as a score of 1e-7 deserves. Softmax scores crowd near 1 as much as near 0, where plain float32 bins
would be coarse; so [0.5, 1) is keyed by the bit pattern of 1 - x, which is exact there, counted downwards.
Dropping `level` bits leaves 2^(23 - level) bins per octave of x below 0.5 and of 1 - x above.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headclip.errors import InputError

_HALF = int(np.float32(0.5).view(np.int32))
_ONE_BITS = int(np.float32(1.0).view(np.int32))
_SMALLEST = 1 << 23  # bit pattern of the smallest normal number; what is smaller counts as 0
_SMALLEST_GAP_BITS = int(np.float32(2.0**-24).view(np.int32))  # of 1 - x, for the largest float32 below 1
MAX_LEVEL = 23
# One octave of unused keys lies between the largest score below 1 and 1, so that 1 starts a bin at every level.
KEY_ONE = 2 * _HALF - _SMALLEST_GAP_BITS + (1 << 23)
MAP_LEVELS = 65536


def float_keys(scores: NDArray[np.float32]) -> tuple[NDArray[np.integer], float, float]:
    """Keys of finite float32 scores (any shape), and the smallest and largest score.

    key(a) < key(b) exactly where a < b, for all finite scores, with magnitudes below 2^-126 (subnormal) as 0.

    Raises:
        InputError: a score is NaN or infinite.
    """
    low, high = float(scores.min()), float(scores.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("an anomaly map has NaN or infinite values: leave the image out, or repair the map")
    if low < 0.0 or high > 1.0:
        return _wide_keys(scores), low, high
    return _unit_keys(scores), low, high


def _unit_keys(scores: NDArray[np.float32]) -> NDArray[np.int32]:
    """Keys of scores in [0, 1], all below 2^31."""
    upper = scores >= np.float32(0.5)
    folded = np.where(upper, np.float32(1.0) - scores, scores)
    bits = folded.view(np.int32) & 0x7FFFFFFF  # the sign of -0.0 goes
    bits[bits < _SMALLEST] = 0
    return np.where(upper, np.minimum(2 * _HALF - bits, KEY_ONE), bits).astype(np.int32, copy=False)


def _wide_keys(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    keys = np.empty(scores.shape, np.int64)
    inside = (scores >= 0.0) & (scores <= 1.0)
    keys[inside] = _unit_keys(scores[inside])
    bits = (scores.view(np.int32) & 0x7FFFFFFF).astype(np.int64)
    bits[bits < _SMALLEST] = 0
    negative, above = scores < 0.0, scores > 1.0
    keys[negative] = -bits[negative]
    keys[above] = KEY_ONE + bits[above] - _ONE_BITS
    return keys


def key_values(keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """The score at each key. An unused key has the value of the used key below it, or the gap's lower end."""
    keys = np.asarray(keys, dtype=np.int64)
    magnitude = np.select(
        [keys < 0, keys < _HALF, keys < KEY_ONE],
        [-keys, keys, np.maximum(2 * _HALF - keys, _SMALLEST_GAP_BITS)],
        keys - KEY_ONE + _ONE_BITS,
    )
    # Keys past the largest finite number belong to the last bin's unused end.
    magnitude = np.clip(magnitude, 0, int(np.float32(np.finfo(np.float32).max).view(np.int32)))
    values = magnitude.astype(np.int32).view(np.float32).astype(np.float64)
    return np.select([keys < 0, (keys >= _HALF) & (keys < KEY_ONE)], [-values, 1.0 - values], values)


def single_valued(bins: NDArray[np.int64], level: int, maximum: float) -> NDArray[np.bool_]:
    """Which bins (keys >> level) can hold only one distinct score, so that nothing is lost in them.

    All bins at level 0; the bin of 0; the bin of 1 when no score is above 1; and bins just below 1 that are no
    wider than the spacing of float32 there.
    """
    if level == 0:
        return np.ones(len(bins), dtype=np.bool_)
    first, last = bins << level, ((bins + 1) << level) - 1
    single = (bins == 0) | ((first == KEY_ONE) & (maximum <= 1.0))
    below_one = (first >= _HALF) & (last < KEY_ONE)
    largest_gap, smallest_gap = 1.0 - key_values(first), 1.0 - key_values(last)
    spacing = 2.0**24  # scores in [0.5, 1) are multiples of 2^-24
    count = np.floor(largest_gap * spacing) - np.ceil(smallest_gap * spacing) + 1.0
    return np.asarray(single | (below_one & (count <= 1.0)))


def _level_keys() -> NDArray[np.int32]:
    levels = np.arange(MAP_LEVELS, dtype=np.float32) / np.float32(MAP_LEVELS - 1)
    return _unit_keys(levels)


LEVEL_KEYS = _level_keys()  # (65536,) key of level / 65535, the value of a 16-bit map's pixel
