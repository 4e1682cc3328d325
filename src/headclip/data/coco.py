"""COCO annotations as masks: polygons and run lengths, with no other library.

Run lengths count pixels column by column and start with the normal ones; compressed ones are the text form of
the COCO tools (groups of five bits, from the fourth count on as differences to the count two before).
Coordinates of polygons are edges of pixels, not their centres; see `polygons`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.layouts import NORMAL_NAMES
from headclip.data.polygons import add_polygon
from headclip.data.reading import Reading
from headclip.errors import ImageError, InputError

_FARTHEST = 1e9  # pixels; no image is as wide, and a number that is none is not below it either


@dataclass(frozen=True)
class CocoOutline:
    """The regions of one image: polygons ([x, y, x, y, ...] lists) and run lengths, united."""

    height: int
    width: int
    segmentations: tuple[Any, ...]

    def draw(self) -> NDArray[np.bool_]:
        """(height, width) bool.

        Raises:
            ImageError: a region is damaged, or the size is not that of an image.
        """
        if min(self.height, self.width) < 1 or self.height * self.width > DEFAULT_MAX_PIXELS:
            raise ImageError(f"the annotations are for an image of {self.height:,} x {self.width:,} pixels")
        try:
            return self._draw()
        except ImageError:
            raise
        except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
            raise ImageError(f"a segmentation is damaged: {type(error).__name__} {error}") from error

    def _draw(self) -> NDArray[np.bool_]:
        mask = np.zeros((self.height, self.width), dtype=np.bool_)
        for segmentation in self.segmentations:
            if isinstance(segmentation, Mapping):
                run = decode_runs(segmentation)
                if run.shape != mask.shape:
                    raise ImageError(f"run lengths for {run.shape} pixels do not fit an image of {mask.shape}")
                mask |= run
                continue
            for polygon in segmentation:
                add_polygon(mask, _corners(polygon))
        return mask


def _corners(polygon: Sequence[Any]) -> NDArray[np.float64]:
    """(k, 2) points of a flat list x, y, x, y, ..."""
    if len(polygon) < 6 or len(polygon) % 2:
        raise ImageError(f"a polygon of {len(polygon)} numbers is not an outline; 6 or more are needed")
    corners = np.array([float(value) for value in polygon]).reshape(-1, 2)
    if not (np.abs(corners) < _FARTHEST).all():
        raise ImageError("a polygon has coordinates that are none")
    return corners


def decode_runs(segmentation: Mapping[str, Any]) -> NDArray[np.bool_]:
    """A run-length mask, {"size": [height, width], "counts": list or text}, as (height, width) bool.

    Raises:
        ImageError: the counts do not fill the size exactly.

    >>> decode_runs({"size": [2, 3], "counts": [1, 2, 3]}).astype(int).tolist()
    [[0, 1, 0], [1, 0, 0]]
    """
    height, width = (int(side) for side in segmentation["size"])
    if min(height, width) < 1 or height * width > DEFAULT_MAX_PIXELS:
        raise ImageError(f"run lengths for {height:,} x {width:,} pixels")
    counts = segmentation["counts"]
    runs = _unpack(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ImageError(f"the run lengths do not add up to {height} x {width} pixels")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)  # (height * width,), column by column
    return values.reshape(width, height).T


def is_coco(content: Any) -> bool:
    """Whether a JSON document has the two parts of a COCO file."""
    return isinstance(content, dict) and "images" in content and "annotations" in content


def read_coco(reading: Reading, content: Mapping[str, Any], base: Path) -> None:
    """Add the images of a COCO document; those without an annotation are normal.

    An image is looked for at its file name below `base`, then in `base/images/`. Annotations of a category
    called good, ok or normal are not anomalies. The last name of a category is the record's defect.

    Raises:
        InputError: the document lacks a field.
    """
    try:
        names = {row["id"]: str(row["name"]) for row in content.get("categories", [])}
        regions: dict[Any, list[Mapping[str, Any]]] = {}
        for row in content["annotations"]:
            if names.get(row.get("category_id"), "").casefold() not in NORMAL_NAMES:
                regions.setdefault(row["image_id"], []).append(row)
        for image in content["images"]:
            _add_image(reading, image, regions.pop(image["id"], []), names, base)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"the COCO file in {base} lacks a field: {type(error).__name__} {error}") from None
    for number in regions:
        reading.problem("mask without image", f"annotations name the image id {number}, which is not in the list")


def _add_image(
    reading: Reading,
    image: Mapping[str, Any],
    regions: Sequence[Mapping[str, Any]],
    names: Mapping[Any, str],
    base: Path,
) -> None:
    places = [base / image["file_name"], base / "images" / image["file_name"]]
    path = next((place for place in places if os.path.isfile(place)), None)  # noqa: PTH113 - any text is taken
    if path is None:
        reading.error("missing image", f"the image {places[0]} does not exist", places[0])
        return
    category = reading.root.resolve().name
    if not regions:
        reading.add(path, 0, None, category)
        return
    defect = names.get(regions[0].get("category_id"), "")
    shapes = tuple(row["segmentation"] for row in regions if row.get("segmentation"))
    if len(shapes) < len(regions):
        where = f"{reading.shown(path)} has {len(regions) - len(shapes)} annotation(s) without a segmentation"
        reading.error("image without mask", where, path)
    outline = CocoOutline(int(image["height"]), int(image["width"]), shapes) if shapes else None
    reading.add(path, 1, None, category, defect, outline)


def _unpack(text: str) -> list[int]:
    """The counts of compressed run lengths."""
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            if position == len(text):
                raise ImageError("compressed run lengths end too early")
            bits = ord(text[position]) - 48
            value |= (bits & 0x1F) << shift
            more = bool(bits & 0x20)
            if not 0 <= bits < 64 or shift > 30:
                raise ImageError("compressed run lengths hold what is none")
            position, shift = position + 1, shift + 5
            if not more and bits & 0x10:
                value -= 1 << shift  # the sign of a negative difference
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts
