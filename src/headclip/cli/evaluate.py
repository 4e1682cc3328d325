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

from headclip.cli.common import EXIT_INTERRUPTED, Device, Precision, error_line, parse_settings, progress_output
from headclip.cli.evaluate_report import report
from headclip.cli.predict import _lift_pillow_limit as lift_pillow_limit
from headclip.cli.predict import _load_detector as load_detector

if TYPE_CHECKING:
    from headclip.evaluation.evaluate import Evaluation, Options


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
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="See headclip methods.  [default: the checkpoint's, else headclip]"),
    ] = None,
    backbone: Annotated[str, typer.Option(help="As in headclip predict.")] = "embedded",
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Adapted parameters made by headclip train.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting of the method. Repeatable.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Normal images, for methods with a few-shot variant.")
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
        "category": None,  # each image's own
        "settings": parse_settings(setting or []),
        "reference": None if reference is None else str(reference),
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

    lift_pillow_limit(options.max_pixels)
    detector = load_detector(arguments, quiet)
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
