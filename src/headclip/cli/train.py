"""`headclip train`: learn what a method may learn, on a labelled or rendered set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headclip.cli.common import EXIT_INTERRUPTED, Device, error_line, output, parse_settings, progress_output

__all__ = ["parse_settings", "train"]

if TYPE_CHECKING:
    from collections.abc import Callable

    from headclip.methods.base import TrainableMethod
    from headclip.training.sets import TrainingSet
    from headclip.training.trainer import Progress, Trainer


def train(
    data: Annotated[
        str,
        typer.Option(metavar="synthetic|FOLDER", help="The rendered auxiliary set, or a labelled folder."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.safetensors", help="The checkpoint to write.")],
    method: Annotated[
        str, typer.Option(metavar="NAME", help="What to train; headclip methods lists them.")
    ] = "headclip",
    backbone: Annotated[str, typer.Option(help="As in headclip predict.")] = "embedded",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the images.  [default: the method's, mostly 15]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images a step.  [default: the method's, mostly 8]")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate.  [default: the method's, mostly 0.001]")] = None,
    local_weight: Annotated[
        float | None, typer.Option(help="Weight of the pixel loss.  [default: the method's]")
    ] = None,
    images: Annotated[int, typer.Option(min=2, help="Images to render, with --data synthetic.")] = 2000,
    image_size: Annotated[int | None, typer.Option(min=32, help="Input size.  [default: the method's]")] = None,
    seed: Annotated[int, typer.Option(help="First values, order of images, rendered images.")] = 111,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any setting of the method, e.g. --set sigma=2. Repeatable."),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read or render images.")] = 1,
    keep_features: Annotated[
        bool, typer.Option("--keep-features", help="Run the tower once an image; keep its output in memory (fp16).")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing checkpoint.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Train what a method learns (HeadCLIP: prompts and head weights); the backbone stays as it is.

    Beside FILE appear FILE.log.jsonl with the losses of each epoch and, until the end, FILE.state to resume from.
    """
    from headclip.errors import InputError
    from headclip.training.trainer import TrainConfig, Trainer, log_path, state_path

    if out.suffix != ".safetensors":
        raise InputError(f"the checkpoint {out} should end in .safetensors")
    unfinished = state_path(out).exists()
    if resume and not unfinished:
        raise InputError(f"nothing to resume: there is no {state_path(out)}")
    if not resume and not overwrite and (out.exists() or unfinished):
        what = "an unfinished run of it exists" if unfinished else "it exists"
        raise InputError(f"{out}: {what}; use --resume to go on, --overwrite to start anew, or another name")
    given = {"epochs": epochs, "batch_size": batch_size, "rate": rate, "local_weight": local_weight}
    built = _build(method, backbone, device.value, seed, setting or [])
    wanted = {name: value for name, value in given.items() if value is not None}
    config = TrainConfig(**{**built.training_defaults, **wanted, "seed": seed, "keep_features": keep_features})
    size = image_size or built.image_size
    trainer = Trainer(built, _open_set(data, images, size, seed), config)
    if resume:
        trainer.restore(state_path(out))
    elif log_path(out).exists():
        log_path(out).unlink()
    _run(trainer, out, workers, quiet)
    if not quiet:
        output().print(f"checkpoint: {out}\nlosses: {log_path(out)}", soft_wrap=True)


def _build(name: str, backbone: str, device: str, seed: int, settings: list[str]) -> TrainableMethod:
    from dataclasses import fields

    from headclip.clip.weights import load_backbone
    from headclip.errors import InputError
    from headclip.inference.device import choose_device
    from headclip.methods import TrainableMethod, create_method, list_methods
    from headclip.methods.base import method_class

    cls = method_class(name)
    if not issubclass(cls, TrainableMethod):
        able = [other for other in list_methods() if issubclass(method_class(other), TrainableMethod)]
        raise InputError(
            f"{name} learns nothing, so there is nothing to train; use it with `headclip predict --method {name}`. "
            f"Methods that learn: {', '.join(able)}"
        )
    values = parse_settings(settings)
    if "seed" in {item.name for item in fields(cls.config_class)}:
        values = {"seed": seed, **values}
    loaded = load_backbone(backbone, device=choose_device(device))
    method = create_method(name, loaded, values)
    assert isinstance(method, TrainableMethod)
    return method


def _open_set(data: str, images: int, size: int, seed: int) -> TrainingSet:
    from headclip.training.sets import FolderTrainingSet, SyntheticTrainingSet

    return SyntheticTrainingSet(seed, images, size) if data == "synthetic" else FolderTrainingSet(Path(data), size)


def _run(trainer: Trainer, out: Path, workers: int, quiet: bool) -> None:
    try:
        with _progress_bar(trainer, quiet) as show:
            trainer.run(out, workers=workers, progress=show)
    except KeyboardInterrupt:
        error_line("interrupted; the same command with --resume goes on from the last saved step")
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def _progress_bar(trainer: Trainer, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """A bar over all epochs, with the losses of the last step and the time left."""
    if quiet:
        yield None
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    total = trainer.config.epochs * trainer.batches
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TextColumn("local {task.fields[local]:.3f} image {task.fields[image]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    done = (trainer.epoch - 1) * trainer.batches + trainer.batch
    with Bar(*columns, console=progress_output()) as bar:
        task = bar.add_task("", total=total, completed=done, epoch=trainer.epoch, local=0.0, image=0.0)

        def show(at: Progress) -> None:
            bar.update(
                task,
                completed=(at.epoch - 1) * at.batches + at.batch,
                epoch=f"{at.epoch}/{trainer.config.epochs}",
                local=float(at.losses.local.detach()),
                image=float(at.losses.image.detach()),
            )

        yield show
