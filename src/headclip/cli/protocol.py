"""`headclip protocol`: one of the paper's two experiments from beginning to end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli import options
from headclip.cli.common import Device, Precision, command_line, output
from headclip.cli.evaluate_report import leave_if_unchanged, report
from headclip.cli.models import build_trainable
from headclip.cli.options import Protocol
from headclip.cli.progress import guarded, run_trainer

if TYPE_CHECKING:
    from headclip.data.datasets import Dataset
    from headclip.evaluation.evaluate import Options
    from headclip.evaluation.protocols import Sources
    from headclip.methods.base import TrainableMethod
    from headclip.training.trainer import Trainer


def protocol(
    name: Annotated[str, typer.Argument(metavar="visa-to-mvtec|mvtec-to-all", help="Which experiment.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="For the checkpoint and the evaluation.")],
    root: Annotated[
        list[str] | None, typer.Option("--root", "-r", metavar="NAME=PATH", help="Where a dataset is. Repeatable.")
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder whose subfolders are named like datasets.")
    ] = None,
    backbone: options.Backbone = "embedded",
    method: options.TrainedMethod = "headclip",
    epochs: options.Epochs = None,
    batch_size: options.TrainingBatch = None,
    rate: options.Rate = None,
    seed: Annotated[int, typer.Option(help="First values, order of images, bootstrap draws.")] = 111,
    setting: options.Settings = None,
    image_size: options.ImageSize = None,
    metrics: Annotated[Protocol, typer.Option(help="Metric protocol; ader is that of the paper.")] = Protocol.ader,
    resolution: options.Resolution = None,
    bootstrap: options.Bootstrap = 1000,
    limit: options.Limit = None,
    figures: options.Figures = True,
    allow_leakage: options.AllowLeakage = False,
    device: options.OnDevice = Device.auto,
    precision: options.InPrecision = Precision.auto,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read training images.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in DIR.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in DIR.")] = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Train on one dataset and test on the others, as in the paper.

    visa-to-mvtec trains on VisA and tests on MVTec AD; mvtec-to-all trains on MVTec AD and tests on the other
    sixteen. Datasets that are not at hand are named and left out. DIR will hold checkpoint.safetensors and
    evaluation/.
    """
    from headclip.data.datasets import open_dataset
    from headclip.errors import InputError
    from headclip.evaluation.checks import check_out, refuse_tested_images
    from headclip.evaluation.evaluate import Options
    from headclip.evaluation.protocols import find_sources, plans

    plan = plans().get(name)
    if plan is None:
        raise InputError(f"unknown protocol '{name}'; choose {' or '.join(plans())}")
    sources = find_sources(plan, root or [], data_root)
    remarks = [f"protocol {plan.name}: trained on {sources.train[0]}"]
    if sources.missing:
        remarks.append(f"not tested, since not given: {', '.join(sources.missing)}")
    chosen = Options(
        protocol=metrics.value,
        resolution=None if resolution is None else resolution.value,
        bootstrap=bootstrap,
        seed=seed,
        limit=limit,
        resume=resume,
        overwrite=overwrite,
        allow_leakage=allow_leakage,
        figures=figures,
        remarks=tuple(remarks),
    )
    check_out(out / "evaluation", chosen)
    if not quiet and not as_json:
        for remark in remarks:
            output().print(remark, soft_wrap=True)
    targets = [open_dataset(*target) for target in sources.targets]  # before the training, which takes hours
    schedule = {"epochs": epochs, "batch_size": batch_size, "rate": rate}
    built, _ = build_trainable(method, backbone, device.value, seed, setting or [])
    trainer = _trainer(sources, built, seed, image_size, schedule)
    checkpoint = out / "checkpoint.safetensors"
    if not _is_trained(trainer, checkpoint, resume, overwrite):
        guarded(partial(refuse_tested_images, trainer.described(), targets, chosen), quiet or as_json)
        _train(trainer, checkpoint, workers, resume, quiet or as_json)
    arguments = {"backbone": backbone, "device": device.value, "precision": precision.value, "image_size": image_size}
    _test(targets, checkpoint, out / "evaluation", chosen, arguments, quiet, as_json)


