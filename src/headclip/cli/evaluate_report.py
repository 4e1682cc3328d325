"""What `headclip evaluate` and `headclip protocol` print at their end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from headclip.cli.common import EXIT_FAILED, error_line, output

if TYPE_CHECKING:
    from headclip.data.datasets import Dataset
    from headclip.evaluation.comparison import MethodComparison
    from headclip.evaluation.evaluate import Evaluation, Options
    from headclip.evaluation.tables import TableRow
    from headclip.inference.detector import Detector


def report(evaluation: Evaluation, as_json: bool, quiet: bool) -> None:
    """Print tables (or results.json); exit with 1 where no image could be scored."""
    import json

    from headclip.evaluation.outputs import results_json

    if as_json:
        sys.stdout.write(json.dumps(results_json(evaluation), indent=2) + "\n")
    elif not quiet:
        _print(evaluation)
    images = [image for result in evaluation.results for image in result.images]
    if not any(image.ok for image in images):
        error_line(f"none of the {len(images)} images could be scored; see {evaluation.out / 'scores.csv'}")
        raise typer.Exit(EXIT_FAILED)


def leave_if_unchanged(
    out: Path,
    detectors: Mapping[str, Detector],
    datasets: Sequence[Dataset],
    chosen: Options,
    quiet: bool,
    as_json: bool,
) -> None:
    """End the command where it is to go on with a finished evaluation that would only be made again."""
    from headclip.evaluation.outputs import RESULTS
    from headclip.evaluation.unchanged import is_unchanged

    if not chosen.resume or chosen.shard is not None or not is_unchanged(out, detectors, datasets, chosen):
        return
    if as_json:
        sys.stdout.write((out / RESULTS).read_text(encoding="utf-8"))
    elif not quiet:
        output().print(f"finished already, and nothing has changed since: {out / 'tables.md'}", soft_wrap=True)
    raise typer.Exit


def report_shard(evaluation: Evaluation, out: Path, quiet: bool) -> None:
    """Print what a shard has done and what comes next."""
    if quiet:
        return
    images = [image for result in evaluation.results for image in result.images]
    ok, console = sum(image.ok for image in images), output()
    console.print(f"{ok:,} images judged, {len(images) - ok:,} not scored", soft_wrap=True)
    again = f"headclip merge {shlex.quote(str(out))}"
    console.print(
        f"Shard {evaluation.options.shard} is in {evaluation.out}. When all are done: {again}", soft_wrap=True
    )


def _print(evaluation: Evaluation) -> None:
    from headclip.evaluation.tables import LEGEND, PAPER_METHODS

    console, rows, compared = output(), evaluation.rows, evaluation.comparisons
    leakage: dict[str, list[str]] = {}
    for result in evaluation.results:
        leakage.setdefault(result.leakage, []).append(result.method)
    for sentence, names in leakage.items():
        if sentence:
            about = f" ({', '.join(dict.fromkeys(names))})" if len(leakage) > 1 else ""
            console.print(f"WARNING: {sentence}{about}", style="bold red", soft_wrap=True)
    for name in dict.fromkeys(result.name for result in evaluation.results):
        group = [row for row in rows if row.dataset == name]
        own = [row for row in group if row.kind in ("category", "mean")]
        methods = sum(row.kind == "mean" for row in own)
        if methods > 1 or sum(row.kind == "category" for row in own) == methods:  # categories are in the files
            own = [row for row in own if row.kind == "mean"]
        beside = [row for row in group if row.kind in ("published", "difference") and not row.category]
        paper = [row for row in beside if row.source.startswith("HeadCLIP") and _about(row) in PAPER_METHODS]
        if methods > 1:  # once, not minus each method
            paper = list({row.method: row for row in paper if row.kind == "published"}.values())
        counts = next(f"{row.normal:,} normal, {row.anomalous:,} anomalous" for row in own if row.kind == "mean")
        print_table(f"{own[0].title}: {counts}", [*own, *paper])
        differences = [_difference(entry) for entry in compared if entry.dataset == name and entry.metrics]
        if differences:
            print_table(f"{own[0].title}, differences over the same bootstrap draws", differences)
        for entry in compared:
            if entry.dataset == name and entry.reason:
                console.print(f"{entry.second} is not compared with {entry.first}: {entry.reason}\n", soft_wrap=True)
    for title in dict.fromkeys(row.title for row in rows if row.kind == "average"):
        own = [row for row in rows if row.title == title and row.kind == "average"]
        paper = [row for row in rows if row.title == title and row.kind in ("published", "difference")]
        if len(own) > 1:
            paper = [row for row in paper if row.kind == "published"]
        print_table(title.capitalize(), [*own, *paper])
    shared = [entry for entry in compared if not entry.dataset and entry.metrics]
    for title in dict.fromkeys(entry.title for entry in shared):
        differences = [_difference(entry) for entry in shared if entry.title == title]
        print_table(f"{title.capitalize()}, differences over the same bootstrap draws", differences)
    console.print(LEGEND)
    notes: dict[str, dict[str, None]] = {}
    for result in evaluation.results:
        notes.setdefault(result.dataset.info.title, {}).update(dict.fromkeys(result.notes))
    for title, found in notes.items():
        for note in list(found)[:8]:
            console.print(f"{title}: {note}", soft_wrap=True)
        if len(found) > 8:
            console.print(f"{title}: and {len(found) - 8} more notes in tables.md")
    for hint in evaluation.hints:
        console.print(hint, soft_wrap=True)
    console.print(f"Tables: {evaluation.out / 'tables.md'}", soft_wrap=True)


def _about(row: TableRow) -> str:
    return row.method.rsplit(" - ", 1)[-1]


def print_table(title: str, rows: list[TableRow]) -> None:
    """One table in the layout of the paper, R A F M | R P A F I M, narrow enough for 80 columns."""
    from rich.table import Table

    from headclip.evaluation.markdown import footnotes, levels
    from headclip.evaluation.tables import LETTERS, cell

    image, pixel = levels([row for row in rows if row.kind != "published"])
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for level, names in (("image", image), ("pixel", pixel)):
        for number, name in enumerate(names):
            table.add_column(f"{level if number == 0 else ''}\n{LETTERS[name]}", justify="right", no_wrap=True)
    for row in rows:
        style = "bold" if row.kind in ("mean", "average") else "dim" if row.kind == "published" else None
        values = [cell(row, name) for name in (*image, *pixel)]
        table.add_row(_row_title(row), *values, style=style)
        if row.kind in ("mean", "average", "difference") and row.intervals:
            sign = "+" if row.kind == "difference" else ""
            for side, label in enumerate(("  95 % low", "  95 % high")):
                pairs = [row.intervals.get(name) for name in (*image, *pixel)]
                table.add_row(label, *("" if pair is None else f"{pair[side]:{sign}.1f}" for pair in pairs))
    console = output()
    console.print(title, style="bold", soft_wrap=True)
    console.print(table)
    for mark in footnotes(rows):
        console.print(f"paper: {mark}", soft_wrap=True)
    console.print()


def _row_title(row: TableRow) -> str:
    if row.kind == "category":
        return row.category
    if row.kind in ("mean", "average"):
        return row.method
    if row.kind == "published":
        return f"{row.method}, paper"
    return "  difference" if row.source else row.method


def _difference(entry: MethodComparison) -> TableRow:
    """A comparison of two methods as a row of its own."""
    from headclip.evaluation.tables import TableRow

    return TableRow(
        "difference",
        "",
        entry.dataset,
        entry.title,
        "",
        f"{entry.second} - {entry.first}",
        values={name: 100 * value.difference for name, value in entry.metrics.items()},
        intervals={name: (100 * value.low, 100 * value.high) for name, value in entry.metrics.items()},
    )
