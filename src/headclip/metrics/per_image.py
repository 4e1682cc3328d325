"""Compact pixel counts of each image, so that images can be resampled without their maps.

Second pass over the maps: the state of the first pass says where the scores lie, and about two thousand coarse
bins are laid so that none holds much of the positives, of the negatives, of the region weights, or of the
log-rank (which precision at the top depends on). Bins that hold a single score are kept single. The thresholds
of the "ader" protocol are edges too, so that its grid figures lose nothing more. `ImageCounts.bounds` computes
from the counts how far each exact figure can be off.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from headclip.errors import InputError
from headclip.metrics import ader
from headclip.metrics.keys import single_valued
from headclip.metrics.pixel import bin_values, ranges
from headclip.metrics.state import WEIGHT_UNIT, PixelState, image_state

DEFAULT_BINS = 2048
_NO_LIMIT = 2**62
_BLOCK = 256  # images in memory


@dataclass(frozen=True, eq=False)
class CoarseBins:
    """Intervals of scores, each a run of a state's bins; ascending. The first and last reach to infinity.

    Attributes:
        level: of the state that they were laid for.
        edges: (G,) lowest state bin of each interval.
        mixed: (G,) whether an interval may hold more than one distinct score.
        f1_cuts, aupro_cuts: intervals below each threshold of the "ader" protocol; empty where it is not defined.
    """

    level: int
    edges: NDArray[np.int64]
    mixed: NDArray[np.bool_]
    f1_cuts: NDArray[np.int64]
    aupro_cuts: NDArray[np.int64]


def lay_bins(state: PixelState, count: int = DEFAULT_BINS) -> CoarseBins:
    """About `count` (at most 250 more) intervals adapted to the pixels of a state.

    Any state with similar scores will do; the state of all maps gives the tightest bounds. For a comparison of
    two methods each has its own bins.

    Raises:
        InputError: the state has seen no map.
    """
    if len(state.bins) == 0:
        raise InputError("bins can only be laid for a state that has seen maps: run the first pass before")
    seen = np.cumsum((state.positives + state.negatives)[::-1])[::-1]  # pixels at or above each bin
    shares = [_share(column) for column in (state.positives, state.negatives, state.weights)]
    shares.append(_share(-np.diff(np.log1p(seen), append=0.0)))
    total = np.sum(shares, axis=0)
    group = np.floor(np.cumsum(total) / total.sum() * count).astype(np.int64)  # (K,) ascending
    is_start = np.concatenate([[True], group[1:] != group[:-1]])
    f1_cuts = aupro_cuts = np.empty(0, dtype=np.int64)
    if ader.is_defined(state.minimum, state.maximum):
        values = bin_values(state)
        f1_cuts = ader.f1_cuts(values, state.minimum, state.maximum)
        aupro_cuts = ader.aupro_cuts(values, state.minimum, state.maximum)
        cuts = np.concatenate([f1_cuts, aupro_cuts])
        is_start[cuts[cuts < len(is_start)]] = True
    starts = np.flatnonzero(is_start)
    single = single_valued(state.bins, state.level, state.maximum)[starts]
    single &= np.diff(starts, append=len(state.bins)) == 1
    return CoarseBins(
        state.level,
        state.bins[starts],
        ~single,
        np.searchsorted(starts, f1_cuts),
        np.searchsorted(starts, aupro_cuts),
    )


def _share(column: NDArray[Any]) -> NDArray[np.float64]:
    total = float(column.sum())
    return column / total if total > 0 else np.zeros(len(column))


class ImageCounts:
    """Counts per image over common intervals: 12 bytes x intervals x images (50 MB for the size of MVTec AD).

    A few hundred images are in memory, the others in a temporary file (TMPDIR) that ends with the object.

    Example:
        >>> import numpy as np
        >>> from headclip.metrics import PixelMetrics
        >>> maps = [np.array([[0.1, 0.9], [0.2, 0.3]], dtype=np.float32)] * 2
        >>> masks = [np.array([[0, 1], [0, 0]]), None]
        >>> first = PixelMetrics()
        >>> for anomaly_map, mask in zip(maps, masks):
        ...     first.update(anomaly_map, mask)
        >>> counts = ImageCounts(lay_bins(first.state))
        >>> for anomaly_map, mask in zip(maps, masks):
        ...     counts.update(anomaly_map, mask)
        >>> counts.images, counts.has_defect
        (2, (True, False))
    """

    def __init__(self, bins: CoarseBins) -> None:
        self.bins = bins
        self._rows: list[NDArray[np.uint32]] = []  # (3, G) each: positives, negatives, the bits of float32 weights
        self._defects: list[bool] = []
        self._file: IO[bytes] | None = None

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self._defects)

    @property
    def has_defect(self) -> tuple[bool, ...]:
        """For each image whether its mask has a defect pixel."""
        return tuple(self._defects)

    def update(self, anomaly_map: NDArray[Any], mask: NDArray[Any] | None) -> None:
        """Add one image; arguments and errors as in `state.update`."""
        state = image_state(anomaly_map, mask, level=self.bins.level, capacity=_NO_LIMIT)
        self._place(state, state.bins)

    def _place(self, state: PixelState, keys: NDArray[np.int64]) -> None:
        """Sum an image's state over the intervals; keys: its bins at the level of the intervals."""
        place = np.maximum(np.searchsorted(self.bins.edges, keys, side="right") - 1, 0)
        size = len(self.bins.edges)
        positives, negatives, weights = (
            np.bincount(place, column, size) for column in (state.positives, state.negatives, state.weights)
        )
        shares = (weights / WEIGHT_UNIT).astype(np.float32)
        self._append(np.stack([positives.astype(np.uint32), negatives.astype(np.uint32), shares.view(np.uint32)]))

    def _append(self, row: NDArray[np.uint32]) -> None:
        self._rows.append(row)
        self._defects.append(bool(row[0].any()))
        if len(self._rows) == _BLOCK:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="headclip-counts-")  # noqa: SIM115 - closed with the object
            self._file.seek(0, io.SEEK_END)
            self._file.write(np.stack(self._rows).tobytes())
            self._rows = []

    def _blocks(self) -> Iterator[NDArray[np.uint32]]:
        """All images in order, (up to 256, 3, G) at a time."""
        size = len(self.bins.edges)
        if self._file is not None:
            self._file.seek(0)
            for _ in range((self.images - len(self._rows)) // _BLOCK):
                content = self._file.read(_BLOCK * 3 * size * 4)
                yield np.frombuffer(content, np.uint32).reshape(_BLOCK, 3, size)
        if self._rows:
            yield np.stack(self._rows)

    def extend(self, other: ImageCounts) -> None:
        """Append the images of another instance over the same intervals (made by another process).

        Raises:
            InputError: the intervals differ.
        """
        if other.bins.level != self.bins.level or not np.array_equal(other.bins.edges, self.bins.edges):
            raise InputError("image counts can only be joined when both were made with the same bins")
        for block in other._blocks():
            for row in block:
                self._append(row)

    def weighted(self, draws: NDArray[np.integer]) -> tuple[NDArray[np.float64], ...]:
        """(positives, negatives, region weights), each (B, G) ascending, of images repeated `draws` (B, n) times."""
        sums = tuple(np.zeros((len(draws), len(self.bins.edges))) for _ in range(3))
        start = 0
        for block in self._blocks():  # float64 copies of one block at a time
            repeats = draws[:, start : start + len(block)].astype(np.float64)
            columns = (block[:, 0], block[:, 1], np.ascontiguousarray(block[:, 2]).view(np.float32))
            for column, total in zip(columns, sums, strict=True):
                total += repeats @ column.astype(np.float64)
            start += len(block)
        return sums

    def bounds(self) -> dict[str, tuple[float, float]]:
        """(lower, upper) around the exact figures of all images, as far as the intervals leave them open."""
        pooled = [sums[0, ::-1] for sums in self.weighted(np.ones((1, self.images), dtype=np.int64))]
        return ranges(pooled[0], pooled[1], pooled[2], self.bins.mixed[::-1])


def join(parts: Sequence[ImageCounts]) -> ImageCounts:
    """All images of several parts over the same intervals, in their order."""
    if not parts:
        raise InputError("there are no image counts to join")
    joined = ImageCounts(parts[0].bins)
    for part in parts:
        joined.extend(part)
    return joined
