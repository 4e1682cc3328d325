"""The words nearest to learnt prompts, beside the distances that say how little they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headclip.figures.canvas import INK, LINE, LOCAL_COLOUR, SOFT
from headclip.inspection.words import ContextWords, NearWord, PromptWords
from headclip.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 0.17  # inches
_SHOWN = 4


def word_text(word: NearWord) -> str:
    """As it reads; a piece of a word ends in a hyphen, and letters that fonts may not have are named by code point.

    >>> word_text(NearWord("crack", True, 5, 0.1)), word_text(NearWord("inspe", False, 6, 0.1))
    ('crack', 'inspe-')
    """
    text = "".join(letter if ord(letter) < 0x250 else f"U+{ord(letter):04X}" for letter in word.text)
    return text if word.whole else text + "-"


def words_figure(prompts: PromptWords) -> Figure:
    """For each learnt token its distance to the nearest word, before and after training, and the nearest words."""
    panels = len(prompts.contexts)
    rows = max(len(context.tokens) for context in prompts.contexts)
    width, height = 7.16 if panels > 1 else 3.7, 0.75 + rows * _ROW
    figure = new_figure(width, height)
    each = width / panels
    for index, context in enumerate(prompts.contexts):
        x = index * each
        box = ((x + 0.32) / width, 0.5 / height, 1.25 / width, rows * _ROW / height)
        axes: Axes = figure.add_axes(box)
        _distances(axes, prompts, context, rows)
        _list(axes, context)
        title = f"{context.name}: … {context.ending}" if context.ending else context.name
        figure.text((x + 0.32) / width, 1 - 0.14 / height, title, fontsize=8, va="center", parse_math=False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    options = {"ncols": 3, "frameon": False, "fontsize": 6.3, "handlelength": 1.1, "columnspacing": 1.2}
    figure.legend(handles, labels, loc="lower left", borderaxespad=0.2, **options)
    return figure


def _distances(axes: Axes, prompts: PromptWords, context: ContextWords, rows: int) -> None:
    low, middle, high = prompts.usual
    axes.axvspan(low, high, color=LINE, alpha=0.6, linewidth=0, label="word to nearest word, 5-95 %")
    axes.axvline(middle, color="white", linewidth=0.8)
    positions = [token.position for token in context.tokens]
    nearest = [token.words[0].distance for token in context.tokens]
    starts = [token.start_distance for token in context.tokens if token.start_distance is not None]
    if len(starts) == len(nearest):
        axes.plot(starts, positions, "o", color="white", markeredgecolor=SOFT, markersize=3.2, label="before training")
        for position, start, now in zip(positions, starts, nearest, strict=True):
            axes.plot([start, now], [position, position], color=SOFT, linewidth=0.6, zorder=1)
    axes.plot(nearest, positions, "o", color=LOCAL_COLOUR, markersize=3.6, label="learnt token")
    axes.set_ylim(rows + 0.5, 0.5)
    axes.set_yticks(positions, [str(position) for position in positions], fontsize=6.5)
    axes.set_xlim(0, 1.06 * max([*nearest, *starts, high]))
    axes.set_xlabel(f"{prompts.measure} distance", fontsize=6, color=SOFT, labelpad=2)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=6, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _list(axes: Axes, context: ContextWords) -> None:
    """The nearest words to the right of the dots; fewer where they would not fit."""
    for token in context.tokens:
        words = ", ".join(word_text(word) for word in token.words[:_SHOWN])
        while len(words) > 40 and ", " in words:
            words = words.rpartition(", ")[0]
        axes.annotate(
            words,
            (1.0, token.position),
            (5, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=6.3,
            va="center",
            color=INK,
            annotation_clip=False,
            parse_math=False,
        )
