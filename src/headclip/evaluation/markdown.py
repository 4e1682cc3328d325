"""Tables as Markdown: a summary over datasets in the layout of the paper's Tables 1-3, then each dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headclip.evaluation.scoring import DatasetResult
from headclip.evaluation.tables import (
    DAGGER,
    IMAGE_COLUMNS,
    LEGEND,
    LETTERS,
    PIXEL_COLUMNS,
    TableRow,
    cell,
)


def levels(rows: Sequence[TableRow]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The image and pixel columns that any row has a value in."""
    present = {name for row in rows for name in row.values}
    return (
        IMAGE_COLUMNS if present & set(IMAGE_COLUMNS) else (),
        PIXEL_COLUMNS if present & set(PIXEL_COLUMNS) else (),
    )


def footnotes(rows: Sequence[TableRow]) -> dict[str, int]:
    """Every mark of the rows with its number, in order."""
    return {mark: number for number, mark in enumerate(dict.fromkeys(m for row in rows for m in row.marks), 1)}


def markdown(results: Sequence[DatasetResult], rows: Sequence[TableRow], facts: Mapping[str, Any]) -> str:
    """All tables of an evaluation."""
    parts = [heading(results, facts)]
    parts.append(_summary(rows))
    for name in dict.fromkeys(result.name for result in results):
        group = [result for result in results if result.name == name]
        parts.append(_dataset(group, [row for row in rows if row.dataset == name]))
    return "\n".join(parts)


def _summary(rows: Sequence[TableRow]) -> str:
    """Means of all datasets and the averages over them; the intervals of the means stand with their datasets."""
    parts = ["## Summary\n\n" + table([row for row in rows if row.kind in ("mean", "average")], "dataset")]
    averages = [row for row in rows if row.kind == "average"]
    with_intervals = [row for row in averages if row.intervals]
    if with_intervals:
        parts.append(
            "95 % intervals of the averages (bootstrap over the images of each category):\n\n"
            + table(with_intervals, "dataset", intervals=True)
        )
    beside = [row for row in rows if row.kind in ("published", "difference") and not row.dataset]
    for title in dict.fromkeys(row.title for row in beside):
        ours = [row for row in averages if row.title == title]
        chosen = [row for row in beside if row.title == title]
        parts.append(f"Published, {title}, and ours minus it:\n\n" + _beside([*ours, *chosen]))
    return "\n".join(parts)


def heading(results: Sequence[DatasetResult], facts: Mapping[str, Any]) -> str:
    """What was run on what, and a banner where the figures do not mean what they seem to."""
    lines = ["# Evaluation", ""]
    lines += [f"> **{DAGGER} {result.leakage}**" for result in results if result.leakage]
    lines += [""] if len(lines) > 2 else []
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    return "\n".join([*lines, f"- {LEGEND}", ""])


def _dataset(results: Sequence[DatasetResult], rows: Sequence[TableRow]) -> str:
    info = results[0].dataset.info
    parts = [f"## {info.title} (`{info.name}`)\n"]
    categories = [row for row in rows if row.kind == "category"]
    means = [row for row in rows if row.kind == "mean"]
    if len(categories) > len(means):
        parts.append(table([*categories, *means], "category"))
    with_intervals = [row for row in [*categories, *means] if row.intervals]
    if with_intervals:
        shown = with_intervals if len(categories) > len(means) else [row for row in means if row.intervals]
        parts.append("95 % intervals (bootstrap over images):\n\n" + table(shown, "category", intervals=True))
    beside = [row for row in rows if row.kind in ("published", "difference") and not row.category]
    if beside:
        parts.append("Published figures, and ours minus them:\n\n" + _beside([*means, *beside]))
    appendix = [row for row in rows if row.kind in ("published", "difference") and row.category]
    if appendix:
        chosen = [row for row in appendix if row.method.rsplit(" - ", 1)[-1] == "HeadCLIP"]
        parts.append("By category, HeadCLIP's paper, and ours minus it:\n\n" + _beside(chosen, "category"))
    notes = list(dict.fromkeys(note for result in results for note in result.notes))
    if notes:
        parts.append("Notes:\n\n" + "\n".join(f"- {note}" for note in notes) + "\n")
    return "\n".join(parts)


def table(rows: Sequence[TableRow], first: str, *, intervals: bool = False) -> str:
    """Our own rows; `first` names what distinguishes them: dataset or category."""
    image, pixel = levels(rows)
    several = len({row.method.removesuffix(DAGGER).strip() for row in rows}) > 1
    head = [first, *(["method"] if several else []), "normal / anomalous"]
    names = [*(f"image {LETTERS[n]}" for n in image), *(f"pixel {LETTERS[n]}" for n in pixel)]
    lines = [_line([*head, *names]), _line([*["---"] * len(head), *["---:"] * len(names)])]
    for row in rows:
        label = (row.category or "mean") if first == "category" else row.title
        label += f" {DAGGER}" if row.method.endswith(DAGGER) and not several else ""
        counts = "" if row.normal is None else f"{row.normal:,} / {row.anomalous:,}"
        values = [_interval(row, n) if intervals else cell(row, n) for n in (*image, *pixel)]
        cells = [label, *([row.method] if several else []), counts, *values]
        is_total = not intervals and (row.kind == "average" or (first == "category" and row.kind == "mean"))
        lines.append(_line([f"**{text}**" if is_total and text not in ("", "-") else text for text in cells]))
    return "\n".join(lines) + "\n"


def _interval(row: TableRow, name: str) -> str:
    if name not in row.intervals:
        return "-"
    low, high = row.intervals[name]
    return f"{low:.1f}-{high:.1f}"


def _beside(rows: Sequence[TableRow], first: str = "") -> str:
    image, pixel = levels([row for row in rows if row.kind != "published"])
    names = (*image, *pixel)
    shown = [row for row in rows if set(names) & set(row.values)]
    numbers = footnotes(shown)
    head = [*([first] if first else []), "method", "source"]
    columns = [*(f"image {LETTERS[n]}" for n in image), *(f"pixel {LETTERS[n]}" for n in pixel)]
    lines = [_line([*head, *columns]), _line([*["---"] * len(head), *["---:"] * len(columns)])]
    several = len({row.method.rsplit(" - ", 1)[0] for row in rows if row.kind == "difference"}) > 1
    for row in shown:
        note = " ".join(f"[{numbers[mark]}]" for mark in row.marks)
        if row.kind == "difference":
            label = f"*{row.method}*" if several else "*difference*"
        else:
            label = f"{row.method} {note}".strip()
        source = "this evaluation" if not row.source else "" if row.kind == "difference" else row.source
        lead = [row.category] if first else []
        lines.append(_line([*lead, label, source, *(cell(row, name) for name in names)]))
    notes = [f"[{number}] {mark}  " for mark, number in numbers.items()]
    return "\n".join([*lines, "", *notes]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
