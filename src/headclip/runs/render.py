"""From the maps and previews of a run folder to its overlays and the small pictures of the report."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headclip.data.levels import MAP_MAXIMUM
from headclip.runs.files import RunFolderError, overlay_file, preview_file, write_atomic
from headclip.runs.overlay import LevelHistogram, Scale, resize_map, tint
from headclip.runs.pictures import read_levels
from headclip.runs.run import Row

THUMBNAIL_SIDE = 256
_WORKERS = 2
_A = TypeVar("_A")
_B = TypeVar("_B")


@dataclass(frozen=True)
class Thumbnail:
    """Two small pictures as data URIs: the image, and its map on the run's scale as grey values."""

    image: str
    map: str


class Thumbnails(Mapping[str, Thumbnail]):
    """Thumbnails by image name, kept in a temporary file: those of a large run would fill the memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="headclip-thumbnails-")  # noqa: SIM115 - closed with the object
        self._places: dict[str, tuple[int, int, int]] = {}

    def add(self, name: str, thumbnail: Thumbnail) -> None:
        """Keep one more."""
        start = self._file.seek(0, io.SEEK_END)
        lengths = [self._file.write(text.encode("ascii")) for text in (thumbnail.image, thumbnail.map)]
        self._places[name] = (start, lengths[0], lengths[1])

    def __getitem__(self, name: str) -> Thumbnail:
        start, first, second = self._places[name]
        self._file.seek(start)
        return Thumbnail(self._file.read(first).decode("ascii"), self._file.read(second).decode("ascii"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def count_sound(folder: Path, rows: Sequence[Row], histogram: LevelHistogram) -> list[Row]:
    """Add the maps of judged `rows` to `histogram`; return the rows whose map or preview is missing or damaged.

    The files were whole when they were put on record; a power failure or a hand may have changed that since.
    """
    damaged = []
    for row, levels in zip(rows, in_threads(partial(_sound_levels, folder), rows), strict=True):
        if levels is None:
            damaged.append(row)
        else:
            histogram.update(levels)
    return damaged


def _sound_levels(folder: Path, row: Row) -> NDArray[np.uint16] | None:
    try:
        levels = read_levels(folder / (row.map or ""))
        _read_preview(folder / preview_file(row.path))
    except RunFolderError:
        return None
    return levels if levels.shape == (row.height, row.width) else None


def render_overlays(
    folder: Path,
    rows: Sequence[Row],
    scale: Scale,
    with_thumbnail: set[str],
    on_done: Callable[[str], None] = lambda name: None,
) -> Mapping[str, Thumbnail]:
    """Write the overlay of every row; return the thumbnails of those named in `with_thumbnail`.

    Raises:
        RunFolderError: a map or preview is missing or damaged, or an overlay cannot be written.
    """
    thumbnails = Thumbnails()
    render = partial(_render, folder, scale, with_thumbnail)
    for row, thumbnail in zip(rows, in_threads(render, rows), strict=True):
        if thumbnail is not None:
            thumbnails.add(row.path, thumbnail)
        on_done(row.path)
    return thumbnails


def make_thumbnails(folder: Path, rows: Sequence[Row], scale: Scale) -> dict[str, Thumbnail]:
    """The small pictures of `rows` alone; no file is written.

    Raises:
        RunFolderError: a map or preview is missing or damaged.
    """
    pictures = in_threads(partial(_open, folder, scale), rows)
    return {row.path: _thumbnail(*pair) for row, pair in zip(rows, pictures, strict=True)}


def _open(folder: Path, scale: Scale, row: Row) -> tuple[Image.Image, NDArray[np.float32]]:
    """The preview, and the map on the run's scale, (H, W) in [0, 1]."""
    if row.map is None:
        raise RunFolderError(f"{row.path} has no map: {row.reason}")
    levels = read_levels(folder / row.map)
    normalised = scale.normalise(np.divide(levels, MAP_MAXIMUM, dtype=np.float32))
    return _read_preview(folder / preview_file(row.path)), normalised


def _render(folder: Path, scale: Scale, with_thumbnail: set[str], row: Row) -> Thumbnail | None:
    preview, normalised = _open(folder, scale, row)
    write_atomic(folder, overlay_file(row.path), _jpeg(tint(preview, normalised), 88))
    return _thumbnail(preview, normalised) if row.path in with_thumbnail else None


def _read_preview(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RunFolderError(f"cannot read {path}: {error}; --resume makes it again") from error


def _thumbnail(preview: Image.Image, normalised: NDArray[np.float32]) -> Thumbnail:
    small = preview.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
    grey = Image.fromarray(np.rint(255.0 * resize_map(normalised, small.size)).astype(np.uint8))
    return Thumbnail(_data_uri(_jpeg(small, 80, True)), _data_uri(_jpeg(grey, 85, True)))


def _jpeg(image: Image.Image, quality: int, optimize: bool = False) -> bytes:
    """optimize: a second pass for Huffman tables of its own, some per cent smaller."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=optimize)
    return buffer.getvalue()


def _data_uri(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def in_threads(function: Callable[[_A], _B], items: Sequence[_A]) -> Iterator[_B]:
    """`map` in a few threads, in order, with few results waiting (Pillow works outside Python's lock)."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        remaining = iter(items)
        running = [pool.submit(function, item) for item in islice(remaining, 4 * _WORKERS)]
        try:
            while running:
                yield running.pop(0).result()
                running += [pool.submit(function, item) for item in islice(remaining, 1)]
        finally:
            for future in running:
                future.cancel()
