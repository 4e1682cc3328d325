"""The qualitative figure: one row an image, one column a method, one colour scale for all."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from headclip.figures.canvas import (
    INK,
    LINE,
    PAGE_HEIGHT,
    SOFT,
    TEXT_WIDTH,
    fitting_size,
    map_colours,
    overlay_colours,
    shorten,
)
from headclip.inspection.comparison import ComparedImage, Comparison
from headclip.inspection.scales import TAIL
from headclip.plots import new_figure
from headclip.runs.overlay import Scale, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = Literal["overlay", "map"]
_GAP = 0.045  # inches between pictures
_LARGEST, _SMALLEST = 1.75, 0.5  # inches, side of a picture where there are few columns, or many tall rows
_TITLE, _SUBTITLE, _BAR = 0.24, 0.1, 0.42  # inches above and below the pictures
_NARROW, _LINE = 5.0, 0.11  # inches: below this width the words stand under the colour bar; height of a line
_LABEL = 0.17  # inches, room for names on the left
_TALLEST = 2.6  # height to width of the tallest row
_OUTLINE = "#00e5ff"


@dataclass(frozen=True)
class Options:
    """style: maps over the image, or alone. outline: the edge of the ground truth over the maps. names: file names
    on the left. width: of the figure, in inches; None fits it to a page of two columns."""

    style: Style = "overlay"
    outline: bool = False
    names: bool = True
    width: float | None = None


def compare_figure(found: Comparison, options: Options | None = None) -> Figure:
    """Draw it; inside `headclip.figures.canvas.styled`."""
    options = options or Options()
    columns = 1 + found.knows_truth + len(found.columns)
    left = _LABEL if options.names else 0.0
    above = _TITLE + _SUBTITLE * any(" (" in title for title in found.columns)
    side, heights = _fit(found, columns, left + (columns - 1) * _GAP, above + _BAR, options.width)
    width = left + columns * side + (columns - 1) * _GAP
    words = _words(found, width - left)
    below = _BAR + _LINE * words.count("\n") + _LINE * (width < _NARROW) * bool(words)
    height = above + sum(heights) + _GAP * (len(heights) - 1) + below
    figure = new_figure(width, height)
    titles = ["Image", *(["Ground truth"] if found.knows_truth else []), *found.columns]
    top = height - above
    for row, (image, tall) in enumerate(zip(found.images, heights, strict=True)):
        for column in range(columns):
            x = left + column * (side + _GAP)
            axes: Axes = figure.add_axes((x / width, (top - tall) / height, side / width, tall / height))
            _cell(axes, found, image, column, options)
            if row == 0:
                _title(figure, titles[column], (x + side / 2, top + 0.06), side)
        if options.names:
            label = shorten(PurePosixPath(image.name).name, max(8, int(tall / 0.052)))
            at = (top - tall / 2) / height
            figure.text(
                0.05 / width,
                at,
                label,
                rotation=90,
                ha="center",
                va="center",
                fontsize=5.5,
                color=SOFT,
                parse_math=False,
            )
        top -= tall + _GAP
    _colour_bars(figure, found, options, (left, side, below), words)
    return figure


def _fit(
    found: Comparison, columns: int, beside: float, above: float, width: float | None
) -> tuple[float, list[float]]:
    """Width of a column and heights of the rows, in inches, that fit a page; a width that the user gave is kept.

    beside, above: inches that are not pictures.
    """
    sizes = [image.size for image in found.images]
    if width is not None:
        side = max(0.2, (width - beside) / columns)
        return side, row_heights(sizes, side)
    side = min(_LARGEST, (TEXT_WIDTH - beside) / columns)
    room = PAGE_HEIGHT - above - _GAP * (len(sizes) - 1)
    side *= min(1.0, room / sum(row_heights(sizes, side)))
    side = max(side, _SMALLEST)
    return side, row_heights(sizes, side)


def row_heights(sizes: list[tuple[int, int]], side: float) -> list[float]:
    """Height of each row, for pictures at most `side` wide, in the unit of `side`.

    A picture as wide as its column sets the height of its row, up to a limit that the usual picture of the figure
    sets: a single tall one among wide ones is shown narrower instead of making its row as high as three others.
    """
    aspects = [height / width for height, width in sizes]
    limit = min(_TALLEST, max(1.25, float(np.median(aspects))))
    return [side * max(0.25, min(aspect, limit)) for aspect in aspects]


def _title(figure: Figure, title: str, at: tuple[float, float], side: float) -> None:
    """A column's title; what it has in brackets goes into a smaller line above the pictures."""
    width, height = figure.get_size_inches()
    x, y = at
    name, bracket, rest = title.partition(" (")
    if bracket:
        figure.text(x / width, (y - 0.01) / height, f"({rest}", ha="center", va="bottom", fontsize=6, color=SOFT)
        y += _SUBTITLE
    figure.text(x / width, y / height, name, ha="center", va="bottom", fontsize=fitting_size(name, side, 8.5))


