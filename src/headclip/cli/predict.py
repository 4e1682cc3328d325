"""`headclip predict`: images in, scores, maps and a report out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    parse_settings,
    progress_output,
)

if TYPE_CHECKING:
    from headclip.data.discover import ImageSet
    from headclip.inference.predict import Progress, RunSummary

_SHOWN_FAILURES = 10


def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Images, folders (with subfolders), quoted globs.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="Folder for the results.")],
    backbone: Annotated[
        str,
        typer.Option(help="'embedded', a name such as ViT-L-14-336, a hub id, a folder or a checkpoint file."),
    ] = "embedded",
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What headclip train learnt, or a .pth that a method's authors published."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="See headclip methods.  [default: the checkpoint's, else headclip]"),
    ] = None,
    category: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What the images show, for methods that ask.  [default: object]"),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any setting of the method, e.g. --set alpha=0.5. Repeatable."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Normal images, for methods with a few-shot variant."),
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in RUN.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in RUN.")] = False,
    top: Annotated[int, typer.Option(min=0, metavar="N", help="Rows of the closing table.")] = 10,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Judge images and write tables, maps, overlays and a report.

    RUN will hold report.html, results.csv, results.parquet, maps/ (16-bit PNG), overlays/, previews/ and
    run.json. An image that cannot be read becomes a row with the reason; the others go on.
    """
    from headclip.data.decode import DEFAULT_MAX_PIXELS
    from headclip.data.discover import discover
    from headclip.inference.run import is_run_folder
    from headclip.inference.run_writer import check_output

    limit = DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
    images = discover(inputs, skip_folder=is_run_folder)
    check_output(out, resume=resume, overwrite=overwrite)  # before the model is loaded, which takes longer
    _lift_pillow_limit(limit)
    arguments = {
        "inputs": inputs,
        "backbone": backbone,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "method": method,
        "category": category,
        "settings": parse_settings(setting or []),
        "reference": None if reference is None else str(reference),
        "device": device.value,
        "precision": precision.value,
        "image_size": image_size,
        "batch_size": batch_size,
        "max_pixels": limit,
    }
    detector = _load_detector(arguments, quiet)
    summary = _run(detector, images, out, limit, arguments, resume=resume, overwrite=overwrite, quiet=quiet)
    if not quiet:
        _print_summary(summary, top)
    if not summary.ok:
        error_line(f"none of the {len(summary.rows)} images could be judged; see {out / 'results.csv'}")
        raise typer.Exit(EXIT_FAILED)


def _load_detector(arguments: dict[str, Any], quiet: bool) -> Any:
    status: AbstractContextManager[Any] = (
        nullcontext() if quiet else progress_output().status(f"loading {arguments['backbone']}")
    )
    with status:
        from headclip.data.discover import discover
        from headclip.inference.detector import Detector

        chosen = {name: arguments[name] for name in ("method", "category", "settings")}
        chosen = {name: value for name, value in chosen.items() if value not in (None, {})}
        if arguments["reference"] is not None:
            chosen["references"] = [image.path for image in discover([arguments["reference"]])]
        return Detector(
            arguments["backbone"],
            arguments["checkpoint"],
            device=arguments["device"],
            precision=arguments["precision"],
            image_size=arguments["image_size"],
            batch_size=arguments["batch_size"],
            **chosen,
        )


def _run(
    detector: Any,
    images: ImageSet,
    out: Path,
    max_pixels: int,
    arguments: dict[str, Any],
    *,
    resume: bool,
    overwrite: bool,
    quiet: bool,
) -> RunSummary:
    from headclip.inference.predict import predict_run

    last: list[Progress] = []
    try:
        with _progress_bar(quiet, last) as show:
            return predict_run(
                detector,
                images,
                out,
                resume=resume,
                overwrite=overwrite,
                max_pixels=max_pixels,
                arguments=arguments,
                progress=show,
            )
    except KeyboardInterrupt:
        done = f"{last[-1].done:,} of {last[-1].total:,}" if last else "no"
        message = f"interrupted; {done} images are done and kept. To go on: {_resume_command()}"
        sys.stderr.write(message + "\n")
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def _progress_bar(quiet: bool, last: list[Progress]) -> Iterator[Callable[[Progress], None]]:
    """A function that shows progress on stderr and leaves the last state of judging in `last`."""
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[failed]}"),
    )
    with Bar(*columns, console=progress_output(), disable=quiet) as bar:
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            if progress.stage == "judging":
                last[:] = [progress]
            if progress.stage not in tasks:
                start = progress.done if progress.stage == "judging" else 0
                tasks[progress.stage] = bar.add_task(
                    progress.stage, total=progress.total, completed=start, rate="", failed=""
                )
            task = tasks[progress.stage]
            speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
            failed = f"{progress.failed:,} failed" if progress.failed else ""
            bar.update(task, completed=progress.done, rate=f"{speed:,.1f} images/s" if speed else "", failed=failed)

        yield show


def _print_summary(summary: RunSummary, top: int) -> None:
    from rich.table import Table

    console = output()
    best = summary.top(top)
    if best:
        table = Table(title="Most anomalous images", title_justify="left", title_style="bold", box=None)
        table.add_column("#", justify="right")
        table.add_column("score", justify="right")
        table.add_column("size", justify="right")
        table.add_column("image", overflow="fold")
        for rank, row in enumerate(best, start=1):
            table.add_row(str(rank), f"{row.score:.4f}", f"{row.width} x {row.height}", row.path)
        console.print(table)
        console.print()
    kept = f", {summary.skipped:,} of them earlier" if summary.skipped else ""
    console.print(f"{len(summary.ok):,} images judged{kept}, {len(summary.failed):,} failed", soft_wrap=True)
    for row in summary.failed[:_SHOWN_FAILURES]:
        console.print(f"  {row.path}: {row.reason}", soft_wrap=True)
    if len(summary.failed) > _SHOWN_FAILURES:
        console.print(f"  and {len(summary.failed) - _SHOWN_FAILURES:,} more, see results.csv")
    console.print(f"Report: {summary.report}", soft_wrap=True)


def _lift_pillow_limit(max_pixels: int) -> None:
    """Some of Pillow's decoders have a fixed limit of their own; the user has just set a larger one."""
    from PIL import Image

    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = None


def _resume_command() -> str:
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--overwrite", "--resume")]
    return shlex.join(["headclip", *arguments, "--resume"])
