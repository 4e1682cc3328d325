"""Map values to colours when methods stand side by side.

Methods do not share a scale: one calls a scratch 0.3 and everything else 0.05, another one calls it 0.52 and
everything else 0.51. A scale of values is right for maps of one method; between methods it paints one column all
over and another one not at all. Ranks compare what the pixel metrics compare: the order of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from headclip.data.levels import quantise
from headclip.errors import InputError
from headclip.runs.overlay import LevelHistogram, Scale

ScaleKind = Literal["value", "rank", "method"]
KINDS: tuple[str, ...] = get_args(ScaleKind)
TAIL = (0.5, 0.1, 0.01, 0.001)
"""Shares of the highest values that a scale of ranks marks, from its first colour to its last."""
_LEVELS = 65536


class Colours(Protocol):
    """From map values to [0, 1], the first to the last colour."""

    def normalise(self, anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H, W) map values in [0, 1] to (H, W) in [0, 1]."""
        ...


@dataclass(frozen=True)
class RankScale:
    """Colours by the share of a method's map values that are higher, over all images shown, each weighing the same.

    The first colour stands for the highest half, the last for the highest thousandth; between them the logarithm of
    the share counts. thresholds: the method's map values at the shares of TAIL.
    """

    table: NDArray[np.float32] = field(repr=False, compare=False)  # (65536,) level -> [0, 1]
    thresholds: tuple[float, ...] = ()

    @classmethod
    def of(cls, maps: Sequence[NDArray[np.float32]]) -> RankScale:
        """From all maps of one method, (H, W) each."""
        weights = np.zeros(_LEVELS)
        for found in maps:
            weights += np.bincount(quantise(found).ravel(), minlength=_LEVELS) / found.size
        share = weights / weights.sum()
        # equal values share their mean rank, so that a flat map gets no colour
        above = 1.0 - np.cumsum(share) + share / 2.0
        position = np.log(TAIL[0] / np.maximum(above, TAIL[-1])) / np.log(TAIL[0] / TAIL[-1])
        at = [int(np.searchsorted(np.cumsum(share), 1.0 - tail)) for tail in TAIL]
        levels = tuple(min(level, _LEVELS - 1) / (_LEVELS - 1) for level in at)
        return cls(np.clip(position, 0.0, 1.0).astype(np.float32), levels)

    def normalise(self, anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.table[quantise(anomaly_map)]


def choose_scales(
    maps: Sequence[Sequence[NDArray[np.float32]]], kind: ScaleKind, limits: tuple[float, float] | None = None
) -> tuple[Colours, ...]:
    """The colours of each column.

    Args:
        maps: for each image, the map of each column, (H, W) at the image's own resolution.
        kind: "value": one range of map values for all. "rank": one scale of ranks within each method's values.
            "method": a range of map values for each column.
        limits: map values of the first and the last colour, for "value".

    Raises:
        InputError: an unknown kind, or limits that are none.
    """
    if kind not in KINDS:
        raise InputError(f"unknown scale '{kind}'; choose {', '.join(KINDS)}")
    columns = list(zip(*maps, strict=True))
    if limits is not None:
        check_limits(limits, kind)
        return (Scale(*limits),) * len(columns)
    if kind == "rank":
        return tuple(RankScale.of(column) for column in columns)
    if kind == "method":
        return tuple(_range(column) for column in columns)
    return (_range([found for column in columns for found in column]),) * len(columns)


def check_limits(limits: tuple[float, float], kind: ScaleKind | None) -> None:
    """Whether these can be the map values of the first and the last colour. kind: None where it is yet to be chosen.

    Raises:
        InputError: they cannot.
    """
    low, high = limits
    if kind not in ("value", None):
        raise InputError(f"a range of map values does not go with a scale by {kind}; choose --scale value")
    if not 0.0 <= low < high <= 1.0:
        raise InputError(f"colours from {low} to {high}: give two values in [0, 1], the lower one first")


def _range(maps: Sequence[NDArray[np.float32]]) -> Scale:
    """From the median to the 99.9 % quantile, as in a run's report."""
    histogram = LevelHistogram()
    for found in maps:
        histogram.update(quantise(found))
    return histogram.scale()
