"""Regions: the connected parts of a map above a threshold, as an inspector would point at them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headclip.data.levels import MAP_MAXIMUM, quantise
from headclip.errors import InputError
from headclip.judgement.outlines import Ring, outline, simplify

MAXIMUM = MAP_MAXIMUM
EXTENT = 0.02  # share of an image that a normal one may show where regions are drawn generously
TOLERANCE = 0.75  # pixels; a staircase along a diagonal deviates by 0.71 from a straight line
_EIGHT = np.ones((3, 3), dtype=np.int8)


@dataclass(frozen=True)
class RegionRules:
    """Which regions count.

    min_area: smaller regions (in pixels of the image) are dropped. ignore_border: a frame of so many pixels along
    the edges of the image is not looked at; a region that reaches into it is cut there.
    """

    min_area: int = 1
    ignore_border: int = 0

    def __post_init__(self) -> None:
        if self.min_area < 1:
            raise InputError(f"smallest region of {self.min_area} pixels: at least 1 is needed")
        if self.ignore_border < 0:
            raise InputError(f"border of {self.ignore_border} pixels: at least 0 is needed")

    def covers(self, other: RegionRules) -> bool:
        """Whether no region is found by these rules that is not found by `other`, at the same threshold."""
        return self.min_area >= other.min_area and self.ignore_border >= other.ignore_border


@dataclass(frozen=True)
class Region:
    """One connected region; pixels that touch by a corner belong together (8-connectivity).

    Coordinates are pixels of the image, x to the right, y down; a pixel (x, y) covers the square from its upper left
    corner (x, y) to (x + 1, y + 1).

    Attributes:
        number: from 1, the region with the highest peak first.
        area: pixels. area_mm2: square millimetres where the pixel pitch is known.
        box: (left, top, width, height), pixels. box_mm: (width, height) in millimetres.
        polygon: the outer outline, ((x, y), ...), not repeated at the end; at most `TOLERANCE` pixels from the exact
            outline along the pixels' edges. holes: the outlines of what it leaves out.
        peak: highest map value in it, in [0, 1]; peak_at: the centre (x, y) of that pixel. mean: mean map value.
    """

    number: int
    area: int
    box: tuple[int, int, int, int]
    polygon: Ring
    holes: tuple[Ring, ...]
    peak: float
    peak_at: tuple[float, float]
    mean: float
    area_mm2: float | None = None
    box_mm: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-able; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Region:
        """What `to_json` wrote, after a way through JSON or not."""
        rings = {"polygon": _ring(values["polygon"]), "holes": tuple(_ring(ring) for ring in values["holes"])}
        pairs = {key: None if values[key] is None else tuple(values[key]) for key in ("box", "peak_at", "box_mm")}
        return cls(**{**values, **rings, **pairs})


def find_regions(
    anomaly_map: NDArray[Any],
    threshold: float,
    rules: RegionRules | None = None,
    *,
    pixel_mm: float | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[Region, ...]:
    """The regions of a map above a threshold, the highest peak first.

    Args:
        anomaly_map: (H, W) float in [0, 1], rounded here to the 16 bits that run folders keep, or uint16 levels.
        threshold: a pixel belongs to a region when its value is above it.
        rules: which regions count; all by default.
        pixel_mm: side of a pixel in millimetres.
        tolerance: how far, in pixels, outlines may lie from the exact ones along the pixels' edges; 0 gives those.

    Raises:
        InputError: the map is not two-dimensional.

    >>> values = np.zeros((6, 8)); values[1:3, 2:5] = 0.5; values[2, 3] = 0.8
    >>> region, = find_regions(values, 0.4)
    >>> region.area, region.box, region.polygon, round(region.peak, 3)
    (6, (2, 1, 3, 2), ((2.0, 1.0), (5.0, 1.0), (5.0, 3.0), (2.0, 3.0)), 0.8)
    """
    rules = rules or RegionRules()
    levels = as_levels(anomaly_map)
    mask = _above(levels, threshold, rules)
    part = _extent(mask)
    if part is None:
        return ()
    labels, count = ndimage.label(mask[part], structure=_EIGHT)
    areas = np.bincount(labels.ravel(), minlength=count + 1)  # (count + 1,), background first
    found = []
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        if areas[index] >= rules.min_area:
            place = (_moved(box[0], part[0].start), _moved(box[1], part[1].start))
            found.append(_measure(levels[place], labels[box] == index, place, tolerance))
    found.sort(key=lambda region: (-region.peak, -region.area, region.box))
    return tuple(_finished(number, region, pixel_mm) for number, region in enumerate(found, start=1))


def region_mask(anomaly_map: NDArray[Any], threshold: float, rules: RegionRules | None = None) -> NDArray[np.bool_]:
    """(H, W) bool: the pixels of all regions that `find_regions` would list."""
    rules = rules or RegionRules()
    mask = _above(as_levels(anomaly_map), threshold, rules)
    if rules.min_area == 1:
        return mask
    labels, count = ndimage.label(mask, structure=_EIGHT)
    return (np.bincount(labels.ravel(), minlength=count + 1) >= rules.min_area)[labels] & mask


def region_level(anomaly_map: NDArray[Any], rules: RegionRules | None = None) -> float:
    """The least threshold at which a map shows no region, in [0, 1]: its maximum, where every region counts.

    With a smallest area A it is the highest value at which a connected part of A pixels still stands out; lowering
    the threshold can only make parts grow and join, so there is one such value, found by bisection over the map's
    levels. 0 where no threshold shows a region.

    >>> values = np.zeros((6, 8)); values[1:3, 2:5] = 0.4; values[2, 3] = 0.8
    >>> [round(region_level(values, RegionRules(area)), 4) for area in (1, 2, 7, 49)]
    [0.8, 0.4, 0.0, 0.0]
    """
    rules = rules or RegionRules()
    levels = _inner(as_levels(anomaly_map), rules)
    if levels.size < rules.min_area:
        return 0.0
    if rules.min_area == 1:
        return float(levels.max()) / MAXIMUM
    # The region has min_area pixels, so it is gone at the min_area-th highest value at the latest.
    flat = levels.ravel()
    least, most = 0, int(np.partition(flat, flat.size - rules.min_area)[flat.size - rules.min_area])
    while least < most:  # the answer lies in [least, most]
        middle = (least + most) // 2
        if _largest(levels > middle) >= rules.min_area:
            least = middle + 1
        else:
            most = middle
    return least / MAXIMUM


def extent_level(anomaly_map: NDArray[Any], rules: RegionRules | None = None) -> float:
    """The least threshold that no more than a share `EXTENT` of a map's pixels exceeds, in [0, 1].

    Pixels of value 0 do not count: outside a region of interest nothing was looked at.

    >>> values = np.full((10, 10), 0.1); values[1, 2:5] = [0.8, 0.6, 0.4]  # the third of a hundred is out
    >>> round(extent_level(values), 4)
    0.4
    """
    levels = _inner(as_levels(anomaly_map), rules or RegionRules())
    levels = levels[levels > 0]  # (n,)
    if not levels.size:
        return 0.0
    place = levels.size - 1 - int(EXTENT * levels.size)
    return int(np.partition(levels, place)[place]) / MAXIMUM


def as_levels(anomaly_map: NDArray[Any]) -> NDArray[np.uint16]:
    """(H, W) values in [0, 1] as uint16 levels; levels are given back as they are.

    Raises:
        InputError: another number of dimensions, or a type that is neither.
    """
    if anomaly_map.ndim != 2:
        raise InputError(f"a map has two dimensions, not the shape {anomaly_map.shape}")
    if anomaly_map.dtype == np.uint16:
        return anomaly_map
    if not np.issubdtype(anomaly_map.dtype, np.floating):
        raise InputError(f"a map has values in [0, 1] or uint16 levels, not {anomaly_map.dtype}")
    return quantise(anomaly_map)


def level_above(threshold: float) -> int:
    """The highest 16-bit level that is not above `threshold`; -1 when all are."""
    # The product may fall a hair below a level that was written as level / 65535: rounding puts it back.
    exact = threshold * MAXIMUM
    nearest = round(exact)
    level = nearest if abs(exact - nearest) < 1e-6 else int(np.floor(exact))
    return int(np.clip(level, -1, MAXIMUM))


def _above(levels: NDArray[np.uint16], threshold: float, rules: RegionRules) -> NDArray[np.bool_]:
    level = level_above(threshold)
    mask = levels > np.uint16(level) if level >= 0 else np.ones(levels.shape, bool)
    if rules.ignore_border:
        inner = np.zeros_like(mask)
        _inner(inner, rules)[...] = _inner(mask, rules)
        mask = inner
    return mask


def _extent(mask: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """The rows and columns from the first to the last that hold anything: of a large map often a small part."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    across = slice(int(rows[0]), int(rows[-1]) + 1)
    columns = np.flatnonzero(mask[across].any(axis=0))
    return across, slice(int(columns[0]), int(columns[-1]) + 1)


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _inner(values: NDArray[Any], rules: RegionRules) -> NDArray[Any]:
    """The view without the frame that is not looked at."""
    border = rules.ignore_border
    height, width = values.shape
    return values[border : max(border, height - border), border : max(border, width - border)]


