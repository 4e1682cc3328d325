"""The rows of every table: one list that all formats are written from. All values are in percent."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from headclip.evaluation.metrics import ALL_METRICS, Figures, macro_average
from headclip.evaluation.published import Figure, published, sources
from headclip.evaluation.scoring import CategoryResult, DatasetResult

Kind = Literal["category", "mean", "average", "published", "difference"]
IMAGE_COLUMNS = ("image_auroc", "image_ap", "image_f1", "image_mad")
PIXEL_COLUMNS = ("pixel_auroc", "pixel_aupro", "pixel_ap", "pixel_f1", "pixel_iou", "pixel_mad")
LETTERS = {
    **dict(zip(IMAGE_COLUMNS, "RAFM", strict=True)),
    **dict(zip(PIXEL_COLUMNS, "RPAFIM", strict=True)),
}
LEGEND = "R AUROC, P AUPRO, A AP, F F1-max, I IoU-max, M mAD; in percent; - not defined"
PAPER_METHODS = ("HeadCLIP", "AdaCLIP", "AnomalyCLIP", "AnoVL")
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


def table_rows(results: Sequence[DatasetResult], protocol: str) -> list[TableRow]:
    """Every row of an evaluation: per dataset its categories, mean and published rows, then the averages."""
    rows: list[TableRow] = []
    for result in results:
        own = dataset_rows(result, protocol)
        rows += own + published_rows(result, own, protocol)
    return rows + average_rows(results, protocol)


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
    intervals: Mapping[str, Any],
    normal: int,
    anomalous: int,
) -> TableRow:
    info = result.dataset.info
    method = f"{result.method} {DAGGER}" if result.leakage else result.method
    return TableRow(
        kind,
        info.domain,
        result.name,
        info.title,
        category,
        method,
        normal=normal,
        anomalous=anomalous,
        values=percent(figures),
        intervals={name: (100 * value.low, 100 * value.high) for name, value in intervals.items()},
    )


def percent(figures: Mapping[str, float]) -> dict[str, float]:
    """[0, 1] -> percent, in the order of the tables."""
    return {name: 100 * figures[name] for name in ALL_METRICS if name in figures}


def average_rows(results: Sequence[DatasetResult], protocol: str) -> list[TableRow]:
    """The mean over datasets, for each method and domain that has more than one."""
    rows = []
    for method, domain in dict.fromkeys((result.method, result.dataset.info.domain) for result in results):
        group = [r for r in results if (r.method, r.dataset.info.domain) == (method, domain)]
        if len(group) > 1:
            figures = macro_average([result.mean[protocol] for result in group])
            label = f"{method} {DAGGER}" if any(result.leakage for result in group) else method
            title = f"average of {len(group)} {'datasets' if domain == 'any' else domain + ' datasets'}"
            rows.append(TableRow("average", domain, "", title, "", label, values=percent(figures)))
    return rows


def published_rows(result: DatasetResult, own: Sequence[TableRow], protocol: str) -> list[TableRow]:
    """What has been printed for this dataset and its categories, each followed by our figures minus it."""
    family = result.dataset.info.family
    if not _has_family(family):
        return []
    found: list[TableRow] = []
    for row in own:
        if row.kind == "mean":
            figures = published(dataset=family)
        elif len(result.categories) > 1:
            figures = published(dataset=family, category=row.category, source="headclip")
        else:
            figures = []  # the only category is the dataset
        figures = [figure for figure in figures if not (figure.source == "headclip" and figure.variant)]  # ablations
        for figure in _joined(figures):
            found.append(_published_row(result, row, figure, protocol))
            found.append(_difference(result, row, figure, protocol))
    return found


def _joined(figures: Sequence[Figure]) -> list[Figure]:
    """Rows of one method in one table as one: some tables have image and pixel figures on lines of their own."""
    groups: dict[tuple[str, ...], Figure] = {}
    for figure in figures:
        key = (figure.source, figure.table, figure.method, figure.variant, figure.note)
        known = groups.get(key)
        groups[key] = figure if known is None else replace(known, values={**known.values, **figure.values})
    return list(groups.values())


def _has_family(family: str) -> bool:
    from headclip.errors import InputError

    try:
        published(dataset=family)
    except InputError:  # the user's own data
        return False
    return True


def _label(figure: Figure) -> str:
    return f"{figure.method} ({figure.variant})" if figure.variant else figure.method


def _source(figure: Figure) -> str:
    parts = [sources()[figure.source].title, f"Table {figure.table}" if figure.table else "", figure.note]
    return ", ".join(part for part in parts if part)


def _published_row(result: DatasetResult, row: TableRow, figure: Figure, protocol: str) -> TableRow:
    values = {name: figure.values[name] for name in ALL_METRICS if name in figure.values}
    return TableRow(
        "published",
        row.domain,
        row.dataset,
        row.title,
        row.category,
        _label(figure),
        _source(figure),
        values=values,
        marks=marks(result, figure, protocol),
    )


def _difference(result: DatasetResult, row: TableRow, figure: Figure, protocol: str) -> TableRow:
    values = {name: row.values[name] - figure.values[name] for name in row.values if name in figure.values}
    label = f"{row.method} - {_label(figure)}"
    return TableRow(
        "difference",
        row.domain,
        row.dataset,
        row.title,
        row.category,
        label,
        _source(figure),
        values=values,
        marks=marks(result, figure, protocol),
    )


def marks(result: DatasetResult, figure: Figure, protocol: str) -> tuple[str, ...]:
    """Why a published row cannot be compared as it stands: other metrics, another version, a part of the dataset."""
    info, found = result.dataset.info, []
    if protocol != "ader" and figure.source == "headclip" and any(name.startswith("pixel") for name in figure.values):
        found.append("pixel F1, IoU and AUPRO published on ADer's threshold grids; ours are exact (--protocol ader)")
    if not info.paper:
        found.append(f"published for another version of {info.family}, not for {info.title}")
    if result.limit is not None:
        found.append("ours is a first look at a few images")
    elif info.normal is not None and (info.normal, info.anomalous) != result.dataset.total():
        normal, anomalous = result.dataset.total()
        found.append(
            f"ours has {normal:,} normal / {anomalous:,} anomalous images of {info.normal:,} / {info.anomalous:,}"
        )
    return tuple(found)


_FACTS = ("kind", "domain", "dataset", "title", "category", "method", "source", "normal", "anomalous")


def _flat(row: TableRow) -> dict[str, Any]:
    flat: dict[str, Any] = {name: getattr(row, name) for name in _FACTS}
    for name in ALL_METRICS:
        flat[name] = row.values.get(name)
        flat[f"{name}_low"], flat[f"{name}_high"] = row.intervals.get(name, (None, None))
    flat["note"] = "; ".join(row.marks)
    return flat


def csv_table(rows: Sequence[TableRow]) -> str:
    """All rows as CSV; what is not defined is empty."""
    buffer = io.StringIO(newline="")
    flat = [_flat(row) for row in rows]
    writer = csv.DictWriter(buffer, list(flat[0]) if flat else list(_FACTS), lineterminator="\n")
    writer.writeheader()
    for line in flat:
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in line.items()})
    return buffer.getvalue()


def parquet_table(rows: Sequence[TableRow]) -> bytes:
    """The same as Parquet."""
    numbers = [pa.field(name, pa.int64()) for name in ("normal", "anomalous")]
    fields = [pa.field(name, pa.string()) for name in _FACTS[:-2]] + numbers
    for name in ALL_METRICS:
        fields += [pa.field(f"{name}{end}", pa.float64()) for end in ("", "_low", "_high")]
    fields.append(pa.field("note", pa.string()))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([_flat(row) for row in rows], schema=pa.schema(fields)), sink)
    return sink.getvalue()


def cell(row: TableRow, metric: str) -> str:
    """A value as tables show it: one decimal, "-" where it is not defined, a sign on differences."""
    value = row.values.get(metric)
    if value is None:
        return "-"
    return f"{value:+.1f}" if row.kind == "difference" else f"{value:.1f}"
