"""Pictures for the page, made on request from a run's files: small ones, full ones, and maps with all their values."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headclip.data.decode import decode
from headclip.runs.files import RunFolderError
from headclip.runs.overlay import Scale, resize_map
from headclip.runs.pictures import read_levels

THUMBNAIL_SIDE = 288
HEAT_SIDE = 144  # maps are smooth, and are drawn over the thumbnail by the browser
MAP_SIDE = 1536  # longest side of a map on the page; verdicts and regions use the map itself
FULL_SIDE = 4096  # longest side of the zoomable picture
_LEVELS = 65535


class Cache:
    """Bytes that were asked for lately, up to `size` bytes together."""

    def __init__(self, size: int = 64 * 1024 * 1024) -> None:
        self._size = size
        self._used = 0
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """What is kept under `key`, or what `make` gives."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        content = make()  # outside the lock: two at a time may make the same, which does no harm
        with self._lock:
            if key not in self._kept:
                self._kept[key] = content
                self._used += len(content)
            while self._used > self._size:
                _, dropped = self._kept.popitem(last=False)
                self._used -= len(dropped)
        return content


def thumbnail(preview: Path) -> bytes:
    """A JPEG of at most THUMBNAIL_SIDE pixels a side.

    Raises:
        RunFolderError: the preview is missing or damaged.
    """
    try:
        with Image.open(preview, formats=["JPEG"]) as image:
            image.draft("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))  # the decoder itself reduces, which is faster
            small = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RunFolderError("the preview of this image is missing or damaged; --resume makes it again") from error
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
    return _encode(small, "JPEG", quality=80)


def heat(map_file: Path, scale: Scale) -> bytes:
    """A map as a small 8-bit grey PNG: 0 to 255 for the run's scale."""
    normalised = scale.normalise((read_levels(map_file) / np.float32(_LEVELS)).astype(np.float32))
    height, width = normalised.shape
    ratio = min(1.0, HEAT_SIDE / max(height, width))
    small = resize_map(normalised, (max(1, round(width * ratio)), max(1, round(height * ratio))))
    return _encode(Image.fromarray(np.rint(255.0 * small).astype(np.uint8)), "PNG", compress_level=6)


def packed_map(map_file: Path) -> bytes:
    """A map as an RGB PNG, its high byte in red and its low byte in green: browsers read 8 bits a channel only."""
    levels = read_levels(map_file)
    height, width = levels.shape
    ratio = min(1.0, MAP_SIDE / max(height, width))
    if ratio < 1.0:
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        small = resize_map((levels / np.float32(_LEVELS)).astype(np.float32), size)
        levels = np.rint(small * np.float32(_LEVELS)).astype(np.uint16)
    return _encode(Image.fromarray(_packed(levels)), "PNG", compress_level=3)


def full_picture(source: Path, max_pixels: int) -> bytes:
    """The image file as a JPEG, whatever its format, never as it is: browsers get nothing that we did not encode.

    Raises:
        ImageError: the file cannot be decoded.
    """
    image = Image.fromarray(decode(source, max_pixels=max_pixels))
    image.thumbnail((FULL_SIDE, FULL_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return _encode(image, "JPEG", quality=92)


def _packed(levels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """(H, W) levels -> (H, W, 3) bytes: high, low, 0."""
    packed = np.zeros((*levels.shape, 3), np.uint8)
    packed[..., 0] = levels >> 8
    packed[..., 1] = levels & 255
    return packed


def _encode(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
