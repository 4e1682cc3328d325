"""Maps, previews and masks of a run folder as picture files, and maps read back from them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from headclip.data.levels import MAP_MAXIMUM
from headclip.runs.files import RunFolderError

MOST_PIXELS = 1 << 30  # of a map or mask that is read back
PREVIEW_SIDE = 1024  # pixels of the longest side of previews and overlays


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
        return read_png(path).astype(np.uint16)
    except (OSError, SyntaxError, ValueError) as error:
        raise RunFolderError(f"cannot read the map {path}: {error}; --resume makes it again") from error


def read_png(path: Path) -> NDArray[Any]:
    """The (H, W) values of a picture that the run wrote: Pillow's own limit is far below what `--max-pixels` allows.

    Raises:
        OSError, SyntaxError, ValueError: it is missing or damaged, or has more than MOST_PIXELS.
    """
    with path.open("rb") as stream, PngImagePlugin.PngImageFile(stream) as image:
        if image.width * image.height > MOST_PIXELS:  # before they are unpacked: run folders come from others too
            raise ValueError(f"{image.width:,} x {image.height:,} pixels are more than {MOST_PIXELS:,}")
        return np.asarray(image)


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
