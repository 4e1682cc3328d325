"""Progress on stderr, and what an interruption says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from headclip.cli.common import EXIT_INTERRUPTED, error_line, progress_output, visible

if TYPE_CHECKING:
    from headclip.inference.predict import Progress as RunProgress
    from headclip.training.trainer import Progress as StepProgress
    from headclip.training.trainer import Trainer

Stages = Callable[[str, int, int, int], None]
"""Called with a stage's name, what is done of it, of how much, and how many of that failed."""
T = TypeVar("T")


@contextmanager
def stage_bars(quiet: bool) -> Iterator[Stages]:
    """A function that shows each stage of an evaluation on a line of its own."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),  # which names datasets
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, console=progress_output(), disable=quiet) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int, failed: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(visible(stage), total=total, completed=done, failed="")
            text = f"{failed:,} failed" if failed else ""
            bar.update(tasks[stage], completed=done, total=total, failed=text)

        yield show


@contextmanager
def plain_bars(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A function that shows each stage of a short work, by its name, what is done of it and of how much."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=progress_output(), disable=quiet) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield show


@contextmanager
def count_bar(title: str, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A function that shows how much is done, of how much; the bar is gone at the end."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=progress_output(), transient=True, disable=quiet) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def guarded(work: Callable[[Stages], T], quiet: bool) -> T:
    """Run with progress bars; an interruption says how to go on."""
    try:
        with stage_bars(quiet) as show:
            return work(show)
    except KeyboardInterrupt:
        error_line("interrupted; what was judged is kept. The same command with --resume goes on")
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def run_bars(quiet: bool, last: list[RunProgress]) -> Iterator[Callable[[RunProgress], None]]:
    """A function that shows the progress of a run, with its speed, and leaves the last state of judging in `last`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, console=progress_output(), disable=quiet) as bar:
        tasks: dict[str, TaskID] = {}

        def show(progress: RunProgress) -> None:
            if progress.stage == "judging":
                last[:] = [progress]
            if progress.stage not in tasks:
                start = progress.done if progress.stage == "judging" else 0
                tasks[progress.stage] = bar.add_task(
                    progress.stage, total=progress.total, completed=start, rate="", failed=""
                )
            task = tasks[progress.stage]
            speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
            failed = f"{progress.failed:,} failed" if progress.failed else ""
            bar.update(task, completed=progress.done, rate=f"{speed:,.1f} images/s" if speed else "", failed=failed)

        yield show


def run_trainer(trainer: Trainer, out: Path, workers: int, quiet: bool) -> None:
    """Train to `out` with a progress bar; an interruption says how to go on."""
    try:
        with training_bar(trainer, quiet) as show:
            trainer.run(out, workers=workers, progress=show)
    except KeyboardInterrupt:
        error_line("interrupted; the same command with --resume goes on from the last saved step")
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def training_bar(trainer: Trainer, quiet: bool) -> Iterator[Callable[[StepProgress], None] | None]:
    """A bar over all epochs, with the losses of the last step and the time left."""
    if quiet:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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
    with Progress(*columns, console=progress_output()) as bar:
        task = bar.add_task("", total=total, completed=done, epoch=trainer.epoch, local=0.0, image=0.0)

        def show(at: StepProgress) -> None:
            bar.update(
                task,
                completed=(at.epoch - 1) * at.batches + at.batch,
                epoch=f"{at.epoch}/{trainer.config.epochs}",
                local=float(at.losses.local.detach()),
                image=float(at.losses.image.detach()),
            )

        yield show
