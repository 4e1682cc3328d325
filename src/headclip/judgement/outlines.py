"""Outlines of pixel sets: exact rings along the pixels' edges, and the same with fewer corners.

A ring is closed without repeating its first point. Its points are corners of pixels: pixel (x, y) covers
[x, x + 1] x [y, y + 1], y down.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ring = tuple[tuple[float, float], ...]
Points = NDArray[np.float64]


def outline(mask: NDArray[np.bool_]) -> list[Points]:
    """The boundary of a set of pixels that is connected by edges or corners.

    Every corner of the boundary has one horizontal and one vertical neighbour. Along a grid line, corners pair up
    in order: a boundary that begins must end. Where two pixels meet at a corner alone, the corner counts twice and
    its halves are joined so that the two pixels stay connected (8-connectivity).

    Returns:
        Rings as (k, 2) corner points (x, y), k >= 4: the outer one first, clockwise as seen with y down (positive
        shoelace area), then the holes, counter-clockwise. An outer ring may touch itself at a corner. The signed
        areas sum to the number of pixels.
    """
    x, y, horizontal, vertical = _linked_corners(mask)
    rings = []
    unseen = np.ones(len(x), dtype=bool)
    next_h, next_v = horizontal.tolist(), vertical.tolist()
    for start in range(len(x)):
        if not unseen[start]:
            continue
        ring = []
        corner = start
        while True:
            across = next_h[corner]
            ring += [corner, across]
            corner = next_v[across]
            if corner == start:
                break
        unseen[ring] = False
        points = np.stack([x[ring], y[ring]], axis=1).astype(np.float64)  # (k, 2)
        rings.append(_oriented(points, mask))
    return sorted(rings, key=lambda points: -signed_area(points))


def signed_area(points: Points) -> float:
    """The shoelace area of a ring of (k, 2) points; positive when clockwise as seen with y down."""
    x, y = points[:, 0], points[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y)) / 2.0


def simplify(points: Points, tolerance: float) -> Points:
    """Leave out corners such that no point of the ring lies farther than `tolerance` from the rest.

    Douglas and Peucker (1973), on the two halves between a point and the one farthest from it. A ring that would
    collapse to fewer than three corners is kept as it is.
    """
    if tolerance <= 0 or len(points) <= 4:
        return points
    first = int(np.lexsort((points[:, 1], points[:, 0]))[0])  # an extreme point always is a corner
    ring = np.roll(points, -first, axis=0)
    far = int(((ring - ring[0]) ** 2).sum(axis=1).argmax())
    closed = np.vstack([ring, ring[:1]])
    kept = np.zeros(len(closed), dtype=bool)
    kept[[0, far]] = True
    pending = [(0, far), (far, len(closed) - 1)]
    while pending:
        start, end = pending.pop()
        if end - start < 2:
            continue
        distances = _distances(closed[start + 1 : end], closed[start], closed[end])
        worst = int(distances.argmax())
        if distances[worst] > tolerance:
            middle = start + 1 + worst
            kept[middle] = True
            pending += [(start, middle), (middle, end)]
    result = ring[kept[:-1]]
    return result if len(result) >= 3 else points


def _linked_corners(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], ...]:
    """Corners (x, y) of the boundary, and for each the index of its partner along the row and the column line."""
    padded = np.pad(mask, 1)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]  # (H + 1, W + 1) each
    odd = nw ^ ne ^ sw ^ se
    falling = nw & se & ~ne & ~sw  # two pixels that meet at this corner alone: \
    rising = ne & sw & ~nw & ~se  # /
    # One corner belongs to a horizontal edge on its left or right and a vertical one above or below. Where two
    # meet, the one half ends the left edge, the other begins the right one; for \ the boundary goes round the
    # upper right and the lower left background pixel: left with below, right with above. For / the other way.
    single = _points(odd)
    down, up = _points(falling), _points(rising)
    x = np.concatenate([single[1], down[1], down[1], up[1], up[1]])
    y = np.concatenate([single[0], down[0], down[0], up[0], up[0]])
    sizes = [len(single[0]), len(down[0]), len(down[0]), len(up[0]), len(up[0])]
    in_row = np.repeat([0, 0, 1, 0, 1], sizes)  # left edge first
    in_column = np.repeat([0, 1, 0, 0, 1], sizes)  # upper edge first
    return x, y, _pairs(np.lexsort((in_row, x, y))), _pairs(np.lexsort((in_column, y, x)))


def _points(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], ...]:
    return np.nonzero(mask)


def _pairs(order: NDArray[np.intp]) -> NDArray[np.intp]:
    """partner[i]: corners that follow each other in `order` by two belong together."""
    partner = np.empty_like(order)
    partner[order[0::2]] = order[1::2]
    partner[order[1::2]] = order[0::2]
    return partner


def _oriented(points: Points, mask: NDArray[np.bool_]) -> Points:
    """Pixels of the set on the right-hand side of every edge, in the direction of travel with y down."""
    (x, y), (end, _) = points[0].astype(int), points[1].astype(int)  # a ring starts with a horizontal edge
    column = min(x, end)
    below = y < mask.shape[0] and bool(mask[y, column])
    return points if below == (end > x) else points[::-1]


def _distances(points: Points, start: Points, end: Points) -> NDArray[np.float64]:
    """Distance of (k, 2) points from the segment start-end."""
    along = end - start
    length = float(along @ along)
    offset = points - start  # (k, 2)
    share = np.clip(offset @ along / length, 0.0, 1.0) if length else np.zeros(len(points))
    rest = offset - share[:, None] * along
    return np.sqrt((rest**2).sum(axis=1))
