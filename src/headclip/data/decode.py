"""Files to pixels: all formats (`headclip.data.formats`) become uint8 RGB, and a bad file one clear sentence.

Choices that a reader may want to know:

- The first frame of an animated or many-page file is taken; EXIF orientation is applied.
- Transparency is laid on white, as browsers and printed pages show it.
- Whole numbers of more than 8 bits are scaled by the depth that the data uses: the depth a TIFF states, else
  the smallest of 8, 10, 12, 14 and 16 bits that holds the largest value. Cameras of 10 to 14 bits store their
  values unshifted in 16-bit words, and dividing those by 65,535 would leave a nearly black picture.
- Floating point images in [0, 1], [0, 255] or [0, 65535] are scaled by that range, all others from their own
  smallest to their own largest value. Values that are not finite count as the smallest.
- Pillow reads colour of 16 bits per channel by its upper byte.
"""

from __future__ import annotations

import io
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headclip.data.formats import OPENERS, format_of, why_unreadable
from headclip.errors import ImageError

DEFAULT_MAX_PIXELS = 100_000_000
MIN_SIDE = 8  # pixels; less than one patch of any tower says nothing about an image

_DEPTHS = (8, 10, 12, 14, 16)
_LEAST_RANGE = 1e-300  # of values to be stretched: 255 by less is more than a number holds
INTEGER_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION_TAG = 0x0112
_PHOTOMETRIC_TAG, _SAMPLE_BITS_TAG, _MAX_VALUE_TAG = 262, 258, 281

warnings_lock = threading.Lock()


def decode(
    source: str | Path | bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, background: int = 255
) -> NDArray[np.uint8]:
    """Decode one image file, or the bytes of one, to RGB.

    Args:
        source: a path, or the content of an image file.
        max_pixels: width x height above this is refused from the header, before any pixel is decoded.
        background: grey value in [0, 255] on which transparency is laid.

    Returns:
        (H, W, 3) uint8, sRGB as stored, upright.

    Raises:
        ImageError: the file cannot be read, is no image of a known format, is damaged, or has a refused size.
            The message is one line and does not repeat the path.
    """
    with _open(source) as stream:
        name = _format_of(stream)
        with _decoder_errors(name):
            image = OPENERS[name](stream)
        check_size(image.size, max_pixels)
        with _decoder_errors(name), _quiet_if_large(image.size):
            image.load()
            return to_rgb(image, background=background)


def as_rgb(
    source: str | Path | bytes | Image.Image | NDArray[Any], *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> NDArray[np.uint8]:
    """`decode` for all that a caller may hold: path, bytes, PIL image, array (H, W) or (H, W, 1 to 4).

    Returns:
        (H, W, 3) uint8.

    Raises:
        ImageError: as `decode`, or the array is not an image.

    >>> as_rgb(np.full((8, 10), 1023, dtype=np.uint16))[0, 0].tolist()
    [255, 255, 255]
    """
    if isinstance(source, (str, Path, bytes)):
        return decode(source, max_pixels=max_pixels)
    if isinstance(source, Image.Image):
        check_size(source.size, max_pixels)
        with _decoder_errors("image"):
            source.load()
            return to_rgb(source)
    array = np.asarray(source)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        advice = "its channels seem to come first: .transpose(1, 2, 0)" if first else "give (H, W) or (H, W, 3)"
        raise ImageError(f"an array of shape {array.shape} is not an image; {advice}")
    check_size((array.shape[1], array.shape[0]), max_pixels)
    if array.ndim == 3 and array.shape[2] in (2, 4):
        return _flatten(_to_uint8(array[..., :-1]), _to_uint8(array[..., -1]), 255)
    return _three_channels(_to_uint8(array))


def to_rgb(image: Image.Image, *, background: int = 255) -> NDArray[np.uint8]:
    """The loaded `image`, of any Pillow mode, as upright (H, W, 3) uint8 (see the module's choices)."""
    orientation = _orientation(image)
    if image.mode in INTEGER_MODES:
        pixels = _three_channels(_scale_integers(np.asarray(image), _stated_maximum(image), is_inverted(image)))
    elif image.mode == "F":
        pixels = _three_channels(_scale_floats(np.asarray(image)))
    elif image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))  # (H, W, 4)
        pixels = _flatten(rgba[..., :3], rgba[..., 3], background)
    else:
        pixels = np.asarray(image.convert("RGB"))
    pixels = np.ascontiguousarray(_upright(pixels, orientation))
    return pixels if pixels.flags.writeable else pixels.copy()  # torch warns of read-only arrays


@contextmanager
def _open(source: str | Path | bytes) -> Iterator[IO[bytes]]:
    """A readable stream of a regular, non-empty file; every reason against it is an ImageError."""
    if isinstance(source, bytes):
        if not source:
            raise ImageError("the file is empty (0 bytes)")
        yield io.BytesIO(source)
        return
    path = Path(source)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("this is a folder; give the images in it")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise ImageError("this is not a regular file")
        if status.st_size == 0:
            raise ImageError("the file is empty (0 bytes)")
        stream = path.open("rb")
    except FileNotFoundError:
        raise ImageError("the file does not exist") from None
    except PermissionError:
        raise ImageError("no permission to read the file") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"the file cannot be read: {_reason(error)}") from None
    with stream:
        yield stream


