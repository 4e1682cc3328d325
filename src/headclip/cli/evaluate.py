"""`headclip evaluate`: judge labelled datasets and score them, or score finished runs again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Device,
    Precision,
    error_line,
    output,
    progress_output,
)

if TYPE_CHECKING:
    from headclip.evaluation.evaluate import Evaluation, Options
    from headclip.evaluation.tables import TableRow


class Protocol(StrEnum):
    """How the pixel metrics are computed."""

    exact = "exact"
    ader = "ader"


class Scale(StrEnum):
    """At which resolution maps and masks meet."""

    image = "image"
    tower = "tower"


def evaluate(
    data: Annotated[
        list[str], typer.Option("--data", "-d", metavar="NAME=PATH", help="A labelled dataset. Repeatable.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for tables and results.")],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN...]", help="Folders of headclip predict, to be scored without a model."),
    ] = None,
    method: Annotated[str, typer.Option(help="Method to use without a checkpoint.")] = "headclip",
    backbone: Annotated[str, typer.Option(help="As in headclip predict.")] = "embedded",
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Adapted parameters made by headclip train.")
    ] = None,
    protocol: Annotated[
        Protocol, typer.Option(help="exact: no threshold grid; ader: comparable with the published tables.")
    ] = Protocol.exact,
    resolution: Annotated[
        Scale | None,
        typer.Option(help="Where maps and masks meet.  [default: image; tower with --protocol ader]"),
    ] = None,
    bootstrap: Annotated[int, typer.Option(min=0, metavar="N", help="Draws for the intervals; 0: none.")] = 1000,
    limit: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="A first look at N images of each category.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    precision: Annotated[Precision, typer.Option(help="In which numbers to compute.")] = Precision.auto,
    image_size: Annotated[
        int | None, typer.Option(min=32, metavar="N", help="Input size of the model, in pixels.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Images at a time.")] = None,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Refuse larger images.  [default: 100000000]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap draws.")] = 0,
    keep_maps: Annotated[bool, typer.Option("--keep-maps/--no-keep-maps", help="Keep 16-bit maps.")] = False,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw ROC, PR and PRO curves.")] = True,
    worst: Annotated[int, typer.Option(min=0, metavar="N", help="Worst misses and false alarms to show.")] = 12,
    allow_leakage: Annotated[
        bool, typer.Option("--allow-leakage", help="Score even images of the training set; marks every table.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the evaluation in DIR.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the evaluation in DIR.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json instead of tables.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Judge labelled datasets and score them, or score finished runs again.

    DIR will hold tables.md, tables.csv, tables.parquet, tables.tex, scores.csv (every image), results.json,
    figures/ and worst.html. An image that cannot be read is a row with the reason; the others go on.
    """
    from headclip.data.datasets import open_spec
    from headclip.data.decode import DEFAULT_MAX_PIXELS
    from headclip.evaluation.evaluate import Options, check_out

    options = Options(
        protocol=protocol.value,
        resolution=None if resolution is None else resolution.value,
        bootstrap=bootstrap,
        seed=seed,
        limit=limit,
        keep_maps=keep_maps,
        resume=resume,
        overwrite=overwrite,
        allow_leakage=allow_leakage,
        figures=figures,
        worst=worst,
        max_pixels=max_pixels or DEFAULT_MAX_PIXELS,
    )
    check_out(out, options)  # before the model is loaded, which takes longer
    datasets = [open_spec(spec) for spec in data]
    arguments = {
        "data": data,
        "method": method,
        "backbone": backbone,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "device": device.value,
        "precision": precision.value,
        "image_size": image_size,
        "batch_size": batch_size,
    }
    work = _scorer(runs, datasets, out, options) if runs else _judge(arguments, datasets, out, options, quiet)
    evaluation = guarded(work, quiet or as_json)
    report(evaluation, as_json, quiet)


def _judge(arguments: dict[str, Any], datasets: Any, out: Path, options: Options, quiet: bool) -> Any:
    from headclip.evaluation.evaluate import evaluate as run
    from headclip.inference.detector import Detector

    detector = Detector(
        arguments["backbone"],
        arguments["checkpoint"],
        device=arguments["device"],
        precision=arguments["precision"],
        image_size=arguments["image_size"],
        batch_size=arguments["batch_size"],
        method=arguments["method"],
    )
    return lambda progress: run(
        detector, datasets, out, options, arguments=arguments, command=command_line(), progress=progress
    )


def _scorer(runs: list[Path], datasets: Any, out: Path, options: Options) -> Any:
    from headclip.evaluation.runs import evaluate_runs

    arguments = {"runs": [str(run) for run in runs]}
    return lambda progress: evaluate_runs(
        runs, datasets, out, options, arguments=arguments, command=command_line(), progress=progress
    )


def guarded(work: Callable[[Any], Evaluation], quiet: bool) -> Evaluation:
    """Run with a progress bar; an interruption says how to go on."""
    try:
        with progress_bar(quiet) as show:
            return work(show)
    except KeyboardInterrupt:
        error_line("interrupted; what was judged is kept. The same command with --resume goes on")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def command_line() -> str:
    """The command as it was given, without the options that only say how to treat the folder."""
    given = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--overwrite")]
    return shlex.join(["headclip", *given])


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[str, int, int, int], None]]:
    """A function that shows each stage of the work on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, console=progress_output(), disable=quiet) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int, failed: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, completed=done, failed="")
            text = f"{failed:,} failed" if failed else ""
            bar.update(tasks[stage], completed=done, total=total, failed=text)

        yield show


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
    for name in dict.fromkeys(result.dataset.name for result in evaluation.results):
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
    numbers = footnotes(rows)
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for level, names in (("image", image), ("pixel", pixel)):
        for number, name in enumerate(names):
            table.add_column(f"{level if number == 0 else ''}\n{LETTERS[name]}", justify="right", no_wrap=True)
    for row in rows:
        style = "bold" if row.kind in ("mean", "average") else "dim" if row.kind == "published" else None
        marks = "".join(f"[{numbers[mark]}]" for mark in row.marks) if row.kind == "published" else ""
        values = [cell(row, name) for name in (*image, *pixel)]
        table.add_row(f"{_row_title(row)} {marks}".rstrip(), *values, style=style)
        if row.kind == "mean" and row.intervals:
            for side, label in enumerate(("  95 % low", "  95 % high")):
                pairs = [row.intervals.get(name) for name in (*image, *pixel)]
                table.add_row(label, *("" if pair is None else f"{pair[side]:.1f}" for pair in pairs))
    console = output()
    console.print(table)
    for mark, number in numbers.items():
        console.print(f"[{number}] {mark}", soft_wrap=True)
    console.print()


def _row_title(row: TableRow) -> str:
    if row.kind == "category":
        return row.category
    if row.kind == "mean":
        return row.method
    if row.kind == "average":
        return row.title
    return f"{row.method}, paper" if row.kind == "published" else "  difference"