def _largest(mask: NDArray[np.bool_]) -> int:
    """Pixels of the largest connected part."""
    labels, count = ndimage.label(mask, structure=_EIGHT)
    return int(np.bincount(labels.ravel())[1:].max()) if count else 0


def _measure(levels: NDArray[np.uint16], mask: NDArray[np.bool_], box: tuple[slice, slice], tolerance: float) -> Region:
    """One region from the part of the image around it. levels, mask: (h, w)."""
    top, left = box[0].start, box[1].start
    height, width = mask.shape
    values = np.where(mask, levels, 0)
    row, column = divmod(int(values.argmax()), width)
    outer, *holes = outline(mask)
    rings = [_shifted(simplify(ring, tolerance), left, top) for ring in (outer, *holes)]
    area = int(mask.sum())
    return Region(
        number=0,
        area=area,
        box=(left, top, width, height),
        polygon=rings[0],
        holes=tuple(rings[1:]),
        peak=int(values[row, column]) / MAXIMUM,
        peak_at=(left + column + 0.5, top + row + 0.5),
        mean=float(values.sum(dtype=np.int64)) / area / MAXIMUM,
    )


def _finished(number: int, region: Region, pixel_mm: float | None) -> Region:
    values = asdict(region) | {"number": number}
    if pixel_mm is not None:
        values["area_mm2"] = region.area * pixel_mm**2
        values["box_mm"] = (region.box[2] * pixel_mm, region.box[3] * pixel_mm)
    return Region(**values)


def _shifted(ring: NDArray[np.float64], left: int, top: int) -> Ring:
    return tuple((float(x) + left, float(y) + top) for x, y in ring)


def _ring(points: Any) -> Ring:
    return tuple((float(x), float(y)) for x, y in points)
