"""`headclip calibrate`: thresholds with a promise from images believed normal."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli import options
from headclip.cli.calibrate_report import print_calibration, print_repeated, warn_of_slices, warn_of_training_images
from headclip.cli.common import EXIT_INTERRUPTED, Device, Precision
from headclip.cli.judging_options import IgnoreBorder, MinArea
from headclip.cli.volume_options import images_alone

if TYPE_CHECKING:
    from headclip.judgement.calibration import Calibration
    from headclip.judgement.conformal import Promise
    from headclip.judgement.optimal import MaskedPixels
    from headclip.judgement.regions import RegionRules
    from headclip.judgement.scored import Scored


class Data(StrEnum):
    """Images that need not be given."""

    synthetic = "synthetic"


def calibrate(
    normals: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NORMALS...]",
            help="Images believed normal, or a finished RUN of them (no model).  [default: those of --reference]",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="Where to write it.")] = None,
    false_alarms: Annotated[
        float,
        typer.Option(parser=options.share, metavar="SHARE", help="Share of normal images that may raise an alarm."),
    ] = 0.01,
    confidence: Annotated[
        float | None,
        typer.Option(
            parser=options.share, metavar="C", help="Keep it with this confidence, e.g. 0.95.  [default: on average]"
        ),
    ] = None,
    contaminated: Annotated[
        float,
        typer.Option(parser=options.share, metavar="SHARE", help="Share of NORMALS that may not be normal after all."),
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
    masks: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="With --labelled and a RUN: the labelled folder, list or dataset it judged."),
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
    category: options.Category = None,
    setting: options.Settings = None,
    reference: options.Reference = None,
    device: options.OnDevice = Device.auto,
    precision: options.InPrecision = Precision.auto,
    image_size: options.ImageSize = None,
    batch_size: options.BatchSize = None,
    max_pixels: options.MaxPixels = None,
    roi: options.RegionOfInterest = None,
    tile: options.Tile = False,
    tile_overlap: options.TileOverlap = None,
    quiet: options.Quiet = False,
) -> None:
    """Find thresholds that raise a stated share of false alarms at most.

    The images must be like those to be judged (same part, camera, light) and unused otherwise. The result is a small
    JSON file for headclip predict --calibration and headclip rejudge --calibration. It belongs to this model alone.
    Images that are among those of --reference are compared with the other ones.
    """
    from headclip.errors import InputError
    from headclip.judgement.calibrate import count_once
    from headclip.judgement.conformal import Promise
    from headclip.judgement.regions import RegionRules

    if not normals and data is None and reference is not None:
        normals = [str(reference)]
    _check(normals, data, out, into_checkpoint, checkpoint)
    promise = Promise(false_alarms, confidence, contaminated)
    costs = _costs(labelled, cost_miss, cost_false_alarm, prevalence)
    rules = RegionRules(min_area or 1, ignore_border or 0)
    arguments = options.model_arguments(
        backbone, checkpoint, method, category, setting, reference, device, precision, image_size, batch_size
    )
    arguments |= {"max_pixels": max_pixels, "roi": roi, "tile": options.overlap_of(tile, tile_overlap)}
    try:
        labels = (labelled, masks)
        asked = None if tightest or labelled else promise
        scored, settings, truth = _score(normals or [], arguments, rules, labels, data, (count, seed), asked, quiet)
    except KeyboardInterrupt:
        sys.stderr.write(
            "interrupted; nothing was written. headclip predict keeps what it has judged: calibrate its RUN\n"
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    given = len(scored.scores)
    scored, repeated = count_once(scored, settings, None if truth is None else truth.labels)
    try:
        found = _calibrate(scored, settings, promise, truth, costs, data is not None, tightest)
    except InputError:
        if len(scored.scores) < given and not quiet:  # why there are fewer than were given
            print_repeated(repeated)
        raise
    if into_checkpoint:
        _write_into(checkpoint, found)
    if out is not None:
        found.save(out)
    if not quiet:
        print_repeated(repeated)
        print_calibration(found, promise, scored, out, checkpoint if into_checkpoint else None)


def _check(
    normals: list[str] | None, data: Data | None, out: Path | None, into_checkpoint: bool, checkpoint: Path | None
) -> None:
    """What is wrong with the options, before images are judged for minutes."""
    from headclip.errors import InputError
    from headclip.files import prove_place

    if bool(normals) == (data is not None):
        raise InputError("give images believed normal, or --data synthetic; one of the two")
    if out is None and not into_checkpoint:
        raise InputError("--out FILE.json says where the calibration goes")
    if into_checkpoint and checkpoint is None:
        raise InputError("--into-checkpoint needs --checkpoint FILE, the file to put it into")
    if out is not None and out.is_dir():
        raise InputError(f"--out {out} is a folder; name a file in it, e.g. {out / 'calibration.json'}")
    if out is not None and any(parent.exists() and not parent.is_dir() for parent in out.parents):
        raise InputError(f"--out {out} lies in something that is no folder; choose another place")
    for place in (out, checkpoint if into_checkpoint else None):
        if place is not None:
            prove_place(place)


def _costs(labelled: bool, miss: float | None, false_alarm: float | None, prevalence: float | None) -> Any:
    from headclip.errors import InputError
    from headclip.judgement.optimal import Costs

    given = [value for value in (miss, false_alarm, prevalence) if value is not None]
    if not given:
        return None
    if not labelled:
        raise InputError("costs and prevalence need --labelled: without defects nothing is known of misses")
    return Costs(1.0 if miss is None else miss, 1.0 if false_alarm is None else false_alarm, prevalence)


@dataclass
class _Truth:
    """What is known of labelled images. labels: 0 normal, 1 anomalous, by name; pixels: counts with their masks."""

    labels: dict[str, int]
    pixels: MaskedPixels | None = None


def _score(
    normals: list[str],
    arguments: dict[str, Any],
    rules: RegionRules,
    labels: tuple[bool, str | None],
    data: Data | None,
    rendered: tuple[int, int],
    promise: Promise | None,
    quiet: bool,
) -> tuple[Scored, dict[str, Any], _Truth | None]:
    """The scores, what their detector says of itself, and what is known of the images where that was asked for.

    labels: whether labels were asked for, and what a run's images were labelled from. promise: what the images have to
    be enough for, before they are judged; None asks for nothing.
    """
    from headclip.cli.models import lift_pillow_limit, load_detector
    from headclip.cli.progress import stage_bars
    from headclip.data.decode import DEFAULT_MAX_PIXELS
    from headclip.errors import InputError
    from headclip.inference.leaving_out import score_beside_others
    from headclip.judgement import scored as scoring
    from headclip.judgement.conformal import images_needed, too_few
    from headclip.runs.run import Run, is_run_folder
    from headclip.runs.scored import score_run

    labelled, masks = labels
    if masks is not None and not labelled:
        raise InputError("--masks needs --labelled: the pixel threshold is then that of the best F1")

    with stage_bars(quiet) as show:

        def progress(done: int, total: int, failed: int) -> None:
            show("judging", done, total, failed)

        if len(normals) == 1 and is_run_folder(Path(normals[0])):
            run = Run.open(normals[0])
            truth, watch = _of_run(run, masks, rules) if labelled else (None, None)
            warn_of_slices(run)
            return score_run(run, rules, progress=progress, watch=watch), run.settings, truth
        if masks is not None:
            raise InputError("--masks is for a RUN of headclip predict; a labelled folder brings its own masks")
        files, truth, watch = _files(normals, labelled, rules) if data is None else ([], None, None)
        if data is None and promise is not None and len(files) < images_needed(promise):
            raise too_few(len(files), promise)
        limit = arguments["max_pixels"] or DEFAULT_MAX_PIXELS
        lift_pillow_limit(limit)
        detector = load_detector(arguments, quiet)
        if data is not None:
            count, seed = rendered
            found = scoring.score_rendered(detector, count, rules, seed=seed, progress=progress)
        else:
            warn_of_training_images(files, detector.describe())
            score = score_beside_others if arguments["reference"] is not None else scoring.score_images
            found = score(detector, files, rules, max_pixels=limit, progress=progress, watch=watch)
        return found, detector.describe(), truth


def _files(normals: list[str], labelled: bool, rules: RegionRules) -> tuple[Any, _Truth | None, Any]:
    """The images; with --labelled what is known of them, and what counts the pixels of their maps."""
    from headclip.data.volumes.lone import LoneImage
    from headclip.errors import InputError
    from headclip.runs.run import is_run_folder

    if not labelled:
        run = next((entry for entry in normals if is_run_folder(Path(entry))), None)
        if run is not None:
            raise InputError(f"{run} is a run; name one run at a time and nothing beside it, or the images it judged")
        return images_alone(normals).files, None, None
    from headclip.data.datasets import open_spec

    if len(normals) != 1:
        raise InputError("--labelled takes one folder, list (CSV, JSON) or NAME=PATH")
    dataset = open_spec(normals[0], lenient=True)
    known = {dataset.relative(record.path): record for record in dataset.records if record.label is not None}
    if not known:
        raise InputError(f"{normals[0]} has no labels; give a folder with good/ and bad/ or the like, or a list")
    truth, watch = _truth(dataset, known, rules)
    return [LoneImage(record.path, name) for name, record in known.items()], truth, watch


def _of_run(run: Any, masks: str | None, rules: RegionRules) -> tuple[_Truth, Any]:
    """What is known of a run's images, and what counts the pixels of their maps where masks were named."""
    from headclip.data.datasets import open_spec
    from headclip.errors import InputError
    from headclip.runs.labels import match_records

    if masks is not None:
        dataset = open_spec(masks, lenient=True)
        known = match_records(run, dataset.records, dataset.root)
        if not known:
            raise InputError(f"{masks} has no label for any image of {run.folder}")
        return _truth(dataset, known, rules)
    labels: dict[str, int] = run.load_labels()
    if not labels:
        raise InputError(
            f"{run.folder} has no labels; give it some with `headclip rejudge RUN --labels PATH`, or name what it "
            "judged by --masks PATH"
        )
    return _Truth(labels), None


