"""Copies among the images of a calibration, and calibration images among those that are judged by it.

A promise counts images: each stands for one independent look at the line. An image that is there twice counts for
two and says no more than one, so exact copies count once. A judged image that was calibrated on is no future image:
the promise does not speak of it, and figures on it flatter.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headclip.files import content_hash

NEAR_SCORE = 0.005
NEAR_CORRELATION = 0.9995
_SIDE = 32
_NEIGHBOURS = 64  # by score, that each image is compared with
_FLAT = 0.5  # grey levels of standard deviation below which there is nothing to compare
_DIGITS = 16


def exact_copies(contents: Mapping[str, Hashable]) -> dict[str, str]:
    """Name -> the first name with the same content, for every image that comes again.

    >>> exact_copies({"a": "1", "b": "2", "c": "1"})
    {'c': 'a'}
    """
    first: dict[Hashable, str] = {}
    return {name: first[content] for name, content in contents.items() if first.setdefault(content, name) != name}


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) uint8 -> (32 * 32,) grey means without their own mean, of unit length; zeros for a flat picture."""
    grey = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, np.float32).ravel()
    values = values - values.mean()
    return values / np.float32(np.linalg.norm(values)) if values.std() >= _FLAT else np.zeros_like(values)


def near_copies(scores: Sequence[float], thumbnails: Sequence[NDArray[np.float32]]) -> list[tuple[int, int]]:
    """(i, j) with i < j for images that look alike and score alike: the same picture saved again, or frames of one
    part. At most one pair for each j.

    Alike: scores within NEAR_SCORE, thumbnails that correlate by NEAR_CORRELATION or more.
    """
    if len(scores) < 2:
        return []
    order = np.argsort(scores, kind="stable")
    values, looks = np.asarray(scores)[order], np.stack(thumbnails)[order]  # (n,), (n, 1024)
    found: dict[int, int] = {}
    for step in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
        close = values[step:] - values[:-step] <= NEAR_SCORE
        if not close.any():
            break
        alike = np.einsum("nd,nd->n", looks[step:], looks[:-step]) >= NEAR_CORRELATION
        for place in np.flatnonzero(close & alike):
            i, j = sorted((int(order[place]), int(order[place + step])))
            found[j] = min(i, found.get(j, i))
    return sorted((i, j) for j, i in found.items())


def file_mark(size: int, sha256: str) -> str:
    """What a calibration keeps of an image file: its size in bytes and the start of its hash."""
    return f"{size}:{sha256[:_DIGITS]}"


def path_mark(path: Path) -> str | None:
    """`file_mark` of a file; None where it cannot be read."""
    sha256 = content_hash(path)
    return None if sha256 is None else file_mark(path.stat().st_size, sha256)


def calibrated_on(data: Mapping[str, Any], files: Iterable[Path]) -> list[Path]:
    """The files that a calibration was made on, by its `data`. Only files of a size that it knows are read."""
    marks = {str(mark) for mark in data.get("files") or ()}
    sizes = {mark.partition(":")[0] for mark in marks}
    found = []
    for path in files if marks else ():
        try:
            known = str(path.stat().st_size) in sizes
        except OSError:
            continue
        if known and path_mark(path) in marks:
            found.append(path)
    return found
