"""`headclip rejudge`: other thresholds for a finished run, without the model."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headclip.cli import judging_options as options
from headclip.cli.common import counted, output, print_ok_with_regions
from headclip.cli.options import Quiet
from headclip.cli.progress import count_bar
from headclip.cli.volume_options import print_volume_verdicts

if TYPE_CHECKING:
    from headclip.runs.run import Run


def rejudge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder of headclip predict.")],
    calibration: options.CalibrationFile = None,
    threshold: options.Threshold = None,
    pixel_threshold: options.PixelThreshold = None,
    min_area: options.MinArea = None,
    ignore_border: options.IgnoreBorder = None,
    pixel_mm: options.PixelMm = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="What is known of the images: a labelled folder, a list (CSV, JSON), or a dataset by name.",
        ),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Take verdicts and regions away.")] = False,
    quiet: Quiet = False,
) -> None:
    """Judge a finished run again: verdicts, regions, masks, tables and report change, scores and maps stay.

    What is not given stays as it is in RUN. Stopped at any moment, RUN is as before or as after.
    """
    from headclip.judgement.choosing import Judging, choose
    from headclip.runs.rejudge import rejudge as judge_again
    from headclip.runs.run import Run

    judging = options.judging(calibration, threshold, pixel_threshold, min_area, ignore_border, pixel_mm)
    if not none and labels is None and judging == Judging():
        raise typer.BadParameter("say what to change: --calibration FILE, --threshold X, or another option below")
    opened = Run.open(run)
    chosen = choose(Judging(none=True) if none else judging, opened.settings, opened.judgement)
    if chosen.criteria is None and not none:
        from headclip.errors import InputError

        raise InputError(
            f"{run} has no thresholds yet; give --calibration FILE or --threshold X"
            + (f" ({chosen.note})" if chosen.note else "")
        )
    if not quiet:
        options.warn_of_overlap(judging.calibration, map(opened.image_path, opened.rows))
    known = _labels(opened, labels)
    numbers, total = itertools.count(1), len(opened.rows)
    with count_bar("judging again", quiet) as show:
        done = judge_again(
            run,
            chosen.criteria,
            calibration=chosen.calibration,
            note=chosen.note,
            labels=known,
            on_done=lambda name: show(next(numbers), total),
        )
    if not quiet:
        _print(done.run, len(done.changed))


def _labels(run: Run, spec: str | None) -> dict[str, int] | None:
    """Labels by the names in the run."""
    if spec is None:
        return None
    from headclip.data.datasets import open_spec
    from headclip.errors import InputError
    from headclip.runs.labels import match_labels

    dataset = open_spec(spec, lenient=True)
    known = match_labels(run, dataset.records, dataset.root)
    if not known:
        raise InputError(f"{spec} has no label for any image of {run.folder}")
    return known


def _print(run: Run, changed: int) -> None:
    console = output()
    if run.judgement is None:
        console.print(f"No thresholds any more in {run.folder}", soft_wrap=True)
        return
    counts, known = run.judgement["verdicts"], run.judgement["labelled"]
    console.print(run.judgement["note"], soft_wrap=True)
    new = f"{counted(changed, 'verdict')} {'is' if changed == 1 else 'are'} new"
    console.print(
        f"{counts['defect']:,} defect, {counts['review']:,} to review, {counts['ok']:,} ok; "
        f"{counted(run.judgement['regions'], 'region')}; {new}",
        soft_wrap=True,
    )
    print_ok_with_regions(run.judgement)
    print_volume_verdicts(run.folder)
    if known:
        shares = {
            name: "not defined" if known[key] is None else f"{known[key]:.1%}"
            for name, key in (("recall", "recall"), ("precision", "precision"), ("false alarms", "false_alarm_rate"))
        }
        text = ", ".join(f"{name} {value}" for name, value in shares.items())
        console.print(f"Against {known['images']:,} labels: {text}", soft_wrap=True)
        if not known["caught"] and not known["passed"]:
            console.print(
                "All of them contradict the verdicts. Where labels are marks of errors alone, recall and precision say "
                "nothing: they need images that were judged rightly too.",
                soft_wrap=True,
            )
    console.print(f"Report: {run.report}", soft_wrap=True)
