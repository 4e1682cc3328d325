"""The rows of every table: one list that all formats are written from. All values are in percent."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headclip.csv_text import CsvText
from headclip.evaluation.averages import averages
from headclip.evaluation.beside import PAPER_METHODS, published_averages, published_rows
from headclip.evaluation.rows import (
    DAGGER,
    IMAGE_COLUMNS,
    LEGEND,
    LETTERS,
    PIXEL_COLUMNS,
    TableRow,
    average_row,
    dataset_rows,
)
from headclip.evaluation.scoring import DatasetResult
from headclip.metrics import ALL_METRICS

__all__ = [
    "DAGGER",
    "IMAGE_COLUMNS",
    "LEGEND",
    "LETTERS",
    "PAPER_METHODS",
    "PIXEL_COLUMNS",
    "TableRow",
    "average_rows",
    "cell",
    "csv_table",
    "parquet_table",
    "table_rows",
]


def table_rows(results: Sequence[DatasetResult], protocol: str) -> list[TableRow]:
    """Every row of an evaluation.

    For each dataset the categories and mean of each method, then what has been published, each followed by every
    method minus it; in the end the averages over datasets, likewise.
    """
    rows: list[TableRow] = []
    for name in dict.fromkeys(result.name for result in results):
        group = [result for result in results if result.name == name]
        own = [dataset_rows(result, protocol) for result in group]
        rows += [row for part in own for row in part]
        rows += published_rows(group[0], own, protocol)
    return rows + average_rows(results, protocol)


def average_rows(results: Sequence[DatasetResult], protocol: str) -> list[TableRow]:
    """The means over datasets, for each method and domain that has more than one, and the paper's beside them."""
    found = [(average, average_row(average)) for average in averages(results, protocol)]
    rows: list[TableRow] = []
    for domain in dict.fromkeys(average.domain for average, _ in found):
        own = [pair for pair in found if pair[0].domain == domain]
        rows += [row for _, row in own]
        rows += published_averages(own, protocol)
    return rows


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
    buffer = CsvText()
    flat = [_flat(row) for row in rows]
    writer = csv.DictWriter(buffer, list(flat[0]) if flat else list(_FACTS))
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
