"""Names and formats of the files in a run folder, and how they are written: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import os
import secrets
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headclip.data.run_folder import RUN_JSON as RUN_JSON
from headclip.errors import HeadclipError

JOURNAL = "progress.jsonl"
CSV_TABLE = "results.csv"
PARQUET_TABLE = "results.parquet"
REPORT = "report.html"
REGIONS = "regions.jsonl"
LABELS = "labels.csv"
MARKS = "marks.sqlite"
SHARDS = "shards"
MAPS, OVERLAYS, PREVIEWS, MASKS, TEMPORARY = "maps", "overlays", "previews", "masks", ".tmp"
VOLUMES, SLICES = "volumes", "slices"  # names of tables; the anomaly volumes lie in a folder of the first
OWN_NAMES = frozenset(
    {RUN_JSON, JOURNAL, CSV_TABLE, PARQUET_TABLE, REPORT, REGIONS, LABELS, MARKS, SHARDS}
    | {MAPS, OVERLAYS, PREVIEWS, MASKS, TEMPORARY}
    | {VOLUMES, *(f"{name}.{end}" for name in (VOLUMES, SLICES) for end in ("csv", "parquet"))}
)
"""What a run folder may hold of the run's own."""
PREVIEW_SIDE = 1024  # pixels of the longest side of previews and overlays

MAP_MAXIMUM = 65535
_NAME_BYTES = 255  # longest file name of the common file systems
_counter = itertools.count()
_process = secrets.token_hex(4)  # process ids repeat on machines that share a disk


class RunFolderError(HeadclipError):
    """A run folder cannot be used or written."""


class RunFileNameError(RunFolderError):
    """One file of a run cannot be written because of its name; the others can."""


def map_file(name: str) -> str:
    """Where the map of the image `name` lies below the run folder.

    The image's extension stays in the name, so that `a.png` and `a.jpg` do not meet.

    >>> map_file("shelf/a.jpg")
    'maps/shelf/a.jpg.png'
    """
    return _placed(MAPS, name, ".png")


def overlay_file(name: str) -> str:
    """Where the overlay of the image `name` lies below the run folder."""
    return _placed(OVERLAYS, name, ".jpg")


def preview_file(name: str) -> str:
    """Where the reduced copy of the image `name` lies below the run folder."""
    return _placed(PREVIEWS, name, ".jpg")


def mask_file(name: str) -> str:
    """Where the mask of the regions of the image `name` lies below the run folder, if it has any."""
    return _placed(MASKS, name, ".png")


def volume_file(name: str, extension: str) -> str:
    """Where the anomaly volume of the volume `name` lies below the run folder."""
    return _placed("volumes", name, f".anomaly{extension}")


def write_atomic(folder: Path, name: str, content: bytes) -> None:
    """Put `content` at `folder / name`. Even after a kill, there is the old file, the new one, or none.

    Raises:
        RunFolderError: the file cannot be written; a full disk says so.
    """
    place_file(folder, name, lambda temporary: temporary.write_bytes(content))


def write_pieces(folder: Path, name: str, pieces: Iterable[str]) -> None:
    """`write_atomic` for text that is made on the way."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            handle.writelines(pieces)

    place_file(folder, name, write)


def take_file(source: Path, folder: Path, name: str) -> None:
    """Let `folder / name` have the content of another finished file: a link where the file system can, else a copy.

    The files of a run are only ever replaced, never changed in place, so that a link is as good as a copy.

    Raises:
        RunFolderError: the source is missing, or the file cannot be written.
    """
    if not source.is_file():
        raise RunFolderError(f"{source} is missing; --resume of the run it belongs to makes it again")
    with contextlib.suppress(OSError):
        if (folder / name).samefile(source):
            return
    place_file(folder, name, lambda temporary: _link_or_copy(source, temporary))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


def place_file(folder: Path, name: str, write: Callable[[Path], object]) -> None:
    """Put a file at `folder / name` by letting `write` write it under another name first.

    Raises:
        RunFolderError: it cannot be written.
    """
    target = folder / name
    temporary = folder / TEMPORARY / f"{os.getpid()}-{_process}-{next(_counter)}"
    try:
        for parent in (temporary.parent, target.parent):
            if not parent.is_dir():  # asking is several times cheaper than making what is there
                parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(target)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise RunFileNameError(f"another image's files stand where {name} should be written") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise RunFileNameError(f"the path of {name} is too long for the run folder") from error
        raise RunFolderError(f"cannot write {target}: {error.strerror}; mend that and go on with --resume") from error


def quantise(anomaly_map: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Map values in [0, 1] to [0, 65535]; what lies outside is clipped. Error at most 0.5 / 65535."""
    return np.rint(np.clip(anomaly_map, 0.0, 1.0) * np.float64(MAP_MAXIMUM)).astype(np.uint16)


def encode_map(levels: NDArray[np.uint16]) -> bytes:
    """A (H, W) quantised map as a 16-bit grey PNG.

    Every row is stored as its difference from the one above (filter "up"), which for maps compresses as well as a
    choice of filters row by row, as Pillow makes it, in two thirds of the time; higher levels take several times as
    long, since the low bytes of a smooth map hardly compress.
    """
    height, width = levels.shape
    samples = levels.astype(">u2").view(np.uint8)  # (H, 2 W)
    rows = np.empty((height, 1 + 2 * width), np.uint8)
    rows[:, 0] = 2  # the filter of each row; the row above the first is zero
    rows[0, 1:] = samples[0]
    np.subtract(samples[1:], samples[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.data, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file: length, kind, content, check sum."""
    check = zlib.crc32(content, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(content)), kind, content, struct.pack(">I", check)))


def read_levels(path: Path) -> NDArray[np.uint16]:
    """The (H, W) values in [0, 65535] of a map file.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image).astype(np.uint16)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RunFolderError(f"cannot read the map {path}: {error}; --resume makes it again") from error


def is_sound_map(path: Path) -> bool:
    """Whether a map file is there and can be read to its end."""
    try:
        read_levels(path)
    except RunFolderError:
        return False
    return True


def read_map(path: Path) -> NDArray[np.float32]:
    """The (H, W) anomaly map of a map file, in [0, 1].

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    return (read_levels(path) / np.float64(MAP_MAXIMUM)).astype(np.float32)


def encode_preview(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 as a JPEG of at most PREVIEW_SIDE pixels along the longest side."""
    image = Image.fromarray(pixels)
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    return _encode(image, "JPEG", quality=90)


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """A (H, W) mask as a PNG of one bit: white inside."""
    return _encode(Image.fromarray(mask), "PNG")


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _placed(folder: str, name: str, extension: str) -> str:
    path = PurePosixPath(name)
    last = path.name
    if len(last.encode()) + len(extension) > _NAME_BYTES:
        digest = hashlib.sha256(last.encode()).hexdigest()[:16]
        last = last.encode()[: _NAME_BYTES - 32].decode(errors="ignore") + "~" + digest
    return str(PurePosixPath(folder) / path.parent / (last + extension))
