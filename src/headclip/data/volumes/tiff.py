"""Pages of a TIFF as slices. Reduced copies of a page (pyramids) and transparency masks are no pages."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from headclip.data.decode import INTEGER_MODES, check_size, is_inverted, to_rgb, warnings_lock
from headclip.data.volumes.model import MAX_SLICES
from headclip.data.volumes.window import Window, percentile_window, sampled
from headclip.errors import ImageError

EXTENSIONS = frozenset({".tif", ".tiff"})
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUBFILE_TAG = 254
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType, TIFF 6.0 p. 36
_DEEP_MODES = (*INTEGER_MODES, "F")
_lock = threading.RLock()


@dataclass(frozen=True)
class TiffSource:
    """The pages of one file. frames: of the file, those that are pages; state: size and time of the file."""

    path: Path
    frames: tuple[int, ...]
    state: tuple[int, int]
    window: Window | None = None

    def read(self, index: int, max_pixels: int) -> NDArray[np.uint8]:
        """(H, W, 3) of a page. Pages of more than 8 bits share one window: the one given, else percentiles.

        Raises:
            ImageError: the page is damaged or has a refused size.
        """
        with _lock, _plain_errors(), _no_warnings():
            image = _opened(self.path, self.state)
            image.seek(self.frames[index])
            check_size(image.size, max_pixels)
            if image.mode not in _DEEP_MODES:
                return to_rgb(image)
            grey = (self.window or _window_of(self, max_pixels)).apply(_values(image))
        return np.repeat(grey[..., None], 3, axis=2)


def tiff_pages(source: Path | bytes) -> tuple[int, ...]:
    """The frames of a TIFF that are pages; () where it cannot be told, so that decoding says what is wrong."""
    frames = []
    if isinstance(source, Path) and not os.path.isfile(source):  # noqa: PTH113 - never raises, and no pipe is opened
        return ()
    try:
        opened = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        with opened as stream, _no_warnings():
            image = TiffImagePlugin.TiffImageFile(stream)
            for frame in range(MAX_SLICES):
                image.seek(frame)
                kind = image.tag_v2.get(_SUBFILE_TAG, 0)
                if not (isinstance(kind, int) and kind & (_REDUCED | _MASK)):
                    frames.append(frame)
    except EOFError:
        return tuple(frames)
    except Exception:  # damaged files raise nearly anything
        return ()
    return tuple(frames)


def refuse_stack(source: Path | bytes) -> None:
    """For those who judge single images, and would judge a stack by its first page.

    Raises:
        ImageError: it is a TIFF of several pages.
    """
    count = len(tiff_pages(source)) if _is_tiff(source) else 0
    if count > 1:
        raise ImageError(
            f"a TIFF of {count:,} pages, of which only the first would be judged; `headclip predict` judges them all, "
            "or save each page as an image of its own"
        )


def _is_tiff(source: Path | bytes) -> bool:
    return source[:4] in _SIGNATURES if isinstance(source, bytes) else source.suffix.lower() in EXTENSIONS


@lru_cache(maxsize=2)
def _opened(path: Path, state: tuple[int, int]) -> TiffImagePlugin.TiffImageFile:
    """Open files stay open for the next page; going on costs nothing, starting again costs all pages before."""
    return TiffImagePlugin.TiffImageFile(path.open("rb"))


@lru_cache(maxsize=64)
def _window_of(source: TiffSource, max_pixels: int) -> Window:
    image = _opened(source.path, source.state)
    back = image.tell()

    def values() -> Iterator[NDArray[np.generic]]:
        for index in sampled(len(source.frames)):
            image.seek(source.frames[index])
            if image.mode in _DEEP_MODES and image.width * image.height <= max_pixels:
                yield _values(image)

    window = percentile_window(values())
    image.seek(back)
    if window is None:
        raise ImageError("no pixel of the pages is a finite number")
    return window


def _values(image: Image.Image) -> NDArray[np.generic]:
    """(H, W) as stored, upright as far as white is concerned: a TIFF whose 0 is white is inverted."""
    values = np.array(image)
    return -values.astype(np.float64) if is_inverted(image) else values


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("not enough memory to decode the page") from None
    except (EOFError, OSError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise ImageError("the file does not exist" if missing else "the TIFF page ends too early") from None
    except Exception as error:
        raise ImageError(f"the TIFF page is damaged or not supported ({type(error).__name__})") from None


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
