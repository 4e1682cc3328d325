"""One row of a table, and our own rows of a dataset. All values are in percent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from headclip.evaluation.averages import Average
from headclip.evaluation.bootstrap import Interval
from headclip.evaluation.scoring import CategoryResult, DatasetResult
from headclip.metrics import ALL_METRICS, Figures

Kind = Literal["category", "mean", "average", "published", "difference"]
IMAGE_COLUMNS = ("image_auroc", "image_ap", "image_f1", "image_mad")
PIXEL_COLUMNS = ("pixel_auroc", "pixel_aupro", "pixel_ap", "pixel_f1", "pixel_iou", "pixel_mad")
LETTERS = {
    **dict(zip(IMAGE_COLUMNS, "RAFM", strict=True)),
    **dict(zip(PIXEL_COLUMNS, "RPAFIM", strict=True)),
}
LEGEND = "R AUROC, P AUPRO, A AP, F F1-max, I IoU-max, M mAD; in percent; - not defined"
DAGGER = "†"  # marks a method that was trained on images, or the dataset, that it is tested on


@dataclass(frozen=True)
class TableRow:
    """One row. kind: a category, the mean over a dataset's categories, the average over datasets, a published row
    or our row minus it. dataset: "" for averages; category: "" for a whole dataset; source: "" for our own
    figures. values: metric to percent, without those that are not defined; intervals: low and high in percent.
    """

    kind: Kind
    domain: str
    dataset: str
    title: str
    category: str
    method: str
    source: str = ""
    normal: int | None = None
    anomalous: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    marks: tuple[str, ...] = ()


def dataset_rows(result: DatasetResult, protocol: str) -> list[TableRow]:
    """Our rows of one dataset: its categories and their mean."""
    rows = [_category_row(result, category, protocol) for category in result.categories]
    totals = [sum(getattr(category, kind) for category in result.categories) for kind in ("normal", "anomalous")]
    mean = _own_row(result, "mean", "", result.mean[protocol], result.intervals, *totals)
    return [*rows, mean]


def _category_row(result: DatasetResult, category: CategoryResult, protocol: str) -> TableRow:
    counts = (category.normal, category.anomalous)
    return _own_row(result, "category", category.name, category.figures[protocol], category.intervals, *counts)


def _own_row(
    result: DatasetResult,
    kind: Kind,
    category: str,
    figures: Figures,
    intervals: Mapping[str, Interval],
    normal: int,
    anomalous: int,
) -> TableRow:
    info = result.dataset.info
    return TableRow(
        kind,
        info.domain,
        result.name,
        info.title,
        category,
        _marked(result.method, bool(result.leakage)),
        normal=normal,
        anomalous=anomalous,
        values=percent(figures),
        intervals=_percent_intervals(intervals),
    )


def average_row(average: Average) -> TableRow:
    """The mean over datasets."""
    return TableRow(
        "average",
        average.domain,
        "",
        average.title,
        "",
        _marked(average.method, average.leaking),
        values=percent(average.figures),
        intervals=_percent_intervals(average.intervals),
    )


def _marked(method: str, leaking: bool) -> str:
    return f"{method} {DAGGER}" if leaking else method


def percent(figures: Mapping[str, float]) -> dict[str, float]:
    """[0, 1] -> percent, in the order of the tables."""
    return {name: 100 * figures[name] for name in ALL_METRICS if name in figures}


def _percent_intervals(intervals: Mapping[str, Interval]) -> dict[str, tuple[float, float]]:
    return {name: (100 * value.low, 100 * value.high) for name, value in intervals.items()}
