"""`headclip predict`: images in, scores, maps and a report out."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli import judging_options, on_ray, options, peer_options, reference_options, volume_options
from headclip.cli.common import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Device,
    Precision,
    error_line,
    resume_line,
    visible,
)
from headclip.cli.models import lift_pillow_limit, load_detector
from headclip.cli.predict_report import print_summary
from headclip.cli.progress import run_bars

if TYPE_CHECKING:
    from headclip.data.discover import ImageFile
    from headclip.inference.predict import Progress, RunSummary

FROM_FOLDER = "from-folder"
HIDDEN_AGAIN = "the same command with --resume"  # where the command names the inputs


def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Images, folders (with subfolders), quoted globs.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="Folder for the results.")],
    backbone: options.Backbone = "embedded",
    checkpoint: options.OneCheckpoint = None,
    method: options.OneMethod = None,
    category: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the images show, for methods that ask; from-folder: the name of each image's folder.  "
            "[default: object]",
        ),
    ] = None,
    setting: options.Settings = None,
    reference: options.Reference = None,
    peers: peer_options.Peers = None,
    peer_weight: peer_options.PeerWeight = peer_options.WEIGHT,
    device: options.OnDevice = Device.auto,
    precision: options.InPrecision = Precision.auto,
    image_size: options.ImageSize = None,
    batch_size: options.BatchSize = None,
    compile: options.Compile = False,
    max_pixels: options.MaxPixels = None,
    roi: options.RegionOfInterest = None,
    tile: options.Tile = False,
    tile_overlap: options.TileOverlap = None,
    calibration: judging_options.CalibrationFile = None,
    threshold: judging_options.Threshold = None,
    false_alarms: reference_options.FalseAlarms = None,
    pixel_threshold: judging_options.PixelThreshold = None,
    min_area: judging_options.MinArea = None,
    ignore_border: judging_options.IgnoreBorder = None,
    pixel_mm: judging_options.PixelMm = None,
    shard: options.OneShard = None,
    engine: on_ray.OnEngine = on_ray.Engine.local,
    actors: on_ray.Actors = None,
    cpus_per_actor: on_ray.CpusPerActor = None,
    gpus_per_actor: on_ray.GpusPerActor = None,
    window: volume_options.Window = None,
    plane: volume_options.CutPlane = None,
    volume_share: volume_options.TopShare = None,
    max_voxels: volume_options.MaxVoxels = None,
    keep_names: volume_options.KeepNames = False,
    key: volume_options.Key = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in RUN.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in RUN.")] = False,
    top: Annotated[int, typer.Option(min=0, metavar="N", help="Rows of the closing table.")] = 10,
    quiet: options.Quiet = False,
) -> None:
    """Judge images and write tables, maps, overlays and a report.

    RUN will hold report.html, results.csv, results.parquet, maps/ (16-bit PNG), overlays/, previews/ and
    run.json. An image that cannot be read becomes a row with the reason; the others go on. Verdicts and regions
    come from --calibration, --threshold or, with --reference, --false-alarms, else from what ships with the
    checkpoint. With --shard, RUN/shards/ will hold a part of that, and headclip merge makes the whole.
    """
    from headclip.data.decode import DEFAULT_MAX_PIXELS
    from headclip.data.formats import others_advice
    from headclip.data.volumes.model import VolumeSet
    from headclip.data.volumes.names import write_key
    from headclip.inference.predict import predict_run
    from headclip.inference.volumes_inputs import open_inputs, refuse_division
    from headclip.runs.output import check_output
    from headclip.runs.run import read_facts
    from headclip.runs.shards import Shard

    part = None if shard is None else Shard.parse(shard)
    judging = judging_options.judging(calibration, threshold, pixel_threshold, min_area, ignore_border, pixel_mm)
    limit = DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
    crew = on_ray.choose_crew(engine, actors, cpus_per_actor, gpus_per_actor)
    on_ray.refuse_urls(crew, out, *inputs)
    peer_options.check_peers(peers, peer_weight, tile=tile, elsewhere=crew is not None, reference=reference)
    reference_options.check_false_alarms(*(false_alarms, reference, calibration, threshold), elsewhere=crew is not None)
    place = out if part is None else part.folder(out)
    if on_ray.place_of(out) is None:
        check_output(place, resume=resume, overwrite=overwrite)  # before the model is loaded, which takes longer
    volumes = volume_options.volume_options(window, plane, volume_share, max_voxels, keep_names)
    on_disk = on_ray.on_disk(inputs)
    images = None if on_disk is None else open_inputs(on_disk, out, volumes, resume=resume)
    if isinstance(images, VolumeSet):
        refuse_division(part, crew)
        if key is not None:
            write_key(key, images.sources(), out)
    elif images is not None and not quiet:
        judging_options.warn_of_overlap(judging.calibration, (image.path for image in images))
    if images is not None and images.passed_over and not quiet:
        warnings.warn(f"passed over, as no image that can be read: {others_advice(images.passed_over)}", stacklevel=2)
    lift_pillow_limit(limit)
    arguments = {
        "inputs": inputs,
        **options.model_arguments(
            *(backbone, checkpoint, method, None if category == FROM_FOLDER else category, setting, reference),
            *(device, precision, image_size, batch_size),
        ),
        "categories": FROM_FOLDER if category == FROM_FOLDER else None,
        "compile": compile,
        "max_pixels": limit,
        "roi": roi,
        "tile": options.overlap_of(tile, tile_overlap),
    }
    again = resume_line(
        "predict",
        inputs,
        {
            "out": out,
            "backbone": None if backbone == "embedded" else backbone,
            **{name: arguments[name] for name in ("checkpoint", "method", "reference", "image_size")},
            "category": category,
            "set": setting,
            "device": None if device is Device.auto else device.value,
            "precision": None if precision is Precision.auto else precision.value,
            "batch_size": batch_size,
            "compile": compile,
            "max_pixels": max_pixels,
            **({"roi": roi} if roi is not None else {}),
            **({"tile": True, "tile_overlap": arguments["tile"]} if tile else {}),
            **({"peers": peers, "peer_weight": peer_weight} if peers is not None else {}),
            **{"calibration": calibration, "threshold": threshold, "pixel_threshold": pixel_threshold},
            "false_alarms": false_alarms,
            **{"min_area": min_area, "ignore_border": ignore_border, "pixel_mm": pixel_mm, "shard": shard},
            **{"window": window, "plane": None if plane is None else plane.value, "volume_share": volume_share},
            **{"max_voxels": max_voxels, "keep_names": keep_names, "key": key},
            **{"engine": None if crew is None else "ray", "actors": actors},
            **{"cpus_per_actor": cpus_per_actor, "gpus_per_actor": gpus_per_actor},
        },
    )
    kept = arguments if images is None else volume_options.hide(images, arguments)
    work: dict[str, Any] = {
        "resume": resume,
        "overwrite": overwrite,
        "max_pixels": limit,
        "arguments": kept,
        "judging": judging,
    }
    work["shard"] = part
    work["category_of"] = folder_name if category == FROM_FOLDER else None
    if crew is not None:
        on_ray.starting(quiet)
        judge = partial(on_ray.predict, arguments, images or inputs, out, crew, work)
    else:
        assert images is not None  # URLs have been refused
        detector = load_detector(arguments, quiet)
        if peers is not None:
            earlier = read_facts(place) if resume else None
            work["arguments"] = kept | peer_options.compare_with_peers(
                *(detector, images, peers, peer_weight, earlier, limit, quiet)
            )
        work["judging"] = reference_options.judging_beside(judging, detector, reference, false_alarms, limit, quiet)
        if false_alarms is not None and not (quiet or isinstance(images, VolumeSet)):
            judging_options.warn_of_overlap(work["judging"].calibration, (image.path for image in images))
        if category == FROM_FOLDER and not detector.method.uses_category:
            work["category_of"] = None
        judge = partial(predict_run, detector, images, out, **work)
    summary = _run(judge, HIDDEN_AGAIN if getattr(images, "hidden", False) else again, quiet)
    if not quiet:
        print_summary(summary, top, part, out)
    if not summary.ok and part is None:  # a part of which every image is broken is a part all the same
        error_line(f"none of the {len(summary.rows)} images could be judged; see {out / 'results.csv'}")
        raise typer.Exit(EXIT_FAILED)


def folder_name(image: ImageFile) -> str:
    """The category of an image by --category from-folder."""
    name = image.path.resolve().parent.name
    return name.strip().replace("{", "").replace("}", "") or "object"


def _run(judge: Callable[..., RunSummary], again: str, quiet: bool) -> RunSummary:
    """again: the command that goes on where an interruption stopped."""
    last: list[Progress] = []
    try:
        with run_bars(quiet, last) as show:
            return judge(progress=show)
    except KeyboardInterrupt:
        done = f"{last[-1].done:,} of {last[-1].total:,}" if last else "no"
        error = f"interrupted; {done} images are done and kept. To go on: {again}"
        sys.stderr.write(visible(error) + "\n")
        raise typer.Exit(EXIT_INTERRUPTED) from None
