"""A threshold from the normal images that a run compares with, without any others."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headclip.cli import options
from headclip.cli.progress import stage_bars
from headclip.cli.volume_options import images_alone

if TYPE_CHECKING:
    from headclip.inference.detector import Detector
    from headclip.judgement.choosing import Judging

FalseAlarms = Annotated[
    float | None,
    typer.Option(
        "--false-alarms",
        parser=options.share,
        metavar="SHARE",
        help="With --reference: thresholds by these images, each judged beside the others, that about this share of "
        "normal ones exceed.",
    ),
]


def check_false_alarms(
    share: float | None, reference: Path | None, calibration: Path | None, threshold: float | None, *, elsewhere: bool
) -> None:
    """Raise InputError for what does not go together."""
    from headclip.errors import InputError
    from headclip.judgement.conformal import Promise

    if share is None:
        return
    if reference is None:
        raise InputError(
            "--false-alarms sets thresholds by the normal images of --reference; add it, or make a file with "
            "headclip calibrate for --calibration"
        )
    if calibration is not None or threshold is not None:
        given = "--calibration" if calibration is not None else "--threshold"
        raise InputError(f"--false-alarms and {given} exclude each other; give one of them")
    if elsewhere:
        raise InputError("--false-alarms: leave --engine ray out, or use the file that headclip calibrate makes")
    Promise(share)


def judging_beside(
    judging: Judging, detector: Detector, folder: Path | None, share: float | None, max_pixels: int, quiet: bool
) -> Judging:
    """What was asked for, by thresholds that about that share of normal images exceeds, where one was given.

    A share that so few images cannot keep is said on stderr.

    Raises:
        InputError: fewer than two images can be judged.
    """
    from headclip.inference.leaving_out import calibrate_on_references
    from headclip.judgement.conformal import share_text

    if share is None or folder is None:
        return judging
    files = images_alone([str(folder)]).files
    with stage_bars(quiet) as show:
        found = calibrate_on_references(
            *(detector, files, share, judging.rules),
            max_pixels=max_pixels,
            progress=lambda done, total, failed: show("judging normal images", done, total, failed),
        )
    least = found.terms.false_alarms or share
    if least > share and not quiet:
        warnings.warn(
            f"{found.image.images:,} normal images are too few for {share_text(share)} false alarms; they can say "
            f"{share_text(least)}",
            stacklevel=2,
        )
    return replace(judging, calibration=found)
