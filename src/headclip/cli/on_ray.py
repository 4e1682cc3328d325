"""Options of `--engine ray`, and the way from the options of predict and evaluate to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli.common import progress_output
from headclip.cli.models import Choice, lift_pillow_limit, load_detector, load_detectors

if TYPE_CHECKING:
    from headclip.data.datasets import Dataset
    from headclip.data.discover import ImageSet
    from headclip.engine.crew import Crew
    from headclip.evaluation.evaluate import Evaluation, Options
    from headclip.inference.detector import Detector
    from headclip.inference.predict import RunSummary


class Engine(StrEnum):
    """Where images are judged."""

    local = "local"
    ray = "ray"


OnEngine = Annotated[
    Engine, typer.Option("--engine", help="local: in this process; ray: on a Ray cluster, see docs/ray.md.")
]
Actors = Annotated[
    str | None,
    typer.Option(
        "--actors", metavar="N|MIN:MAX", help="With --engine ray: processes that hold the model.  [default: 1]"
    ),
]
CpusPerActor = Annotated[
    float | None, typer.Option(metavar="X", help="With --engine ray: processors, and threads, of each.  [default: 1]")
]
GpusPerActor = Annotated[
    float | None,
    typer.Option(metavar="X", help="With --engine ray: GPUs of each, parts too.  [default: 1 where there are any]"),
]


def choose_crew(engine: Engine, actors: str | None, cpus: float | None, gpus: float | None) -> Crew | None:
    """Who works; None for this process.

    Raises:
        InputError: nonsensical numbers, or options of a crew without --engine ray.
    """
    from headclip.errors import InputError

    if engine is Engine.local:
        given = {"--actors": actors, "--cpus-per-actor": cpus, "--gpus-per-actor": gpus}
        names = [name for name, value in given.items() if value is not None]
        if names:
            raise InputError(f"{' and '.join(names)} belong to --engine ray; add it, or leave them out")
        return None
    from headclip.engine.crew import Crew, require_ray

    crew = Crew.parse(actors or "1", 1.0 if cpus is None else cpus, gpus)
    require_ray()
    return crew


def on_disk(inputs: Sequence[str]) -> list[str] | None:
    """Inputs as local paths; None where one of them lies in object storage."""
    from headclip.engine.storage import as_url, local_path

    if any(as_url(entry) is not None for entry in inputs):
        return None
    return [str(local_path(entry)) if entry.lower().startswith("file:") else entry for entry in inputs]


def refuse_urls(crew: Crew | None, *texts: str | Path) -> None:
    """Say what is needed for object storage, to those who judge in this process.

    Raises:
        InputError: one of them is a URL.
    """
    from headclip.engine.storage import as_url, shown
    from headclip.errors import InputError

    found = next((url for url in map(as_url, texts) if url is not None), None)
    if found is not None and crew is None:
        raise InputError(f"{shown(found)}: object storage needs --engine ray; or copy the files to a disk")


def place_of(out: Path) -> str | None:
    """The URL of an output in object storage, else None."""
    from headclip.engine.storage import as_url, shown

    url = as_url(out)
    return None if url is None else shown(url)


def predict(
    arguments: Mapping[str, Any],
    inputs: Sequence[str] | ImageSet,
    out: Path,
    crew: Crew,
    work: Mapping[str, Any],
    *,
    progress: Callable[[Any], None],
) -> RunSummary:
    """`predict_on_ray` from the options of the command. work: keyword arguments of `predict_run`."""
    from headclip.engine.predicting import Model, Settings, predict_on_ray
    from headclip.engine.storage import as_url, shown

    kept = {name: work[name] for name in work if name in Settings.__dataclass_fields__}
    given = work["arguments"]
    names = [shown(entry) if as_url(entry) else entry for entry in given["inputs"]]  # URLs may hold keys
    kept["arguments"] = {**given, "inputs": names, "engine": "ray"}
    model = Model(partial(_load_one, work["max_pixels"]), _absolute(arguments))
    return predict_on_ray(model, inputs, out, _without_gpus(crew, arguments), Settings(**kept), progress)


def evaluate(
    choices: Sequence[Choice],
    arguments: dict[str, Any],
    datasets: Sequence[Dataset],
    out: Path,
    chosen: Options,
    crew: Crew,
    command: str,
    progress: Callable[[str, int, int, int], None],
) -> Evaluation:
    """`evaluate_on_ray` from the options of the command."""
    from headclip.engine.evaluating import evaluate_on_ray
    from headclip.engine.predicting import Model

    together = len(choices) > 1 or choices[0].named
    given = _absolute(arguments)
    if together:
        load = partial(_load_many, [_absolute_choice(choice) for choice in choices], chosen.max_pixels)
    else:
        (choice,) = map(_absolute_choice, choices)
        given |= {"checkpoint": choice.checkpoint, "method": choice.method, "settings": dict(choice.settings)}
        load = partial(_load_labelled, chosen.max_pixels)
    return evaluate_on_ray(
        Model(load, given),
        datasets,
        out,
        chosen,
        _without_gpus(crew, arguments),
        together=together,
        arguments=arguments | {"engine": "ray"},
        command=command,
        progress=progress,
    )


def starting(quiet: bool) -> None:
    """Starting a cluster takes a while, in which nothing else is to be seen."""
    if not quiet:
        progress_output().print("starting Ray and loading the model")


def _without_gpus(crew: Crew, arguments: Mapping[str, Any]) -> Crew:
    """With --device cpu, no GPU is taken that nobody asked for."""
    from dataclasses import replace

    return replace(crew, gpus=0.0) if arguments["device"] == "cpu" and crew.gpus is None else crew


def _load_one(max_pixels: int, arguments: Mapping[str, Any]) -> Any:
    """Runs on workers, as the two below."""
    lift_pillow_limit(max_pixels)
    return load_detector(arguments, quiet=True)


def _load_labelled(max_pixels: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"": _load_one(max_pixels, arguments)}


def _load_many(choices: Sequence[Choice], max_pixels: int, arguments: Mapping[str, Any]) -> dict[str, Detector]:
    lift_pillow_limit(max_pixels)
    return load_detectors(choices, arguments, quiet=True)


def _absolute(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Workers have a working folder of their own."""
    given = dict(arguments)
    for name in ("checkpoint", "reference", "backbone"):
        value = given.get(name)
        if isinstance(value, str) and Path(value).exists():
            given[name] = str(Path(value).absolute())
    return given


def _absolute_choice(choice: Choice) -> Choice:
    from dataclasses import replace

    return replace(choice, checkpoint=None if choice.checkpoint is None else choice.checkpoint.absolute())
