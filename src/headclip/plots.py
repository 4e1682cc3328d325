"""Plots without pyplot's global state, written whole; matplotlib comes with `headclip[plots]`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headclip.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCREEN_DPI = 144
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": "headclip"},
    "pdf": {"Creator": "headclip", "Producer": None, "CreationDate": None},
    "svg": {"Date": None, "Creator": "headclip"},
}  # no dates: the same figure is the same file


def new_figure(width: float, height: float, layout: Any = None) -> Figure:
    """An empty figure of that size in inches. layout: as matplotlib's own, such as "constrained"."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def encode(figure: Figure, kind: str, dpi: int) -> bytes:
    """The figure as a file of that kind ("png", "pdf" or "svg"), the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=_METADATA[kind], facecolor="white")
    return buffer.getvalue()


def write_plot(figure: Figure, stem: Path) -> None:
    """Write STEM.png and STEM.svg.

    Raises:
        OutputError: one of them cannot be written.
    """
    for kind in ("png", "svg"):
        write_atomically(stem.with_name(f"{stem.name}.{kind}"), encode(figure, kind, SCREEN_DPI))
