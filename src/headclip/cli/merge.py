"""`headclip merge`: the shards of a run or of an evaluation become one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headclip.cli import options
from headclip.cli.common import EXIT_FAILED, error_line, output
from headclip.cli.evaluate_report import report
from headclip.cli.progress import run_bars, stage_bars

if TYPE_CHECKING:
    from headclip.inference.predict import RunSummary


def merge(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders with shards/ in them, or folders of shards.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="RUN", help="Folder for the whole.  [default: where the shards are]"),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the images are, if the shards saw them in different places."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", metavar="NAME=PATH", help="Where a dataset is now, for evaluations. Repeatable."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in RUN already.")] = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Join what headclip predict --shard or headclip evaluate --shard has written, after checking that all is there.

    The result is what one process would have written, row by row. Killed at any moment, the same command goes on; the
    shards stay as they are. Files are linked, not copied, where the disk is the same.
    """
    from headclip.errors import InputError
    from headclip.evaluation.merging import check_evaluations, is_evaluation_part, merge_evaluations
    from headclip.inference.merging import merge_runs
    from headclip.runs.parts import check_parts, open_part, part_folders

    folders = part_folders(runs)
    kinds = {is_evaluation_part(folder) for folder in folders}
    if len(kinds) > 1:
        raise InputError("these are shards of runs and of evaluations; merge the ones and the others on their own")
    if kinds == {True}:
        if root is not None:
            raise InputError("--root is for runs; for an evaluation, --data NAME=PATH says where a dataset is")
        check_evaluations(folders)  # before there is a bar on the screen
        with stage_bars(quiet or as_json) as stages:
            evaluation = merge_evaluations(runs, out, data=data or (), overwrite=overwrite, progress=stages)
        report(evaluation, as_json, quiet)
        return
    if data or as_json:
        raise InputError("--data and --json are for evaluations; these are the shards of a run")
    check_parts([open_part(folder) for folder in folders])
    with run_bars(quiet, []) as bars:
        summary = merge_runs(runs, out, root=root, overwrite=overwrite, progress=bars)
    if not quiet:
        _print(summary)
    if not summary.ok:
        error_line(f"none of the {len(summary.rows)} images could be judged; see {summary.folder / 'results.csv'}")
        raise typer.Exit(EXIT_FAILED)


def _print(summary: RunSummary) -> None:
    console = output()
    kept = f", {summary.skipped:,} of them earlier" if summary.skipped else ""
    console.print(
        f"{len(summary.rows):,} images joined{kept}: {len(summary.ok):,} judged, {len(summary.failed):,} failed"
    )
    console.print(f"Report: {summary.report}", soft_wrap=True)