def _cell(axes: Axes, found: Comparison, image: ComparedImage, column: int, options: Options) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    method = column - 1 - found.knows_truth
    if column == 0:
        _picture(axes, image.image)
    elif method < 0:
        _truth(axes, image)
    else:
        normalised = found.colours[method].normalise(image.maps[method])
        if options.style == "map":
            _picture(axes, map_colours()(normalised)[..., :3])
        else:
            _picture(axes, np.asarray(tint(Image.fromarray(image.image), normalised)))
        if options.outline and image.truth.mask is not None and image.truth.mask.any():
            axes.contour(image.truth.mask.astype(float), levels=[0.5], colors=[_OUTLINE], linewidths=0.6)
        _corner(axes, f"{image.scores[method]:.3f}")


def _picture(axes: Axes, pixels: Any, **options: Any) -> None:
    """The whole picture, as large as fits, in the middle."""
    axes.imshow(pixels, aspect="equal", interpolation="antialiased", **options)
    axes.set_anchor("C")


def _truth(axes: Axes, image: ComparedImage) -> None:
    truth, (height, width) = image.truth, image.image.shape[:2]
    if truth.mask is not None:
        _picture(axes, truth.mask, cmap="gray", vmin=0, vmax=1)
        if not truth.mask.any():
            _corner(axes, "normal")
        return
    _picture(axes, np.full((height, width), 0.93), cmap="gray", vmin=0, vmax=1)
    words = {0: "normal", 1: "anomalous,\nno mask", None: "not known"}[truth.label]
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", fontsize=6.5, color=SOFT)


def _corner(axes: Axes, text: str) -> None:
    """White on a dark ground, which reads on any picture."""
    axes.annotate(
        text,
        (0, 0),
        (2.5, 2.5),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=6.5,
        color="white",
        ha="left",
        va="bottom",
        bbox={"boxstyle": "square,pad=0.18", "facecolor": (0.05, 0.06, 0.09, 0.72), "edgecolor": "none"},
    )


def _words(found: Comparison, width: float) -> str:
    """What colours and numbers mean, in lines that fit the width in inches."""
    if found.kind == "method":
        return ""
    meaning = "among the highest x % of the method's map values here" if found.kind == "rank" else "map values"
    text = f"Colour: {meaning}. Corner: image score."
    return textwrap.fill(text, max(16, int(width / 0.047))) if width < _NARROW else text


def _colour_bars(
    figure: Figure, found: Comparison, options: Options, place: tuple[float, float, float], words: str
) -> None:
    """One bar for all methods, or one under each where each has colours of its own."""
    width, height = figure.get_size_inches()
    left, side, below = place
    at = below - 0.2  # of the bar's foot above that of the figure
    first = left + (1 + found.knows_truth) * (side + _GAP)
    if found.kind == "method":
        for column, scale in enumerate(found.colours):
            assert isinstance(scale, Scale)
            span = 0.88 * side
            _bar(figure, options, (first + column * (side + _GAP) + 0.06 * side, at, span), _value_ticks(scale, span))
        return
    narrow = width < _NARROW
    span = width - left if narrow else min(0.55 * (width - left), 2.6)
    scale = found.colours[0]
    ticks = _value_ticks(scale, span) if isinstance(scale, Scale) else _rank_ticks()
    _bar(figure, options, (width - span, at, span), ticks)
    if narrow:
        figure.text(left / width, 0.03 / height, words, fontsize=6, color=SOFT, va="bottom", linespacing=1.25)
    else:
        size = fitting_size(words, width - span - left - 0.2, 6.5)
        figure.text(left / width, (at + 0.045) / height, words, fontsize=size, color=SOFT, va="center")


Ticks = tuple[list[float], list[str]]


def _value_ticks(scale: Scale, span: float) -> Ticks:
    """Positions in [0, 1] and labels, as many as `span` inches have room for."""
    positions = np.linspace(0.0, 1.0, 5 if span > 1.6 else 3 if span > 0.8 else 2)
    return positions.tolist(), [f"{scale.low + t * (scale.high - scale.low):.2f}" for t in positions]


def _rank_ticks() -> Ticks:
    positions = [float(np.log(TAIL[0] / tail) / np.log(TAIL[0] / TAIL[-1])) for tail in TAIL]
    return positions, [f"{100 * tail:g} %" for tail in TAIL]


def _bar(figure: Figure, options: Options, place: tuple[float, float, float], ticks: Ticks) -> None:
    """A colour bar; place: its left end, its foot and its length in inches."""
    from matplotlib.colors import ListedColormap

    width, height = figure.get_size_inches()
    x, y, span = place
    axes: Axes = figure.add_axes((x / width, y / height, span / width, 0.09 / height))
    colours = map_colours() if options.style == "map" else ListedColormap(overlay_colours())
    axes.imshow(np.linspace(0.0, 1.0, 256)[None], aspect="auto", cmap=colours, extent=(0.0, 1.0, 0.0, 1.0))
    axes.set_yticks([])
    axes.set_xticks(ticks[0], ticks[1], fontsize=6, color=INK)
    axes.tick_params(length=2, pad=1.5, color=LINE)
    for spine in axes.spines.values():
        spine.set_color(LINE)
    labels = axes.get_xticklabels()
    labels[0].set_horizontalalignment("left")
    labels[-1].set_horizontalalignment("right")
