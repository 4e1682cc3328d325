"""The head weights, layer by head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headclip.figures.canvas import DIVERGING, LINE, SOFT, readable_on
from headclip.inspection.heads import HeadWeights
from headclip.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_SPAN = 0.05  # so that weights that hardly moved do not look as if they had
_CELL_W, _CELL_H = 0.37, 0.25  # inches
_MOST_VALUES = 20  # heads; in more columns than these, numbers cannot be read


def heads_figure(heads: HeadWeights) -> Figure:
    """Every weight with its value; colours diverge from 1, which changes nothing. Means beside and below."""
    span = max(heads.span, MIN_SPAN)
    return grid_figure(
        heads.weights,
        heads.layers,
        centre=1.0,
        span=span,
        words="head weight\n(1: as in CLIP)",
        with_means=True,
    )


def contrast_figure(contrast: NDArray[np.float32], layers: tuple[int, ...]) -> Figure:
    """What each head adds to the logit of the hottest patches over that of the others, (layers, heads)."""
    span = max(float(np.abs(contrast).max()), 1e-3)
    words = "logit, hottest patches\nminus all others"
    return grid_figure(contrast, layers, centre=0.0, span=span, words=words, with_means=False)


def grid_figure(
    values: NDArray[np.float32],
    layers: tuple[int, ...],
    *,
    centre: float,
    span: float,
    words: str,
    with_means: bool,
) -> Figure:
    """A heat map of (layers, heads) values with a colour bar on the right."""
    rows, columns = values.shape
    cell_w = min(_CELL_W, 5.2 / columns)
    left, right, above, below = 0.48, 0.95, 0.32, 0.12
    extra_w, extra_h = (0.1 + cell_w, 0.08 + _CELL_H) if with_means else (0.0, 0.0)
    width = left + columns * cell_w + extra_w + right
    height = max(above + rows * _CELL_H + extra_h + below, 1.5)
    figure = new_figure(width, height)

    def axes_at(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / width, 1.0 - (y + h) / height, w / width, h / height))

    shown = {"centre": centre, "span": span}
    main = axes_at(left, above, columns * cell_w, rows * _CELL_H)
    _cells(main, values, **shown)
    main.set_yticks(range(rows), [str(layer) for layer in layers])
    step = 1 if columns <= _MOST_VALUES else 4
    main.set_xticks(range(0, columns, step), [str(head + 1) for head in range(0, columns, step)])
    main.xaxis.tick_top()
    main.xaxis.set_label_position("top")
    main.set_xlabel("head", labelpad=2)
    main.set_ylabel("layer", labelpad=3)
    if with_means:
        beside = axes_at(left + columns * cell_w + 0.1, above, cell_w, rows * _CELL_H)
        _cells(beside, values.mean(axis=1, keepdims=True), **shown)
        beside.set_xticks([0], ["mean"])
        beside.xaxis.tick_top()
        beside.set_yticks([])
        under = axes_at(left, above + rows * _CELL_H + 0.08, columns * cell_w, _CELL_H)
        _cells(under, values.mean(axis=0, keepdims=True), **shown)
        under.set_yticks([0], ["mean"])
        under.set_xticks([])
    bar = axes_at(width - right + 0.18, above, 0.09, max(rows * _CELL_H + extra_h, height - above - below))
    _bar(bar, centre, span, words)
    return figure


def _cells(axes: Axes, values: NDArray[np.float32], *, centre: float, span: float) -> None:
    axes.imshow(values, cmap=DIVERGING, vmin=centre - span, vmax=centre + span, aspect="auto", interpolation="nearest")
    rows, columns = values.shape
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if columns > _MOST_VALUES:
        return
    colours = _map()((values - centre + span) / (2.0 * span))
    for row in range(rows):
        for column in range(columns):
            ink = readable_on(colours[row, column])
            text = number(values[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=ink)


def number(value: float, digits: int = 2) -> str:
    """With a true minus sign, and none before zero.

    >>> number(-0.001), number(-1.5)
    ('0.00', '−1.50')
    """
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0.0 else text.replace("-", "−")


def _map() -> Any:
    import matplotlib

    return matplotlib.colormaps[DIVERGING]


def _bar(axes: Axes, centre: float, span: float, words: str) -> None:
    ends = (centre - span, centre + span)
    axes.imshow(np.linspace(1.0, 0.0, 256)[:, None], cmap=DIVERGING, aspect="auto", extent=(0.0, 1.0, *ends))
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.set_yticks([ends[0], (ends[0] + centre) / 2, centre, (ends[1] + centre) / 2, ends[1]])
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.tick_params(length=2, labelsize=6)
    axes.yaxis.set_label_position("right")
    axes.set_ylabel(words, fontsize=6.3, color=SOFT, labelpad=4)
    for spine in axes.spines.values():
        spine.set_color(LINE)
