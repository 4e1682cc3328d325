"""ROC, PR and PRO curves: their points from counts, and figures through matplotlib where that is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headclip.evaluation.scoring import CategoryResult, DatasetResult
from headclip.metrics.curves import FPR_LIMIT
from headclip.metrics.image import check_scores, score_counts
from headclip.metrics.pixel import columns
from headclip.plots import new_figure, write_plot

NEEDS_MATPLOTLIB = "no figures: matplotlib is not installed; pip install 'headclip[plots]'"
_POINTS = 400
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """Points of the curves of one category, (n,) each; empty where a curve is not defined.

    roc: false-positive and true-positive rate; pr: recall and precision; pro: false-positive rate and mean overlap
    of the defect regions, empty for images.
    """

    roc: tuple[Values, Values]
    pr: tuple[Values, Values]
    pro: tuple[Values, Values]


def image_curves(category: CategoryResult) -> Curves:
    """From image scores."""
    scored = [image for image in category.images if image.ok]
    labels = [int(image.record.label or 0) for image in scored]
    positives, negatives = score_counts(*check_scores([image.score or 0.0 for image in scored], labels))
    return _curves(positives, negatives, None)


def pixel_curves(category: CategoryResult) -> Curves:
    """From pixel counts; every occupied bin is a threshold."""
    if category.state is None:
        nothing = np.empty(0)
        return _curves(nothing, nothing, nothing)
    return _curves(*columns(category.state))


def _curves(positives: Values, negatives: Values, weights: Values | None) -> Curves:
    """From counts per score, highest first, (K,) each."""
    tp, fp = np.cumsum(positives), np.cumsum(negatives)
    nothing = (np.empty(0), np.empty(0))
    has_positives, has_negatives = len(tp) and tp[-1] > 0, len(fp) and fp[-1] > 0
    roc = _from_origin(fp / fp[-1], tp / tp[-1]) if has_positives and has_negatives else nothing
    # of images the table has no average precision either where there are no normal ones
    pr = _precision_recall(tp, fp) if has_positives and (has_negatives or weights is not None) else nothing
    if weights is None or not (has_positives and has_negatives):
        return Curves(roc, pr, nothing)
    overlap = np.cumsum(weights)
    return Curves(roc, pr, _from_origin(fp / fp[-1], overlap / overlap[-1]))


def _precision_recall(tp: Values, fp: Values) -> tuple[Values, Values]:
    """From recall 0, where the precision is that of the highest score."""
    precision = tp / np.maximum(tp + fp, 1.0)
    return _thin(np.concatenate([[0.0], tp / tp[-1]]), np.concatenate([precision[:1], precision]))


def _from_origin(x: Values, y: Values) -> tuple[Values, Values]:
    return _thin(np.concatenate([[0.0], x]), np.concatenate([[0.0], y]))


def _thin(x: Values, y: Values) -> tuple[Values, Values]:
    """At most about _POINTS points, close together where the curve bends: spaced along its length."""
    if len(x) <= _POINTS:
        return x, y
    length = np.cumsum(np.abs(np.diff(x, prepend=x[:1])) + np.abs(np.diff(y, prepend=y[:1])))
    targets = np.linspace(0.0, length[-1], _POINTS)
    chosen = np.unique(np.concatenate([np.searchsorted(length, targets).clip(0, len(x) - 1), [len(x) - 1]]))
    return x[chosen], y[chosen]


def draw_figures(results: Sequence[DatasetResult], folder: Path) -> list[str]:
    """Write NAME-image and NAME-pixel as PNG and SVG for every dataset; hints where something is missing."""
    try:
        import matplotlib
    except ImportError:
        return [NEEDS_MATPLOTLIB]
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "headclip", "font.size": 9, "axes.titlesize": 10}):
        for result in results:
            several = len({other.method for other in results if other.name == result.name}) > 1
            name = f"{result.name}-{result.method}" if several else result.name
            if result.dataset.info.level != "pixel":
                curves = {category.name: image_curves(category) for category in result.categories}
                _draw(result, "image", curves, folder / f"{_plain(name)}-image")
            if result.dataset.info.level != "image":
                curves = {category.name: pixel_curves(category) for category in result.categories}
                _draw(result, "pixel", curves, folder / f"{_plain(name)}-pixel")
    return []


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in name)


def _draw(result: DatasetResult, level: str, curves: dict[str, Curves], path: Path) -> None:
    kinds = ["roc", "pr"] if level == "image" else ["roc", "pr", "pro"]
    figure = new_figure(3.4 * len(kinds) + (1.6 if len(curves) > 1 else 0), 3.4, "constrained")
    axes: Any = figure.subplots(1, len(kinds))
    for axis, kind in zip(axes, kinds, strict=True):
        _axis(axis, kind)
        for number, (name, found) in enumerate(curves.items()):
            x, y = getattr(found, kind)
            if len(x):
                style = ("-", "--", ":")[number // 10 % 3]
                axis.plot(
                    x, y, style, color=f"C{number % 10}", linewidth=1.4, label=_words(name), drawstyle=_drawstyle(kind)
                )
    title = f"{result.dataset.info.title}, {result.method}, {level} level"
    figure.suptitle(_words(f"{title}; LEAKAGE: {result.leakage}"[:160] if result.leakage else title))
    drawn = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if len(curves) > 1 and drawn:
        figure.legend(drawn.values(), drawn.keys(), loc="outside right center", frameon=False, fontsize=8)
    write_plot(figure, path)


def _words(name: str) -> str:
    """A name as matplotlib shows it: with its dollars, and in the legend also where it begins with an underscore."""
    return ("\N{THIN SPACE}" if name.startswith("_") else "") + name.replace("$", r"\$")


def _drawstyle(kind: str) -> str:
    """Precision is a step function of recall, as step-wise AP takes it; the others are joined by lines."""
    return "steps-pre" if kind == "pr" else "default"


def _axis(axis: Any, kind: str) -> None:
    rate = "false-positive rate"
    labels = {"roc": (rate, "true-positive rate"), "pr": ("recall", "precision"), "pro": (rate, "region overlap")}
    axis.set(xlabel=labels[kind][0], ylabel=labels[kind][1], title=kind.upper(), ylim=(-0.02, 1.02))
    axis.set_xlim((0, FPR_LIMIT) if kind == "pro" else (-0.02, 1.02))
    axis.grid(alpha=0.25, linewidth=0.6)
    if kind == "roc":
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle=":")
