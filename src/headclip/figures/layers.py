"""How each layer of the local stream contributes to the map of an image."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headclip.figures.canvas import (
    DIVERGING,
    LINE,
    SOFT,
    TEXT_WIDTH,
    fitting_size,
    map_colours,
    overlay_colours,
)
from headclip.figures.heads import number
from headclip.inspection.layers import START, LayerMaps
from headclip.inspection.model import ImageInspection
from headclip.plots import new_figure
from headclip.runs.overlay import Scale, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAP, _ROW_GAP = 0.06, 0.4
_MOST_COLUMNS = 8
_LARGEST = 1.25  # inches
_LEFT = 0.3


def map_scale(layers: LayerMaps) -> Scale:
    """Colours of the map and of the maps without a part: from the usual patch to the highest one of the whole map."""
    low = float(np.median(layers.patch_map))
    return Scale(low, max(float(layers.patch_map.max()), low + 0.02))


def layers_figure(seen: ImageInspection) -> Figure:
    """For each part of the local stream its contribution to the logit, and the map without it."""
    layers = seen.layers
    assert layers is not None
    blocks = ceil(len(layers.parts) / (_MOST_COLUMNS - 1))
    columns = 1 + ceil(len(layers.parts) / blocks)
    height_of, width_of = seen.image.shape[:2]
    aspect = min(max(height_of / width_of, 0.4), 2.6)
    side = min(_LARGEST, (TEXT_WIDTH - _LEFT - (columns - 1) * _GAP) / columns)
    tall = side * aspect
    width = _LEFT + columns * side + (columns - 1) * _GAP
    block = 2 * (tall + _ROW_GAP) - 0.1
    height = blocks * block + 0.36
    figure = new_figure(width, height)
    scale = map_scale(layers)
    # the few highest values would take the colours from all others
    span = max(float(np.quantile(np.abs(_centred(layers)), 0.98)), 1e-3)
    top = 0.0
    per_block = columns - 1
    for block_number in range(blocks):
        indices = list(range(block_number * per_block, min((block_number + 1) * per_block, len(layers.parts))))
        _row(figure, seen, indices, block_number == 0, (top + 0.2, side, tall), span, None)
        _row(figure, seen, indices, block_number == 0, (top + 0.2 + tall + _ROW_GAP, side, tall), span, scale)
        top += block
    _bars(figure, span, scale)
    return figure


def _row(
    figure: Figure,
    seen: ImageInspection,
    indices: list[int],
    with_whole: bool,
    place: tuple[float, float, float],
    span: float,
    scale: Scale | None,
) -> None:
    """Contributions, or with `scale` the maps without each part; the image, or the whole map, comes first
    where `with_whole` says so."""
    layers, (top, side, tall) = seen.layers, place
    assert layers is not None
    width, height = figure.get_size_inches()
    words = "contribution" if scale is None else "map without it"
    figure.text(0.1 / width, 1 - (top + tall / 2) / height, words, rotation=90, ha="center", va="center", fontsize=7)
    if with_whole:
        axes = _axes(figure, _LEFT, top, side, tall)
        if scale is None:
            _show(axes, np.asarray(_small(seen.image)), "image")
        else:
            _overlay(axes, seen, layers.patch_map, scale, "whole map", f"local {layers.local_score:.3f}")
    for position, index in enumerate(indices, start=1):
        part = layers.parts[index]
        name = "start" if part == START else f"layer {part}"
        axes = _axes(figure, _LEFT + position * (side + _GAP), top, side, tall)
        if scale is None:
            axes.imshow(
                _stretched(_centred(layers)[index], seen.image.shape[:2]),
                cmap=DIVERGING,
                vmin=-span,
                vmax=span,
                interpolation="bilinear",
            )
            axes.set_title(name, pad=2, fontsize=7.5)
            mean, contrast = float(layers.contributions[index].mean()), float(layers.contrast[index])
            _below(axes, f"mean {_signed(mean, 2)}\nhot {_signed(contrast, 2)}")
        else:
            change = layers.local_without[index] - layers.local_score
            title = f"without {name}"
            _overlay(axes, seen, layers.without[index], scale, title, f"local {_signed(change, 3)}")


def _centred(layers: LayerMaps) -> NDArray[np.float32]:
    """(P, R, C) contributions without their means over the image, which move the map as a whole and are printed:
    they differ so much between the parts that nothing else could be seen."""
    return layers.contributions - layers.contributions.mean(axis=(1, 2), keepdims=True)


def _signed(value: float, digits: int) -> str:
    text = number(value, digits)
    return text if text.startswith("−") else f"+{text}"


def _axes(figure: Figure, x: float, y: float, w: float, h: float) -> Axes:
    width, height = figure.get_size_inches()
    axes: Axes = figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(LINE)
        spine.set_linewidth(0.4)
    return axes


def _show(axes: Axes, pixels: NDArray[Any], title: str) -> None:
    axes.imshow(pixels, interpolation="antialiased")
    width = axes.get_position().width * axes.figure.get_figure(root=True).get_size_inches()[0]
    axes.set_title(title, pad=2, fontsize=fitting_size(title, width, 7.5))


def _overlay(
    axes: Axes, seen: ImageInspection, values: NDArray[np.float32], scale: Scale, title: str, below: str
) -> None:
    """Patch values over the image, in the colours of `scale`."""
    picture = _small(seen.image)
    normalised = _stretched(scale.normalise(values), (picture.height, picture.width))
    _show(axes, np.asarray(tint(picture, normalised)), title)
    _below(axes, below)


def _below(axes: Axes, text: str) -> None:
    axes.set_xlabel(text, fontsize=6.5, labelpad=2, color=SOFT)


def _small(image: NDArray[np.uint8], side: int = 480) -> Image.Image:
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    return picture


def _stretched(values: NDArray[np.float32], size: tuple[int, ...], side: int = 480) -> NDArray[np.float32]:
    """Patch values at the aspect of the image, which the grid need not have; between patches linear."""
    share = min(1.0, side / max(size))
    target = (max(1, round(size[1] * share)), max(1, round(size[0] * share)))
    resized = Image.fromarray(values.astype(np.float32)).resize(target, Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)


def _bars(figure: Figure, span: float, scale: Scale) -> None:
    """The two colour scales at the foot."""
    from matplotlib.colors import ListedColormap

    half = (figure.get_size_inches()[0] - _LEFT) / 2
    _bar(figure, _LEFT, half, DIVERGING, [-span, 0.0, span], 2, "contribution minus its mean")
    colours = ListedColormap(overlay_colours())
    _bar(figure, _LEFT + half, half, colours, [scale.low, scale.high], 3, "map value")


def _bar(figure: Figure, x: float, room: float, colours: Any, ticks: list[float], digits: int, words: str) -> None:
    """A colour bar with what it means beside it, in `room` inches."""
    width, height = figure.get_size_inches()
    long = 0.5 * room
    axes: Axes = figure.add_axes((x / width, 0.2 / height, long / width, 0.08 / height))
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=colours, aspect="auto", extent=(ticks[0], ticks[-1], 0, 1))
    axes.set_yticks([])
    axes.set_xticks(ticks, [number(tick, digits) for tick in ticks], fontsize=6)
    labels = axes.get_xticklabels()
    labels[0].set_horizontalalignment("left")
    labels[-1].set_horizontalalignment("right")
    axes.tick_params(length=2, pad=1)
    for spine in axes.spines.values():
        spine.set_color(LINE)
    figure.text((x + long + 0.08) / width, 0.24 / height, words, fontsize=6.5, color=SOFT, va="center")


def taps_figure(layers: LayerMaps, image: NDArray[np.uint8]) -> Figure:
    """The map that each tapped layer makes alone, for methods with several; one colour scale from 0."""
    columns = len(layers.taps)
    aspect = min(max(image.shape[0] / image.shape[1], 0.4), 2.6)
    side = min(_LARGEST, (TEXT_WIDTH - (columns - 1) * _GAP) / columns)
    width, height = columns * side + (columns - 1) * _GAP, side * aspect + 0.56
    figure = new_figure(width, height)
    high = float(layers.tap_maps.max())
    for index, tap in enumerate(layers.taps):
        axes = _axes(figure, index * (side + _GAP), 0.18, side, side * aspect)
        axes.imshow(_stretched(layers.tap_maps[index], image.shape[:2]), cmap=map_colours(), vmin=0.0, vmax=high)
        axes.set_title(f"layer {tap}", pad=2, fontsize=7.5)
    _bar(figure, 0.02, min(width, 3.0), map_colours(), [0.0, high], 3, "map value")
    return figure
