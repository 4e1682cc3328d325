"""`headclip train`: learn what a method may learn, on a labelled or rendered set."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli import options
from headclip.cli.common import EXIT_USAGE, Device, debugging, error_line, output
from headclip.cli.models import build_trainable
from headclip.cli.progress import run_trainer

if TYPE_CHECKING:
    from headclip.training.sets import TrainingSet


class FeatureDtype(StrEnum):
    """How kept features are written."""

    fp16 = "fp16"
    int8 = "int8"


class PixelLoss(StrEnum):
    """What the map is held to."""

    focal_dice = "focal_dice"
    cross_entropy = "cross_entropy"


class RateSchedule(StrEnum):
    """How the learning rate goes over a run."""

    constant = "constant"
    cosine = "cosine"


def train(
    data: Annotated[
        str,
        typer.Option(
            metavar="synthetic|FOLDER|NAME=PATH",
            help="The rendered auxiliary set, a labelled folder, or a dataset as in headclip evaluate.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.safetensors", help="The checkpoint to write.")],
    method: options.TrainedMethod = "headclip",
    backbone: options.Backbone = "embedded",
    epochs: options.Epochs = None,
    batch_size: options.TrainingBatch = None,
    rate: options.Rate = None,
    local_weight: Annotated[
        float | None, typer.Option(help="Weight of the pixel loss.  [default: the method's]")
    ] = None,
    pixel_loss: Annotated[
        PixelLoss, typer.Option(help="focal_dice is the paper's; cross_entropy saturates less.")
    ] = PixelLoss.focal_dice,
    schedule: Annotated[
        RateSchedule, typer.Option(help="Of the learning rate: constant, or falling to 0 as a cosine does.")
    ] = RateSchedule.constant,
    start_from: Annotated[
        Path | None,
        typer.Option(metavar="FILE.safetensors", help="Begin with settings and values of another checkpoint."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PART", help="Of HeadCLIP prompts, heads, stream or refiner: what learns. Repeatable."),
    ] = None,
    images: Annotated[int, typer.Option(min=2, help="Images to render, with --data synthetic.")] = 2000,
    photographs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Sound surfaces and things (PNG with opacity) for 4 in 10 of them to show."
        ),
    ] = None,
    image_size: options.ImageSize = None,
    seed: Annotated[int, typer.Option(min=0, help="First values, order of images, rendered images.")] = 111,
    setting: options.Settings = None,
    device: options.OnDevice = Device.auto,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read or render images.")] = 1,
    keep_features: Annotated[
        bool, typer.Option("--keep-features", help="Run the tower once an image; keep its output in memory.")
    ] = False,
    features_in: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep features on disk, for later runs too.")
    ] = None,
    features_dtype: Annotated[
        FeatureDtype, typer.Option(help="How features are kept: int8 takes half the room, and rounds more.")
    ] = FeatureDtype.fp16,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing checkpoint.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Train what a method learns (HeadCLIP: prompts and head weights); the backbone stays as it is.

    Beside FILE appear FILE.log.jsonl with the losses of each epoch and, until the end, FILE.state to resume from.
    On several devices: torchrun --nproc-per-node N -m headclip train ...
    """
    if "WORLD_SIZE" in os.environ:  # torch's C++ code would warn that images without masks are allowed for
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from headclip.errors import InputError
    from headclip.inference.device import choose_device
    from headclip.methods.checkpoint import learnt_hash
    from headclip.training.distributed import process_group, restarted
    from headclip.training.train_config import TrainConfig
    from headclip.training.trainer import Trainer, log_path, state_path

    if out.suffix != ".safetensors":
        raise InputError(f"the checkpoint {out} should end in .safetensors")
    unfinished = state_path(out).exists()
    resume = resume or (unfinished and restarted())
    if resume and not unfinished:
        raise InputError(f"nothing to resume: there is no {state_path(out)}")
    if not resume and not overwrite and (out.exists() or unfinished):
        what = "an unfinished run of it exists" if unfinished else "it exists"
        raise InputError(f"{out}: {what}; use --resume to go on, --overwrite to start anew, or another name")
    given: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "rate": rate, "local_weight": local_weight}
    with process_group(choose_device(device.value)) as ranks, leave_with_a_lost_one():
        quiet = quiet or not ranks.leads
        built, earlier = build_trainable(method, backbone, str(ranks.device), seed, setting or [], start_from)
        wanted = {name: value for name, value in given.items() if value is not None}
        kept: dict[str, Any] = {"keep_features": features_in or keep_features, "features_dtype": features_dtype.value}
        kept |= {"pixel_loss": pixel_loss.value, "schedule": schedule.value, "only": tuple(only or ())}
        kept["start_from"] = learnt_hash(start_from) if start_from else ""
        config = TrainConfig(**{**built.training_defaults, **wanted, "seed": seed, **kept})
        size = image_size or built.image_size
        trainer = Trainer(built, _open_set(data, images, size, seed, photographs), config, ranks, earlier)
        if resume:
            trainer.restore(state_path(out))
        elif ranks.leads:
            log_path(out).unlink(missing_ok=True)
        if trainer.store is not None and not quiet:
            output().print(f"features: {trainer.store.describe(built, len(trainer.data))}", soft_wrap=True)
        run_trainer(trainer, out, workers, quiet)
        if not quiet:
            output().print(f"checkpoint: {out}\nlosses: {log_path(out)}", soft_wrap=True)


@contextmanager
def leave_with_a_lost_one() -> Iterator[None]:
    """End this process at once where another of the run is gone, after what is learnt has been saved.

    An orderly end would take down connections whose other side is missing, and gloo's threads sometimes abort then.
    """
    from headclip.training.distributed import RankLostError

    try:
        yield
    except RankLostError as error:
        if debugging():
            raise
        error_line(str(error))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_USAGE)


def _open_set(data: str, images: int, size: int, seed: int, photographs: Path | None) -> TrainingSet:
    from headclip.data.synthetic.photographs import Photographs
    from headclip.errors import InputError
    from headclip.training.sets import SyntheticTrainingSet, open_labelled

    if data == "synthetic":
        return SyntheticTrainingSet(seed, images, size, Photographs(photographs) if photographs else None)
    if photographs is not None:
        raise InputError("--photographs stand under rendered defects, with --data synthetic; leave them out")
    return open_labelled(data, size)
