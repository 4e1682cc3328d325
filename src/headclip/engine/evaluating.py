"""`headclip evaluate` on many machines: maps are counted where they are made, only counts travel."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

from headclip.data.datasets import Dataset
from headclip.data.records import ImageRecord
from headclip.engine.chunks import FileRef
from headclip.engine.crew import Crew, ask_one, cluster, judge_all
from headclip.engine.predicting import Described, Model, pin
from headclip.engine.workers import EvaluateTask, EvaluateWorker
from headclip.errors import InputError
from headclip.evaluation.checks import check_out
from headclip.evaluation.evaluate import Evaluation, Options, evaluate, evaluate_together
from headclip.evaluation.judging import Work
from headclip.inference.detector import Detector
from headclip.runs.files import write_atomic
from headclip.runs.run import Entry, Row

Progress = Callable[[str, int, int, int], None]


class _Models:
    """The detectors of this process, loaded when one of them is asked for more than a description."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @cached_property
    def detectors(self) -> dict[str, Detector]:
        return cast(dict[str, Detector], self._model.load(self._model.arguments))


@dataclass(frozen=True)
class _Deferred(Described):
    """A detector that works elsewhere, and is loaded here only for the few images that are to be shown."""

    label: str = ""
    models: _Models | None = field(default=None, repr=False)

    def predict_arrays(self, *given: Any) -> Any:
        return self._loaded.predict_arrays(*given)

    @property
    def _loaded(self) -> Detector:
        assert self.models is not None
        return self.models.detectors[self.label]

    @property
    def method(self) -> Any:
        return self._loaded.method


def evaluate_on_ray(
    model: Model,
    datasets: Sequence[Dataset],
    out: Path,
    options: Options,
    crew: Crew,
    *,
    together: bool = False,
    arguments: dict[str, Any] | None = None,
    command: str = "",
    progress: Progress = lambda stage, done, total, failed: None,
) -> Evaluation:
    """`evaluate`, or `evaluate_together`, with the actors of a Ray cluster doing the judging and counting.

    The pixel counts of an image are integers and merge in any order, so figures and intervals are those of one
    machine where the maps are.

    Args:
        model: loads detectors by label.
        datasets: their images and masks must be readable by path on every machine.
        together: several methods, as in `evaluate_together`; else one.

    Raises:
        InputError, RunFolderError, KeyboardInterrupt: as `evaluate`; Ray is missing, or workers cannot read the data.
        CrewError: the cluster cannot do the work.
    """
    check_out(out, options)  # before a model is loaded
    with cluster(crew) as found:
        sample = next((str(_absolute(record).path) for dataset in datasets for record in dataset.records), None)
        detectors, pinned = _meet(found, model, sample)
        elsewhere = partial(_judge, found, pinned, detectors)
        facts: dict[str, Any] = {"arguments": arguments, "command": command, "progress": progress}
        if together:
            return evaluate_together(
                cast(Mapping[str, Detector], detectors), datasets, out, options, elsewhere=elsewhere, **facts
            )
        (one,) = detectors.values()
        own = str(one.describe()["method"])  # the label under which `evaluate` knows it
        elsewhere = partial(_judge, found, pinned, {own: one})
        return evaluate(cast(Detector, one), datasets, out, options, elsewhere=elsewhere, **facts)


def _meet(crew: Crew, model: Model, sample: str | None) -> tuple[dict[str, _Deferred], Model]:
    """Descriptions of the detectors by one worker, and the model with what `auto` means there."""
    (described, seen), said = ask_one(crew, partial(_introduce, model, sample))
    for message in said:
        warnings.warn(message, stacklevel=2)
    if not seen:
        raise InputError(f"workers cannot see {sample}; put the dataset where all machines find it under that path")
    first = next(iter(described.values()))
    pinned = Model(model.load, pin(model.arguments, first))
    models = _Models(pinned)
    return {
        label: _Deferred(one.facts, one.batch_size, one.uses_category, label, models)
        for label, one in described.items()
    }, pinned


def _introduce(model: Model, sample: str | None) -> tuple[dict[str, Described], bool]:
    """Runs on a worker."""
    detectors = model.load(model.arguments)
    described = {
        label: Described(one.describe(), one.batch_size, one.method.uses_category) for label, one in detectors.items()
    }
    return described, sample is None or Path(sample).exists()


def _judge(crew: Crew, model: Model, detectors: Mapping[str, _Deferred], work: Work) -> None:
    """Have a dataset judged; counts, maps that are to be kept, and records come back and are put in place here."""
    if not work.files:
        return
    own = {one.label: label for label, one in detectors.items()}  # the workers' labels to those of the evaluation
    theirs = {label: one.label for label, one in detectors.items()}
    refs = [
        FileRef(
            file.name,
            str(file.path),
            extra=(_absolute(work.records[file.name]), frozenset(theirs[label] for label in work.wanted[file.name])),
        )
        for file in work.files
    ]
    info = replace(work.dataset.info, counts={}, known={})  # what workers need of it, which can be pickled
    task = EvaluateTask(
        model.load,
        model.arguments,
        replace(work.dataset, info=info, records=[], findings=()),
        replace(work.options, resume=False),
        {one.label: one.hashes for one in detectors.values()},
    )

    def on_lost(ref: FileRef, reason: str) -> None:
        for label in work.wanted[ref.name]:
            work.record(label, [Entry(Row(ref.name, "failed", reason=reason), ref.size, ref.mtime_ns)])

    batch_size = max(one.batch_size for one in detectors.values())
    for result in judge_all(crew, partial(EvaluateWorker, task), refs, batch_size, on_lost):
        for label, (entries, files) in result.payload.items():
            for name, content in files.items():
                write_atomic(work.folders[own[label]], name, content)
            if entries:
                work.record(own[label], entries)


def _absolute(record: ImageRecord) -> ImageRecord:
    """Workers have a working folder of their own."""
    mask = None if record.mask is None else record.mask.absolute()
    return replace(record, path=record.path.absolute(), mask=mask)