def _truth(dataset: Any, known: dict[str, Any], rules: RegionRules) -> tuple[_Truth, Any]:
    """Labels by the names in `known`, and what counts the pixels of the maps of these images."""
    from headclip.judgement.optimal import MaskedPixels

    pixels = MaskedPixels(rules.ignore_border)

    def watch(name: str, anomaly_map: Any) -> None:
        if name in known:
            height, width = anomaly_map.shape
            pixels.add(anomaly_map, dataset.mask(known[name], (height, width)))

    return _Truth({name: record.label for name, record in known.items()}, pixels), watch


def _calibrate(
    scored: Scored,
    settings: dict[str, Any],
    promise: Promise,
    truth: _Truth | None,
    costs: Any,
    synthetic: bool,
    tightest: bool,
) -> Calibration:
    from headclip.errors import InputError
    from headclip.judgement.calibrate import calibrate as keep_promise
    from headclip.judgement.calibrate import calibrate_labelled

    if not scored.scores and scored.source.get("references"):
        raise InputError("all images are reference images of the method itself; give others to calibrate on")
    if not scored.scores:
        reason = next(iter(scored.failed.values()), "none given")
        raise InputError(f"none of the images could be judged ({reason})")
    if truth is not None:
        pixels = None if truth.pixels is None else truth.pixels.state
        return calibrate_labelled(scored, truth.labels, settings, costs, promise, pixels)
    return keep_promise(scored, settings, promise, kind="synthetic" if synthetic else "conformal", tightest=tightest)


def _write_into(checkpoint: Path | None, found: Calibration) -> None:
    import json

    from headclip.methods.checkpoint import write_calibration

    assert checkpoint is not None
    write_calibration(checkpoint, json.loads(found.to_json()))
