"""`headclip pretrain`: make a small CLIP from rendered images and captions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headclip.cli import options as shared
from headclip.cli.common import EXIT_INTERRUPTED, Device, error_line, output, progress_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from headclip.training.pretrain import Pretrainer, PretrainLosses


def pretrain(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="For the state, the log and the model.")],
    architecture: Annotated[str, typer.Option(help="One of the shipped architectures, or a JSON file.")] = "embedded",
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON with any setting of PretrainConfig; options go before it.")
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="First values: a model of this architecture, or of fewer vision layers."),
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A DINOv2 whose patch tokens are learnt as well.")
    ] = None,
    photographs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Photographs of sound surfaces and of things (PNG with opacity), under rendered defects.",
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Images to render and see; fixes the schedule.  [default: 64000]")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images a step.  [default: 32]")] = None,
    rate: Annotated[float | None, typer.Option(help="Peak learning rate.  [default: 0.0008]")] = None,
    seed: Annotated[int | None, typer.Option(help="First values and rendered images.  [default: 1]")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after this long; --resume goes on.")] = None,
    device: shared.OnDevice = Device.auto,
    workers: Annotated[int, typer.Option(min=0, help="Processes that render, at the lowest priority.")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    quiet: shared.Quiet = False,
) -> None:
    """Pretrain on rendered image-caption pairs, with a patch-text term on the local stream.

    FOLDER will hold state.pt, log.jsonl and, at the end, model/ in Hugging Face layout, which --backbone reads.
    """
    from headclip.clip.backbone import Backbone
    from headclip.clip.config import ClipConfig, known_architectures
    from headclip.clip.initialise import grow
    from headclip.clip.tokenizer import ClipTokenizer
    from headclip.clip.weights import load_backbone, save_backbone
    from headclip.data.synthetic.photographs import Photographs
    from headclip.errors import InputError
    from headclip.inference.device import choose_device
    from headclip.training.pretrain import Pretrainer
    from headclip.training.pretrain_config import read_recipe
    from headclip.training.teacher import Teacher

    shipped = known_architectures()
    path = shipped.get(architecture, Path(architecture))
    if not path.is_file():
        raise InputError(f"no architecture '{architecture}'; shipped are {', '.join(shipped)}")
    state = out / "state.pt"
    if resume != state.exists():
        raise InputError(
            f"nothing to resume in {out}"
            if resume
            else f"{out} holds a run already; use --resume to go on with it, or another folder"
        )
    shape = ClipConfig.load(path)
    if shape.text is None:
        raise InputError(f"'{architecture}' has no text tower, and pretraining aligns images with text")
    config = read_recipe(recipe, images=images, batch_size=batch_size, rate=rate, seed=seed)
    if start_from is not None:
        backbone = load_backbone(start_from)
        if backbone.config.to_dict() != shape.to_dict():
            backbone = grow(backbone, shape, config.seed)
    else:
        backbone = Backbone(shape, ClipTokenizer(shape.text.vocab_size, shape.text.context_length))
    trainer = Pretrainer(
        backbone,
        config,
        str(choose_device(device.value)),
        teacher=None if teacher is None else Teacher(teacher, config.teacher_blocks),
        photographs=None if photographs is None else Photographs(photographs, config.photograph_share),
        fresh=start_from is None,
    )
    if resume:
        trainer.restore(state)
    try:
        with _progress_bar(trainer, quiet) as show:
            limit = math.inf if minutes is None else 60 * minutes
            complete = trainer.run(out, workers=workers, stop_seconds=limit, progress=show)
    except KeyboardInterrupt:
        error_line("interrupted; the same command with --resume goes on from the last saved step")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    save_backbone(trainer.averaged_backbone(), out / "model")
    if not quiet:
        word = "model" if complete else f"model so far (step {trainer.step} of {config.steps})"
        output().print(f"{word}: {out / 'model'}", soft_wrap=True)


@contextmanager
def _progress_bar(trainer: Pretrainer, quiet: bool) -> Iterator[Callable[[int, PretrainLosses], None] | None]:
    if quiet:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=progress_output()) as bar:
        task = bar.add_task("", total=trainer.config.steps, completed=trainer.step)

        def show(step: int, losses: PretrainLosses) -> None:
            words = " ".join(f"{name} {float(value.detach()):.3f}" for name, value in vars(losses).items())
            bar.update(task, completed=step, description=words)

        yield show
