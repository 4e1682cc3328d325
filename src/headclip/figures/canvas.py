"""What all figures share: matplotlib if it is there, fonts, colours, and files that appear whole."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headclip.errors import InputError
from headclip.files import write_atomically
from headclip.plots import encode
from headclip.runs.overlay import colour_table

if TYPE_CHECKING:
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
DPI = 300
TEXT_WIDTH = 7.16  # inches, both columns of the usual two-column page
PAGE_HEIGHT = 9.2  # inches, with room for a caption
INK, SOFT, LINE = "#1b1f27", "#5d6675", "#c9ced8"
GLOBAL_COLOUR, LOCAL_COLOUR = "#2f5bd7", "#d9762b"
DIVERGING = "RdBu_r"
_STYLE: Any = {
    "font.size": 7.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "headclip",
}


def need_matplotlib() -> None:
    """Raise InputError, which says what to install, where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError("figures need matplotlib, which is not installed; pip install 'headclip[plots]'") from None


def check_path(path: Path) -> None:
    """Raise InputError where a figure cannot have that name."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: a figure ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file for the figure")


@contextmanager
def styled() -> Iterator[None]:
    """Fonts and lines of our figures, and no warning about letters that the font does not have."""
    need_matplotlib()
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def draw(make: Callable[[], Figure], path: Path, dpi: int = DPI) -> bytes:
    """Draw and write a figure; the kind follows from the name. Returns the file's content."""
    check_path(path)
    with styled():
        content = encode(make(), path.suffix.lower().removeprefix("."), dpi)
    write_atomically(path, content, follow=True)
    return content


def data_uri(png: bytes) -> str:
    """A PNG inside a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


@cache
def map_colours() -> ListedColormap:
    """The colours of the overlays, opaque."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(colour_table()[:, :3] / 255.0, name="headclip")


def overlay_colours(backdrop: float = 0.5) -> NDArray[np.float64]:
    """(256, 3) the colours of the overlays as they look on a picture of that grey."""
    table = colour_table() / 255.0
    opacity = table[:, 3:]
    return np.asarray(table[:, :3] * opacity + backdrop * (1.0 - opacity))


def readable_on(colour: Any) -> str:
    """Black or white, whichever reads better on an RGB colour."""
    red, green, blue = colour[:3]
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"


def fitting_size(text: str, width: float, size: float) -> float:
    """A font size at most `size` at which the text is about as wide as `width` inches."""
    return min(size, max(4.5, 72.0 * width / (0.56 * max(1, len(text)))))


def shorten(text: str, most: int) -> str:
    """The end of a long name, which tells files apart better than its beginning.

    >>> shorten("shelf/part_000123.png", 14)
    '…rt_000123.png'
    """
    return text if len(text) <= most else "…" + text[-(most - 1) :]
