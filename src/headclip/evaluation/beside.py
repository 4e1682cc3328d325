"""Published figures beside ours, each with our figures minus it, and what keeps the two from being compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from headclip.evaluation.averages import Average
from headclip.evaluation.published import (
    AVERAGE,
    Figure,
    Inconsistency,
    impossible_ap,
    inconsistencies,
    known_family,
    published,
    sources,
)
from headclip.evaluation.rows import LETTERS, TableRow
from headclip.evaluation.scoring import DatasetResult
from headclip.metrics import ALL_METRICS, macro_average

PAPER = "headclip"
PAPER_METHODS = ("HeadCLIP", "AdaCLIP", "AnomalyCLIP", "AnoVL")
MAIN_TABLES = ("1", "2", "3")
_COUNTED = "ours has"


def published_rows(result: DatasetResult, own: Sequence[Sequence[TableRow]], protocol: str) -> list[TableRow]:
    """What has been printed for a dataset and its categories, each followed by ours minus it.

    Args:
        result: of any method on the dataset.
        own: the rows of each method, as `dataset_rows` makes them.
    """
    family = result.dataset.info.family
    if not known_family(family):
        return []
    found: list[TableRow] = []
    for place in dict.fromkeys((row.kind, row.category) for part in own for row in part):
        ours = [row for part in own for row in part if (row.kind, row.category) == place]  # one of each method
        if ours[0].kind == "mean":
            figures = published(dataset=family)
        elif len(result.categories) > 1:
            figures = published(dataset=family, category=ours[0].category, source=PAPER)
        else:
            figures = []  # the only category is the dataset
        figures = [figure for figure in figures if not (figure.source == PAPER and figure.variant)]  # ablations
        for figure in _joined(figures):
            found += _with_differences(ours, figure, (*marks(result, figure, protocol), *misprints(figure)))
    return found


def published_averages(own: Sequence[tuple[Average, TableRow]], protocol: str) -> list[TableRow]:
    """The paper's means over the very datasets that ours are over, each followed by ours minus it.

    Where these are all datasets of its table, that is the printed average, else the mean of the printed rows.

    Args:
        own: all averages of one domain, with their rows.
    """
    found: list[TableRow] = []
    for table in MAIN_TABLES:
        printed = published(source=PAPER, table=table, domain=own[0][0].domain)
        levels = {metric.split("_")[0] for figure in printed for metric in figure.values}
        having = [(average, row) for average, row in own if _are_printed(average, levels, printed)]
        if not having:
            continue
        families = {result.dataset.info.family for result in having[0][0].results if _has(result, levels)}
        having = [pair for pair in having if _families(pair[0], levels) == families]
        for method in reversed(PAPER_METHODS):
            figure = _average_figure([figure for figure in printed if figure.method == method], families)
            results = [result for result in having[0][0].results if _has(result, levels)]
            notes = [_naming(result, mark) for result in results for mark in marks(result, figure, protocol)]
            every = tuple(dict.fromkeys([*notes, *misprints(figure)]))
            found += _with_differences([row for _, row in having], figure, every)
    return found


def _naming(result: DatasetResult, mark: str) -> str:
    """A mark that says which dataset it is about, where it stands under several."""
    return f"{result.dataset.info.title}: {mark}" if mark.startswith(_COUNTED) else mark


def _average_figure(printed: Sequence[Figure], families: set[str]) -> Figure:
    """The printed average where it is over these datasets, else the mean of their rows."""
    (whole,) = (figure for figure in printed if figure.dataset == AVERAGE)
    rows = [figure for figure in printed if figure.dataset in families]
    if len(rows) == sum(figure.dataset != AVERAGE for figure in printed):
        return whole
    values = {name: round(100 * value, 2) for name, value in macro_average(_shares(rows)).items()}
    return replace(whole, values=values, note=f"mean of its rows of these {len(rows)} datasets")


def _shares(rows: Iterable[Figure]) -> list[dict[str, float]]:
    return [{name: value / 100 for name, value in row.values.items() if not name.endswith("mad")} for row in rows]


def _families(average: Average, levels: set[str]) -> set[str]:
    return {result.dataset.info.family for result in average.results if _has(result, levels)}


def _has(result: DatasetResult, levels: set[str]) -> bool:
    return any(metric.split("_")[0] in levels for figures in result.mean.values() for metric in figures)


def _are_printed(average: Average, levels: set[str], printed: Sequence[Figure]) -> bool:
    """Whether a table has a row for every dataset that this average is over, and for more than one."""
    families = _families(average, levels)
    return len(families) > 1 and families <= {figure.dataset for figure in printed}


def _joined(figures: Sequence[Figure]) -> list[Figure]:
    """Rows of one method in one table as one: some tables have image and pixel figures on lines of their own."""
    groups: dict[tuple[str, ...], Figure] = {}
    for figure in figures:
        key = (figure.source, figure.table, figure.method, figure.variant, figure.note)
        known = groups.get(key)
        groups[key] = figure if known is None else replace(known, values={**known.values, **figure.values})
    return list(groups.values())


def _with_differences(ours: Sequence[TableRow], figure: Figure, found: tuple[str, ...]) -> list[TableRow]:
    """A printed row, and each of our rows minus it."""
    first = ours[0]
    place = (first.domain, first.dataset, first.title, first.category)
    values = {name: figure.values[name] for name in ALL_METRICS if name in figure.values}
    rows = [TableRow("published", *place, _label(figure), _source(figure), values=values, marks=found)]
    for row in ours:
        minus = {name: row.values[name] - values[name] for name in row.values if name in values}
        label = f"{row.method} - {_label(figure)}"
        rows.append(TableRow("difference", *place, label, _source(figure), values=minus, marks=found))
    return rows


def _label(figure: Figure) -> str:
    return f"{figure.method} ({figure.variant})" if figure.variant else figure.method


def _source(figure: Figure) -> str:
    parts = [sources()[figure.source].title, f"Table {figure.table}" if figure.table else "", figure.note]
    return ", ".join(part for part in parts if part)


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
            f"{_COUNTED} {normal:,} normal / {anomalous:,} anomalous images of {info.normal:,} / {info.anomalous:,}"
        )
    return tuple(found)


def misprints(figure: Figure) -> tuple[str, ...]:
    """What is known to be wrong with a printed row, by the kind of contradiction."""
    if figure.source != PAPER:
        return ()
    found: dict[str, list[Inconsistency]] = {}
    for entry in inconsistencies():
        about = (entry.table, entry.dataset, entry.method) == (figure.table, figure.dataset, figure.method)
        if about and not figure.category and figure.values.get(entry.metric) == entry.printed:
            found.setdefault(entry.kind, []).append(entry)
    lines = []
    for kind, entries in found.items():
        printed = ", ".join(f"{e.metric.split('_')[0]} {LETTERS[e.metric]} {e.printed}" for e in entries)
        computed = ", ".join(f"{entry.computed:.1f}" for entry in entries)
        lines.append(f"{figure.method}: printed is {printed}; {_KINDS[kind]} {computed}")
    if figure.category and impossible_ap([figure]):
        grid = "F1 and IoU were read off too coarse a grid for these scores"
        lines.append(f"{figure.method}: AP is higher than F1-max allows; {grid}")
    return tuple(lines)


_KINDS = {
    "not the mean of the appendix categories": "the paper's categories give",
    "mAD is not the mean of its metrics": "the row's other figures give",
    "follows from another misprint": "with another misprint put right it is",
    "differs from the same result in Table 4": "its Table 4 gives",
}
