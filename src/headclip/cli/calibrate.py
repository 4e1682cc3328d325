"""`headclip calibrate`: thresholds with a promise from images believed normal."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli import options
from headclip.cli.common import EXIT_INTERRUPTED, Device, Precision, output, parse_settings
from headclip.cli.judging_options import IgnoreBorder, MinArea

if TYPE_CHECKING:
    from headclip.judgement.calibration import Calibration
    from headclip.judgement.conformal import Promise
    from headclip.judgement.regions import RegionRules
    from headclip.judgement.scored import Scored


class Data(StrEnum):
    """Images that need not be given."""

    synthetic = "synthetic"


def calibrate(
    normals: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NORMALS...]", help="Images believed normal, or a finished RUN of them (no model)."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="Where to write it.")] = None,
    false_alarms: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of normal images that may raise an alarm.")
    ] = 0.01,
    confidence: Annotated[
        float | None,
        typer.Option(metavar="C", help="Keep it with this confidence, e.g. 0.95.  [default: on average]"),
    ] = None,
    contaminated: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of NORMALS that may not be normal after all.")
    ] = 0.0,
    tightest: Annotated[
        bool, typer.Option("--tightest", help="If the images are too few, promise what they can keep.")
    ] = False,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="NORMALS has labels, by its folders or list: the best F1 instead.")
    ] = False,
    cost_miss: Annotated[
        float | None, typer.Option(metavar="X", help="With --labelled: least cost; that of a missed defect.")
    ] = None,
    cost_false_alarm: Annotated[float | None, typer.Option(metavar="X", help="And that of a false alarm.")] = None,
    prevalence: Annotated[
        float | None, typer.Option(metavar="SHARE", help="And the share of defects.  [default: that of the images]")
    ] = None,
    min_area: MinArea = None,
    ignore_border: IgnoreBorder = None,
    data: Annotated[
        Data | None, typer.Option(help="Instead of NORMALS: rendered images; a start that promises nothing.")
    ] = None,
    count: Annotated[int, typer.Option(min=2, metavar="N", help="With --data: how many.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="With --data: which.")] = 0,
    into_checkpoint: Annotated[
        bool, typer.Option("--into-checkpoint", help="Make it the default of --checkpoint, in that file.")
    ] = False,
    backbone: options.Backbone = "embedded",
    checkpoint: options.OneCheckpoint = None,
    method: options.OneMethod = None,
    category: Annotated[str | None, typer.Option(metavar="NAME", help="What the images show.")] = None,
    setting: options.Settings = None,
    reference: options.Reference = None,
    device: options.OnDevice = Device.auto,
    precision: options.InPrecision = Precision.auto,
    image_size: options.ImageSize = None,
    batch_size: options.BatchSize = None,
    max_pixels: options.MaxPixels = None,
    tile: Annotated[bool, typer.Option("--tile", help="In overlapping tiles, as headclip predict --tile.")] = False,
    tile_overlap: Annotated[
        float, typer.Option(min=0.0, max=0.75, metavar="X", help="Share of a tile that its neighbour sees too.")
    ] = 0.25,
    quiet: options.Quiet = False,
) -> None:
    """Find thresholds that raise a stated share of false alarms at most.

    The images must be like those to be judged (same part, camera, light) and unused otherwise. The result is a small
    JSON file for headclip predict --calibration and headclip rejudge --calibration. It belongs to this model alone.
    """
    from headclip.judgement.conformal import Promise
    from headclip.judgement.regions import RegionRules

    _check(normals, data, out, into_checkpoint, checkpoint)
    promise = Promise(false_alarms, confidence, contaminated)
    costs = _costs(labelled, cost_miss, cost_false_alarm, prevalence)
    rules = RegionRules(min_area or 1, ignore_border or 0)
    arguments = {
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
        "max_pixels": max_pixels,
        "tile": tile_overlap if tile else None,
    }
    try:
        scored, settings, labels = _score(normals or [], arguments, rules, labelled, data, (count, seed), quiet)
    except KeyboardInterrupt:
        sys.stderr.write(
            "interrupted; nothing was written. headclip predict keeps what it has judged: calibrate its RUN\n"
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    found = _calibrate(scored, settings, promise, labels, costs, data is not None, tightest)
    if into_checkpoint:
        _write_into(checkpoint, found)
    if out is not None:
        found.save(out)
    if not quiet:
        _print(found, promise, scored, out, checkpoint if into_checkpoint else None)


def _check(
    normals: list[str] | None, data: Data | None, out: Path | None, into_checkpoint: bool, checkpoint: Path | None
) -> None:
    from headclip.errors import InputError

    if bool(normals) == (data is not None):
        raise InputError("give images believed normal, or --data synthetic; one of the two")
    if out is None and not into_checkpoint:
        raise InputError("--out FILE.json says where the calibration goes")
    if into_checkpoint and checkpoint is None:
        raise InputError("--into-checkpoint needs --checkpoint FILE, the file to put it into")


def _costs(labelled: bool, miss: float | None, false_alarm: float | None, prevalence: float | None) -> Any:
    from headclip.errors import InputError
    from headclip.judgement.optimal import Costs

    given = [value for value in (miss, false_alarm, prevalence) if value is not None]
    if not given:
        return None
    if not labelled:
        raise InputError("costs and prevalence need --labelled: without defects nothing is known of misses")
    return Costs(1.0 if miss is None else miss, 1.0 if false_alarm is None else false_alarm, prevalence)


def _score(
    normals: list[str],
    arguments: dict[str, Any],
    rules: RegionRules,
    labelled: bool,
    data: Data | None,
    rendered: tuple[int, int],
    quiet: bool,
) -> tuple[Scored, dict[str, Any], dict[str, int] | None]:
    """The scores, what their detector says of itself, and labels by name where they were asked for."""
    from headclip.cli.models import lift_pillow_limit, load_detector
    from headclip.cli.progress import stage_bars
    from headclip.data.decode import DEFAULT_MAX_PIXELS
    from headclip.inference.run import Run, is_run_folder
    from headclip.judgement import scored as scoring

    with stage_bars(quiet) as show:

        def progress(done: int, total: int, failed: int) -> None:
            show("judging", done, total, failed)

        if len(normals) == 1 and is_run_folder(Path(normals[0])):
            run = Run.open(normals[0])
            found = scoring.score_run(run, rules, progress=progress)
            return found, run.settings, _run_labels(run) if labelled else None
        files, labels = _files(normals, labelled) if data is None else ([], None)
        limit = arguments["max_pixels"] or DEFAULT_MAX_PIXELS
        lift_pillow_limit(limit)
        detector = load_detector(arguments, quiet)
        if data is not None:
            count, seed = rendered
            found = scoring.score_rendered(detector, count, rules, seed=seed, progress=progress)
        else:
            found = scoring.score_images(detector, files, rules, max_pixels=limit, progress=progress)
        return found, detector.describe(), labels


def _files(normals: list[str], labelled: bool) -> tuple[Any, dict[str, int] | None]:
    """The images, and with --labelled their labels by name."""
    from headclip.data.discover import ImageFile, discover
    from headclip.errors import InputError
    from headclip.inference.run import is_run_folder

    if not labelled:
        return discover(normals, skip_folder=is_run_folder).files, None
    from headclip.data.datasets import open_spec

    if len(normals) != 1:
        raise InputError("--labelled takes one folder, list (CSV, JSON) or NAME=PATH")
    dataset = open_spec(normals[0], lenient=True)
    known = [(dataset.relative(record.path), record) for record in dataset.records if record.label is not None]
    if not known:
        raise InputError(f"{normals[0]} has no labels; give a folder with good/ and bad/ or the like, or a list")
    labels = {name: record.label for name, record in known if record.label is not None}
    return [ImageFile(record.path, name) for name, record in known], labels


def _run_labels(run: Any) -> dict[str, int]:
    from headclip.errors import InputError

    labels: dict[str, int] = run.load_labels()
    if not labels:
        raise InputError(f"{run.folder} has no labels; give it some with `headclip rejudge RUN --labels PATH`")
    return labels


def _calibrate(
    scored: Scored,
    settings: dict[str, Any],
    promise: Promise,
    labels: dict[str, int] | None,
    costs: Any,
    synthetic: bool,
    tightest: bool,
) -> Calibration:
    from headclip.errors import InputError
    from headclip.judgement.calibrate import calibrate as keep_promise
    from headclip.judgement.calibrate import calibrate_labelled

    if not scored.scores:
        reason = next(iter(scored.failed.values()), "none given")
        raise InputError(f"none of the images could be judged ({reason})")
    if labels is not None:
        return calibrate_labelled(scored, labels, settings, costs, promise)
    return keep_promise(scored, settings, promise, kind="synthetic" if synthetic else "conformal", tightest=tightest)


def _write_into(checkpoint: Path | None, found: Calibration) -> None:
    import json

    from headclip.methods.checkpoint import write_calibration

    assert checkpoint is not None
    write_calibration(checkpoint, json.loads(found.to_json()))


def _print(found: Calibration, promise: Promise, scored: Scored, out: Path | None, checkpoint: Path | None) -> None:
    console = output()
    image, pixel = found.image, found.pixel
    console.print(found.describe(), soft_wrap=True)
    console.print(f"Image threshold {image.threshold:.6f}: an alarm above it", soft_wrap=True)
    if image.high is None:
        console.print(f"Verdicts: ok up to {image.low:.6f}, above it review", soft_wrap=True)
    elif image.high > image.low:
        console.print(
            f"Verdicts: ok up to {image.low:.6f}, review up to {image.high:.6f}, above it defect", soft_wrap=True
        )
    else:
        console.print(f"Verdicts: ok up to {image.low:.6f}, above it defect", soft_wrap=True)
    if pixel is not None:
        console.print(f"Pixel threshold {pixel.threshold:.6f}: a region is where the map is above it", soft_wrap=True)
    for what, value in (("image", image.threshold), ("pixel", 0.0 if pixel is None else pixel.threshold)):
        if value >= 1.0:
            console.print(
                f"The {what} threshold is the highest value there is: it never raises an alarm", soft_wrap=True
            )
    if found.kind == "conformal":
        _print_tighter(found, promise, scored)
    for name, reason in list(scored.failed.items())[:10]:
        console.print(f"  not judged: {name}: {reason}", soft_wrap=True)
    for path in (out, checkpoint):
        if path is not None:
            console.print(f"Calibration: {path}", soft_wrap=True)


def _print_tighter(found: Calibration, promise: Promise, scored: Scored) -> None:
    """What more images would give, and which of these to look at."""
    from dataclasses import replace

    from headclip.judgement.conformal import images_needed, share_text, suspects_of, tighter_promises

    console = output()
    kept = replace(promise, false_alarms=found.terms.false_alarms or promise.false_alarms)
    given = len(scored.scores)
    tighter = tighter_promises(kept)
    able = [rate for rate, images in tighter.items() if images <= given]
    if able:
        console.print(f"  these images could promise {share_text(min(able))} as well", soft_wrap=True)
    for rate, images in [item for item in tighter.items() if item[1] > given][:3]:
        console.print(f"  {share_text(rate)} would need {images:,} images", soft_wrap=True)
    closing = images_needed(replace(kept, confidence=kept.band_confidence))
    if found.image.high is None:
        console.print(f"  verdicts of defect would need {closing:,} images", soft_wrap=True)
    elif kept.confidence is None:
        console.print(f"  for the same with {kept.band_confidence:.0%} confidence, add --confidence", soft_wrap=True)
    suspects = suspects_of(len(scored.scores), promise.contaminated)
    if suspects:
        text = f"If {suspects} of them are not normal, it is probably these; without them the threshold drops:"
        console.print(text, soft_wrap=True)
        for name, score in scored.highest(min(suspects, 10)):
            console.print(f"  {score:.6f} {name}", soft_wrap=True)