def _format_of(stream: IO[bytes]) -> str:
    """The format that the content (never the name) shows."""
    try:
        head = stream.read(16)
        stream.seek(0)
    except OSError as error:
        raise ImageError(f"the file cannot be read: {_reason(error)}") from None
    name = format_of(head)
    if name not in OPENERS:
        raise ImageError(why_unreadable(name))
    return name


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"{width:,} x {height:,} pixels are {width * height:,}, more than the limit of {max_pixels:,}; "
            f"raise it with --max-pixels (max_pixels in Python)"
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width} x {height} pixels are too few; both sides must have at least {MIN_SIDE}")


@contextmanager
def _decoder_errors(name: str) -> Iterator[None]:
    """Turn whatever a decoder throws into an ImageError; damaged data raises nearly any exception class."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(
            f"the {name} image is larger than Pillow allows; set PIL.Image.MAX_IMAGE_PIXELS to read it"
        ) from None
    except MemoryError:
        raise ImageError("not enough memory to decode the image") from None
    except Exception as error:
        raise ImageError(f"the {name} data is damaged or not supported: {_reason(error)}") from error


@contextmanager
def _quiet_if_large(size: tuple[int, int]) -> Iterator[None]:
    """Silence Pillow's size warning: the caller's limit has spoken. Filters are global, hence the lock."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or size[0] * size[1] <= limit:
        yield
        return
    with warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _reason(error: BaseException) -> str:
    """The first line of an error; of an OSError without number and path."""
    if isinstance(error.__cause__ or error, (struct.error, EOFError, IndexError)):  # Pillow wraps some of them
        return "it ends too early"
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8. A damaged EXIF block is no reason to refuse a picture."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """(H, W, 3) as stored to (H, W, 3) or (W, H, 3) as meant (EXIF 2.32, tag 0x0112)."""
    if orientation >= 5:  # 5 to 8 are 1, 4, 3 and 2 after a transposition
        pixels = pixels.swapaxes(0, 1)
        orientation = {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    if orientation in (2, 3):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4):
        pixels = pixels[::-1]
    return pixels


def _stated_maximum(image: Image.Image) -> int | None:
    """The largest possible value where a TIFF states it: MaxSampleValue, or fewer than 16 bits per sample."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    stated = tags.get(_MAX_VALUE_TAG)
    if isinstance(stated, tuple) and stated:
        stated = stated[0]
    if isinstance(stated, int) and stated > 0:
        return stated
    bits = tags.get(_SAMPLE_BITS_TAG, (16,))
    depth = bits[0] if isinstance(bits, tuple) else bits
    return (1 << depth) - 1 if depth < 16 else None


def is_inverted(image: Image.Image) -> bool:
    """True for a TIFF whose 0 is white, which Pillow inverts for 8 bits only."""
    return getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == 0


def _scale_integers(values: NDArray[Any], maximum: int | None = None, inverted: bool = False) -> NDArray[np.uint8]:
    """Whole numbers to uint8 by the bit depth in use; beyond 16 bits or below 0 by their own range."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        return _stretch(values.astype(np.float64))
    if maximum is None or maximum < high:
        maximum = next((1 << depth) - 1 for depth in _DEPTHS if high < 1 << depth)
    scaled = values.astype(np.float32) * np.float32(255.0 / maximum)
    if inverted:
        scaled = 255.0 - scaled
    return np.rint(scaled).astype(np.uint8)


def _scale_floats(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Floating point to uint8 by the first of the ranges 1, 255 and 65535 that fits, else by its own."""
    finite = np.isfinite(values)
    if not finite.any():
        raise ImageError("no pixel of the image is a finite number")
    low = values[finite].min()
    values = np.where(finite, values, low)
    high = values.max()
    for maximum in (1.0, 255.0, 65535.0):
        if low >= 0.0 and high <= maximum:
            return np.rint(values * (255.0 / maximum)).astype(np.uint8)
    return _stretch(values.astype(np.float64))


def _stretch(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """By the range in use; where all values are equal, there is none, and the image is black."""
    low, high = values.min(), values.max()
    if high - low < _LEAST_RANGE:
        return np.zeros(values.shape, np.uint8)
    return np.rint((values - low) * (255.0 / (high - low))).astype(np.uint8)


def _to_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(array.dtype, np.integer):
        return _scale_integers(array)
    if np.issubdtype(array.dtype, np.floating):
        return _scale_floats(array)
    raise ImageError(f"an array of type {array.dtype} is not an image; give uint8, uint16 or float")


def _three_channels(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W), (H, W, 1) or (H, W, 3) to (H, W, 3)."""
    if grey.ndim == 2:
        grey = grey[..., None]
    return np.ascontiguousarray(np.broadcast_to(grey, (*grey.shape[:2], 3)))


def _flatten(colour: NDArray[np.uint8], alpha: NDArray[np.uint8], background: int) -> NDArray[np.uint8]:
    """Lay (H, W, 1 or 3) with alpha (H, W) on a grey background; opaque pixels stay exactly as they are."""
    colour = _three_channels(colour)
    if alpha.min() == 255:
        return np.ascontiguousarray(colour)
    weight = alpha[..., None].astype(np.float32) / np.float32(255.0)
    return np.rint(background + (colour.astype(np.float32) - background) * weight).astype(np.uint8)
