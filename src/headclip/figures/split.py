"""The two parts of an image score, and what other settings would make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headclip.figures.canvas import GLOBAL_COLOUR, INK, LINE, LOCAL_COLOUR, SOFT
from headclip.inspection.split import ScoreSplit
from headclip.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def split_figure(split: ScoreSplit) -> Figure:
    """The parts as a bar, the score over alpha, and the local score over the share of the map."""
    figure = new_figure(7.16, 1.9)
    boxes = [(0.055, 0.25, 0.25, 0.6), (0.40, 0.25, 0.25, 0.6), (0.735, 0.25, 0.25, 0.6)]
    parts, over_alpha, over_share = (figure.add_axes(box) for box in boxes)
    _parts(parts, split)
    _over_alpha(over_alpha, split)
    _over_share(over_share, split)
    return figure


def _parts(axes: Axes, split: ScoreSplit) -> None:
    """Two bars for what was measured, one for what it adds up to."""
    rows = [("global", split.global_score, GLOBAL_COLOUR), ("local", split.local_score, LOCAL_COLOUR)]
    for y, (_, value, colour) in zip((2, 1), rows, strict=True):
        axes.barh(y, value, color=colour, height=0.55)
        axes.text(value + 0.015, y, f"{value:.3f}", va="center", fontsize=7)
    axes.barh(0, split.global_part, color=GLOBAL_COLOUR, height=0.55)
    axes.barh(0, split.local_part, left=split.global_part, color=LOCAL_COLOUR, height=0.55)
    axes.text(split.score + 0.015, 0, f"{split.score:.3f}", va="center", fontsize=7, weight="bold")
    axes.set_yticks([2, 1, 0], ["global", "local", "score"])
    axes.set_xlim(0, max(split.global_score, split.local_score, split.score) * 1.22 + 0.01)
    axes.set_title("the two parts", pad=4)
    shares = f"score = {1 - split.alpha:.2f} · global + {split.alpha:.2f} · local"
    axes.set_xlabel(shares, fontsize=6.5, color=SOFT)
    axes.tick_params(axis="y", length=0)
    _open(axes)


def _over_alpha(axes: Axes, split: ScoreSplit) -> None:
    axes.plot([0, 1], [split.global_score, split.local_score], color=INK, linewidth=1.2)
    axes.plot(0, split.global_score, "o", color=GLOBAL_COLOUR, markersize=4, clip_on=False, zorder=3)
    axes.plot(1, split.local_score, "o", color=LOCAL_COLOUR, markersize=4, clip_on=False, zorder=3)
    _mark(axes, split.alpha, split.score, f"alpha {split.alpha:g}: {split.score:.3f}")
    axes.set_xlim(0, 1)
    _room(axes, [split.global_score, split.local_score])
    axes.set_title("if alpha were", pad=4)
    axes.set_xlabel("alpha (0: global alone, 1: local alone)", fontsize=6.5, color=SOFT)
    axes.set_ylabel("score", fontsize=6.5, color=SOFT)
    _open(axes)


def _over_share(axes: Axes, split: ScoreSplit) -> None:
    shares = 100 * split.shares
    axes.semilogx(shares, split.local_by_share, color=LOCAL_COLOUR, linewidth=1.2, label="local")
    axes.semilogx(
        shares,
        (1 - split.alpha) * split.global_score + split.alpha * split.local_by_share,
        color=INK,
        linewidth=1.2,
        label="score",
    )
    _mark(axes, 100 * split.top_share, split.local_score, f"{100 * split.top_share:g} %: {split.local_score:.3f}", True)
    axes.set_xlim(max(shares[0], 0.001), 100)
    _room(axes, [*split.local_by_share, split.score])
    ticks = [tick for tick in (0.001, 0.01, 0.1, 1, 10, 100) if tick >= shares[0] * 0.99]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_title("if the top share were", pad=4)
    axes.set_xlabel("share of the map, %", fontsize=6.5, color=SOFT)
    axes.legend(frameon=False, fontsize=6.5, loc="best", handlelength=1.2)
    _open(axes)


def _mark(axes: Axes, x: float, y: float, words: str, below: bool = False) -> None:
    """The setting in use; below: its words stand below a falling line, to the left."""
    axes.axvline(x, color=LINE, linewidth=0.8, zorder=0)
    axes.plot(x, y, "o", color="white", markeredgecolor=INK, markersize=4.5, zorder=4)
    offset, side = ((-4, -10), "right") if below else ((4, 5), "left")
    under = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.6}  # the curves pass behind the words
    axes.annotate(words, (x, y), offset, textcoords="offset points", fontsize=6.5, ha=side, bbox=under, zorder=5)


def _room(axes: Axes, values: list[float]) -> None:
    low, high = float(np.min(values)), float(np.max(values))
    margin = 0.12 * max(high - low, 0.05)
    axes.set_ylim(max(0.0, low - margin), min(1.02, high + 2 * margin))


def _open(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="both", color=LINE, linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
