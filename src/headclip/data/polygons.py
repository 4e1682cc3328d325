"""Polygons as masks. Coordinates are those of COCO: pixel (x, y) covers [x, x + 1] x [y, y + 1], y down.

A pixel is inside where its centre is, by the even-odd rule, as the COCO tools have it up to their rounding to fifths of
a pixel. (Pillow takes coordinates for centres and fills the edge as well: a box grows by a pixel on two sides.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.float64]
_AT_ONCE = 1 << 20  # crossings of edges and rows that are held at the same time


def add_polygon(mask: NDArray[np.bool_], corners: Corners) -> None:
    """Set the pixels of a polygon in `mask`, (H, W). What lies beyond the image is cut off.

    A polygon too thin to hold any pixel's centre gets the pixels that it runs through: a hair is not nothing.

    Args:
        corners: (k, 2) points (x, y), finite; not so large that their differences are not.

    >>> mask = np.zeros((4, 6), dtype=bool)
    >>> add_polygon(mask, np.array([[2.0, 1.0], [5.0, 1.0], [5.0, 3.0], [2.0, 3.0]]))
    >>> int(mask.sum())
    6
    """
    height, width = mask.shape
    low, high = corners.min(axis=0), corners.max(axis=0)
    left, top = np.clip(np.floor(low), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(high), 0, (width, height)).astype(int)
    inside = _fill(corners - (left, top), (bottom - top, right - left))
    mask[top:bottom, left:right] |= inside
    if not inside.any():
        x, y = _along(corners, 4 * (height + width))
        seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        mask[y[seen], x[seen]] = True


def _fill(corners: Corners, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) bool: the pixels whose centres have an odd number of edges to their left."""
    height, width = size
    turns = np.zeros((height, width + 1), dtype=np.bool_)  # where a row, seen from the left, enters or leaves
    (x, y), (x_end, y_end) = corners.T, np.roll(corners, -1, axis=0).T
    first = np.clip(np.ceil(np.minimum(y, y_end) - 0.5), 0, height).astype(np.int64)
    stop = np.clip(np.ceil(np.maximum(y, y_end) - 0.5), 0, height).astype(np.int64)
    rows = stop - first  # that each edge crosses
    groups = np.cumsum(rows) // _AT_ONCE
    for group in np.unique(groups):
        edges = np.flatnonzero((groups == group) & (rows > 0))
        edge = np.repeat(edges, rows[edges])
        row = np.arange(len(edge)) - np.repeat(np.cumsum(rows[edges]) - rows[edges], rows[edges]) + first[edge]
        share = (row + 0.5 - y[edge]) / (y_end[edge] - y[edge])
        column = np.ceil(x[edge] + share * (x_end[edge] - x[edge]) - 0.5)
        np.logical_xor.at(turns, (row, np.clip(column, 0, width).astype(np.int64)), True)
    return np.logical_xor.accumulate(turns, axis=1)[:, :width]


def _along(corners: Corners, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows of pixels that the edges run through, looked at every half pixel, `most` times an edge.

    The right and the lower end belong to the pixels before them.
    """
    ends = np.roll(corners, -1, axis=0)
    counts = np.minimum(np.ceil(2 * np.abs(ends - corners).max(axis=1)) + 1, most).astype(np.int64)
    edge = np.repeat(np.arange(len(corners)), counts)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = (step / np.maximum(counts - 1, 1)[edge])[:, None]
    points = corners[edge] + share * (ends - corners)[edge]  # (n, 2)
    low, high = corners.min(axis=0), corners.max(axis=0)
    points = np.where(high > low, np.minimum(points, np.nextafter(high, low)), points)
    x, y = np.floor(points).clip(-1, 2**31).astype(np.int64).T
    return x, y
