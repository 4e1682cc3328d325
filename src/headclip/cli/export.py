"""`headclip export`: a model as one graph for other engines."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from headclip.cli import options
from headclip.cli.common import EXIT_FAILED, error_line, output, parse_settings, progress_output
from headclip.cli.models import load_detector


class Engine(StrEnum):
    """What is to run the graph."""

    onnx = "onnx"
    openvino = "openvino"
    torch = "torch"


def export(
    to: Annotated[Engine, typer.Option("--to", help="ONNX (.onnx), OpenVINO (.xml and .bin) or torch (.pt2).")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The graph; FILE.json comes beside it.")],
    checkpoint: Annotated[
        Path | None,
        typer.Argument(metavar="[CHECKPOINT]", help="As predict --checkpoint.  [default: the embedded model's]"),
    ] = None,
    backbone: options.Backbone = "embedded",
    method: options.OneMethod = None,
    category: Annotated[
        str | None, typer.Option(metavar="NAME", help="What images will show, for methods that put it into words.")
    ] = None,
    setting: options.Settings = None,
    reference: options.Reference = None,
    image_size: options.ImageSize = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What headclip calibrate wrote for this model, to travel in FILE.json."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Images to compare with the original on.  [default: rendered ones]"),
    ] = None,
    check_images: Annotated[int, typer.Option(min=1, metavar="N", help="How many of them at most.")] = 24,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="X",
            help="Largest difference of a map value or a score.  [default: 0.0005; openvino: 0.002]",
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Write a model as one graph and compare it with the original.

    8-bit images of any size in, anomaly map and scores out; resizing and normalisation are inside, the text tower is
    not. The images of --reference travel in the graph, as what their patches look like. FILE.json holds what the model
    is, its calibration and the outcome of the comparison. Beyond the tolerance, nothing is written and the exit status
    is 1. Run the result with headclip predict --checkpoint FILE.
    """
    from headclip.export import export_model
    from headclip.judgement.calibration import Calibration

    arguments = {
        "backbone": backbone,
        "checkpoint": checkpoint,
        "method": method,
        "category": category,
        "settings": parse_settings(setting or []),
        "reference": None if reference is None else str(reference),
        "device": "cpu",
        "precision": "fp32",
        "image_size": image_size,
        "batch_size": None,
    }
    detector = load_detector(arguments, quiet)
    held = None if calibration is None else Calibration.load(calibration)
    if held is not None:
        held.check_fits(detector.describe(), str(calibration))
    notes = progress_output()
    parity = export_model(
        detector,
        to.value,
        out,
        calibration=None if held is None else json.loads(held.to_json()),
        check=check,
        check_count=check_images,
        tolerance=tolerance,
        progress=lambda stage: None if quiet else notes.print(stage),
    )
    if not quiet or not parity.ok:
        for line in parity.lines():
            output().print(line, soft_wrap=True)
    if not parity.ok:
        text = f"the graph for {to.value} differs from the original by more than --tolerance; {out} was not written"
        if to is Engine.openvino and detector.references:
            text += ". OpenVINO's resize differs by single levels, which can change the nearest patch of a reference"
        error_line(text)
        raise typer.Exit(EXIT_FAILED)
    if not quiet:
        output().print(f"written: {out} ({out.stat().st_size / 1e6:,.1f} MB) and {out.name}.json", soft_wrap=True)
