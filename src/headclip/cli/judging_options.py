"""Options about thresholds and regions, which several commands share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headclip.cli.options import share

if TYPE_CHECKING:
    from headclip.judgement.calibration import Calibration
    from headclip.judgement.choosing import Judging

CalibrationFile = Annotated[
    Path | None,
    typer.Option("--calibration", metavar="FILE", help="Thresholds from headclip calibrate --out."),
]
Threshold = Annotated[
    float | None,
    typer.Option(parser=share, metavar="X", help="Image score above which an image is a defect, set by hand; 0 to 1."),
]
PixelThreshold = Annotated[
    float | None,
    typer.Option(
        parser=share, metavar="Y", help="Map value above which a pixel belongs to a region, set by hand; 0 to 1."
    ),
]
MinArea = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Drop regions of fewer pixels.  [default: the calibration's, else 1]"),
]
IgnoreBorder = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="N", help="Look at no pixel within N of the image's edges.  [default: the calibration's, else 0]"
    ),
]
PixelMm = Annotated[
    float | None, typer.Option(metavar="MM", help="Side of a pixel in millimetres; regions are then measured in mm.")
]


def judging(
    calibration: Path | None,
    threshold: float | None,
    pixel_threshold: float | None,
    min_area: int | None,
    ignore_border: int | None,
    pixel_mm: float | None,
) -> Judging:
    """The options as one object; reads the calibration file.

    Raises:
        CalibrationError: the file is missing or no calibration.
        InputError: options that exclude each other.
    """
    from headclip.judgement.calibration import Calibration
    from headclip.judgement.choosing import Judging

    read = None if calibration is None else Calibration.load(calibration)
    return Judging(read, threshold, pixel_threshold, min_area, ignore_border, pixel_mm)


def warn_of_overlap(calibration: Calibration | None, files: Iterable[Path]) -> None:
    """Say how many of the images to judge the calibration was made on: its promise is not about them."""
    from headclip.judgement.copies import calibrated_on

    shared = [] if calibration is None else calibrated_on(calibration.data, files)
    if shared:
        warnings.warn(
            f"{len(shared):,} of these images were used for the calibration, e.g. {shared[0]}; its promise is about "
            "others, so verdicts and figures on them flatter",
            stacklevel=2,
        )
