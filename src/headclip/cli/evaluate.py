"""`headclip evaluate`: judge labelled datasets and score them, or score finished runs again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli import on_ray, options, peer_options, shot_options
from headclip.cli.common import Device, Precision, command_line, parse_settings
from headclip.cli.evaluate_report import leave_if_unchanged, report, report_shard
from headclip.cli.models import Choice, lift_pillow_limit, load_detector, load_detectors, plan_methods
from headclip.cli.options import Protocol
from headclip.cli.progress import Stages, guarded

if TYPE_CHECKING:
    from headclip.data.datasets import Dataset
    from headclip.evaluation.evaluate import Evaluation, Options

Work = Callable[[Stages], "Evaluation"]


def evaluate(
    data: Annotated[
        list[str], typer.Option("--data", "-d", metavar="NAME=PATH", help="A labelled dataset. Repeatable.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for tables and results.")],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN...]", help="Folders of headclip predict, to be scored without a model."),
    ] = None,
    method: options.Methods = None,
    backbone: options.Backbone = "embedded",
    checkpoint: options.Checkpoints = None,
    setting: options.SettingsOfMany = None,
    reference: options.Reference = None,
    peers: peer_options.Peers = None,
    peer_weight: peer_options.PeerWeight = peer_options.WEIGHT,
    shots: shot_options.Shots = None,
    protocol: Annotated[
        Protocol, typer.Option(help="exact: no threshold grid; ader: comparable with the published tables.")
    ] = Protocol.exact,
    resolution: options.Resolution = None,
    bootstrap: options.Bootstrap = 1000,
    limit: options.Limit = None,
    device: options.OnDevice = Device.auto,
    precision: options.InPrecision = Precision.auto,
    image_size: options.ImageSize = None,
    batch_size: options.BatchSize = None,
    compile: options.Compile = False,
    max_pixels: options.MaxPixels = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap draws and the shots.")] = 0,
    keep_maps: Annotated[bool, typer.Option("--keep-maps/--no-keep-maps", help="Keep 16-bit maps.")] = False,
    figures: options.Figures = True,
    worst: Annotated[int, typer.Option(min=0, metavar="N", help="Worst misses and false alarms to show.")] = 12,
    allow_leakage: options.AllowLeakage = False,
    shard: options.OneShard = None,
    engine: on_ray.OnEngine = on_ray.Engine.local,
    actors: on_ray.Actors = None,
    cpus_per_actor: on_ray.CpusPerActor = None,
    gpus_per_actor: on_ray.GpusPerActor = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the evaluation in DIR.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the evaluation in DIR.")] = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Judge labelled datasets and score them, or score finished runs again.

    Several methods (--method A,B or several checkpoints) share the vision pass where they can, and several methods
    or runs are compared image by image. DIR will hold tables.md, tables.csv, tables.parquet, tables.tex, scores.csv
    (every image), results.json, figures/ and worst.html. An image that cannot be read is a row with the reason; the
    others go on. With --shard, DIR/shards/ will hold a part of that, and headclip merge makes the whole.
    """
    from headclip.data.datasets import open_spec
    from headclip.data.decode import DEFAULT_MAX_PIXELS
    from headclip.errors import InputError
    from headclip.evaluation.checks import check_out
    from headclip.evaluation.evaluate import Options
    from headclip.runs.shards import Shard

    if runs and shard is not None:
        raise InputError("--shard: finished runs are scored at once, without a model; leave it out")
    crew = on_ray.choose_crew(engine, actors, cpus_per_actor, gpus_per_actor)
    peer_options.check_peers(peers, peer_weight, elsewhere=crew is not None, reference=reference)
    if runs and peers is not None:
        raise InputError("--peers: finished runs have been judged; give it to headclip predict")
    if shots is not None and (runs or crew is not None or reference is not None):
        raise InputError("--shots does not go together with RUN, --engine ray or --reference; leave one of them out")
    if runs and crew is not None:
        raise InputError("--engine ray: finished runs are scored here, without a model; leave it out")

    counts = shot_options.parse_shots(shots)
    choices = [] if runs else plan_methods(method, checkpoint or [], setting or [])
    by_label: dict[str, int] = {}
    if len(counts) > 1:
        choices, by_label = shot_options.with_shots(choices, counts)
    chosen = Options(
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
        shard=None if shard is None else Shard.parse(shard),
        peers=peers,
        peer_weight=peer_weight,
        shots=by_label or (counts[0] if counts else None),
    )
    check_out(out, chosen)  # before the model is loaded, which takes longer
    datasets = [open_spec(spec) for spec in data]
    if runs:
        work = _scorer(runs, datasets, out, chosen)
    else:
        arguments = {
            "data": data,
            "method": method,
            "category": None,  # each image's own
            "settings": parse_settings(setting or []),
            "reference": None if reference is None else str(reference),
            "backbone": backbone,
            "checkpoint": None if not checkpoint else checkpoint[0] if len(checkpoint) == 1 else checkpoint,
            "device": device.value,
            "precision": precision.value,
            "image_size": image_size,
            "batch_size": batch_size,
            "compile": compile,
        }
        lift_pillow_limit(chosen.max_pixels)
        if crew is not None:
            on_ray.starting(quiet or as_json)
            work = partial(on_ray.evaluate, choices, arguments, datasets, out, chosen, crew, command_line())
        else:
            work = _judge(choices, arguments, datasets, out, chosen, quiet, as_json)
    evaluation = guarded(work, quiet or as_json)
    if chosen.shard is not None:
        report_shard(evaluation, out, quiet or as_json)
    else:
        report(evaluation, as_json, quiet)


def _judge(
    choices: Sequence[Choice],
    arguments: dict[str, Any],
    datasets: Sequence[Dataset],
    out: Path,
    chosen: Options,
    quiet: bool,
    as_json: bool,
) -> Work:
    """One method alone, its runs in DIR/runs/DATASET; or several together, in DIR/runs/DATASET/LABEL."""
    from headclip.evaluation.evaluate import evaluate as evaluate_one
    from headclip.evaluation.evaluate import evaluate_together

    facts: dict[str, Any] = {"arguments": arguments, "command": command_line()}
    if len(choices) > 1 or choices[0].named:
        detectors = load_detectors(choices, arguments, quiet)
        leave_if_unchanged(out, detectors, datasets, chosen, quiet, as_json)
        return lambda progress: evaluate_together(detectors, datasets, out, chosen, progress=progress, **facts)
    (choice,) = choices
    detector = load_detector(
        {**arguments, "checkpoint": choice.checkpoint, "method": choice.method, "settings": dict(choice.settings)},
        quiet,
    )
    leave_if_unchanged(out, {str(detector.describe()["method"]): detector}, datasets, chosen, quiet, as_json)
    return lambda progress: evaluate_one(detector, datasets, out, chosen, progress=progress, **facts)


def _scorer(runs: list[Path], datasets: Sequence[Dataset], out: Path, chosen: Options) -> Work:
    from headclip.evaluation.runs import evaluate_runs

    arguments = {"runs": [str(run) for run in runs]}
    return lambda progress: evaluate_runs(
        runs, datasets, out, chosen, arguments=arguments, command=command_line(), progress=progress
    )
