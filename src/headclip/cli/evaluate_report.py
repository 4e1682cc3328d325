"""What `headclip evaluate` prints at its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from headclip.cli.common import EXIT_FAILED, error_line, output

if TYPE_CHECKING:
    from headclip.evaluation.evaluate import Evaluation
    from headclip.evaluation.tables import TableRow


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


def _print(evaluation: Evaluation) -> None:
    from headclip.evaluation.tables import LEGEND, PAPER_METHODS

    console, rows = output(), evaluation.rows
    for result in evaluation.results:
        if result.leakage:
            console.print(f"WARNING: {result.leakage}", style="bold red", soft_wrap=True)
    for name in dict.fromkeys(result.name for result in evaluation.results):
        group = [row for row in rows if row.dataset == name]
        own = [row for row in group if row.kind in ("category", "mean")]
        if sum(row.kind == "category" for row in own) == sum(row.kind == "mean" for row in own):
            own = [row for row in own if row.kind == "mean"]
        beside = [row for row in group if row.kind in ("published", "difference") and not row.category]
        paper = [row for row in beside if row.source.startswith("HeadCLIP") and _about(row) in PAPER_METHODS]
        counts = next(f"{row.normal:,} normal, {row.anomalous:,} anomalous" for row in own if row.kind == "mean")
        print_table(f"{own[0].title}: {counts}", [*own, *paper])
    averages = [row for row in rows if row.kind == "average"]
    if averages:
        print_table("Averages", averages)
    console.print(LEGEND)
    for result in evaluation.results:
        for note in result.notes[:8]:
            console.print(f"{result.dataset.info.title}: {note}", soft_wrap=True)
        if len(result.notes) > 8:
            console.print(f"{result.dataset.info.title}: and {len(result.notes) - 8} more notes in tables.md")
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
        if row.kind == "mean" and row.intervals:
            for side, label in enumerate(("  95 % low", "  95 % high")):
                pairs = [row.intervals.get(name) for name in (*image, *pixel)]
                table.add_row(label, *("" if pair is None else f"{pair[side]:.1f}" for pair in pairs))
    console = output()
    console.print(title, style="bold", soft_wrap=True)
    console.print(table)
    for mark in footnotes(rows):
        console.print(f"paper: {mark}", soft_wrap=True)
    console.print()


def _row_title(row: TableRow) -> str:
    if row.kind == "category":
        return row.category
    if row.kind == "mean":
        return row.method
    if row.kind == "average":
        return row.title
    return f"{row.method}, paper" if row.kind == "published" else "  difference"