def _trainer(
    sources: Sources, method: TrainableMethod, seed: int, image_size: int | None, schedule: dict[str, Any]
) -> Trainer:
    from headclip.data.datasets import open_dataset
    from headclip.training.sets import DatasetTrainingSet
    from headclip.training.train_config import TrainConfig
    from headclip.training.trainer import Trainer

    given = {name: value for name, value in schedule.items() if value is not None}
    config = TrainConfig(**{**method.training_defaults, **given, "seed": seed})
    data = DatasetTrainingSet(open_dataset(*sources.train), image_size or method.image_size)
    return Trainer(method, data, config)


def _is_trained(trainer: Trainer, checkpoint: Path, resume: bool, overwrite: bool) -> bool:
    """Whether an earlier call with the same settings has made the checkpoint, which is then taken.

    Raises:
        InputError: there is an earlier run, and nothing says what to do with it; or it was made with other settings.
    """
    from headclip.errors import InputError
    from headclip.training.trainer import state_path

    begun = state_path(checkpoint).exists() or checkpoint.exists()
    if begun and not (resume or overwrite):
        raise InputError(f"{checkpoint.parent} holds an earlier run; use --resume to go on, --overwrite to start anew")
    if not (resume and checkpoint.exists()):
        return False
    _check_same(trainer, checkpoint)
    return True


def _train(trainer: Trainer, checkpoint: Path, workers: int, resume: bool, quiet: bool) -> None:
    """Train, or go on training."""
    from headclip.training.trainer import log_path, state_path

    if resume and state_path(checkpoint).exists():
        trainer.restore(state_path(checkpoint))
    else:
        log_path(checkpoint).unlink(missing_ok=True)
    run_trainer(trainer, checkpoint, workers, quiet)


def _check_same(trainer: Trainer, checkpoint: Path) -> None:
    """Raise InputError unless the checkpoint is what this trainer would have made."""
    import json

    from headclip.errors import InputError
    from headclip.methods.checkpoint import read_info
    from headclip.same_settings import differing
    from headclip.training.files import changes

    info, ours = read_info(checkpoint), trainer.settings()
    made = {
        "image_size": info.training.get("image_size", ours["image_size"]),  # checkpoints of before do not say it
        "training": {name: value for name, value in info.training.items() if name != "image_size"},
        "method_config": info.config,
        "backbone_hash": info.backbone_hash,
        "data": info.data,
    }
    before, now = json.loads(json.dumps(made)), {key: ours[key] for key in made}
    other = list(dict.fromkeys(name.partition(".")[0] for name in differing(before, now)))
    if other:
        changed = ", ".join(text for key in other for text in changes(key, before[key], now[key]))
        raise InputError(
            f"{checkpoint} was trained with another {', '.join(other)} ({changed}); "
            "give the same options and images, or --overwrite, which trains anew"
        )


def _test(
    targets: Sequence[Dataset],
    checkpoint: Path,
    out: Path,
    chosen: Options,
    arguments: dict[str, Any],
    quiet: bool,
    as_json: bool,
) -> None:
    """Test and report; what an earlier call has finished is left as it is where nothing has changed since."""
    from headclip.evaluation.evaluate import evaluate
    from headclip.inference.detector import Detector

    detector = Detector(checkpoint=checkpoint, **arguments)
    leave_if_unchanged(out, {str(detector.describe()["method"]): detector}, targets, chosen, quiet, as_json)
    facts: dict[str, Any] = {"arguments": arguments, "command": command_line()}
    evaluation = guarded(
        lambda progress: evaluate(detector, targets, out, chosen, progress=progress, **facts), quiet or as_json
    )
    report(evaluation, as_json, quiet)
