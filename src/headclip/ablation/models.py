"""Training every model of a plan, once for each seed, from features that models with equal needs have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from headclip.ablation.plan import Model, Plan
from headclip.clip.backbone import Backbone
from headclip.errors import DivergedError, InputError
from headclip.methods import TrainableMethod, create_method
from headclip.methods.base import Method
from headclip.methods.checkpoint import read_info
from headclip.training.features import kept_request
from headclip.training.sets import SyntheticTrainingSet, TrainingItem, TrainingSet, open_labelled
from headclip.training.train_config import TrainConfig
from headclip.training.trainer import Progress as Step
from headclip.training.trainer import Trainer, state_path

MODELS = "models"
Progress = Callable[[str, int, int, int], None]
"""Called with what is being done, how much of it is done, of how much, and how many images failed."""


@dataclass(frozen=True)
class TrainingData:
    """What to train on: the rendered set (`images` of them from `seed`), a labelled folder, or a dataset NAME=PATH."""

    source: str = "synthetic"
    images: int = 500
    seed: int = 111

    def open(self, size: int) -> TrainingSet:
        """The set at `size` px; each image is made or read once and kept in memory.

        Raises:
            InputError: no such folder or dataset, or nothing in it to learn from.
        """
        if self.source == "synthetic":
            return RememberedSet(SyntheticTrainingSet(self.seed, self.images, size))
        return RememberedSet(open_labelled(self.source, size))


class RememberedSet:
    """A training set that makes or reads every image once."""

    def __init__(self, data: TrainingSet) -> None:
        self.data = data
        self._items: dict[int, TrainingItem] = {}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> TrainingItem:
        if index not in self._items:
            self._items[index] = self.data[index]
        return self._items[index]

    def describe(self) -> dict[str, Any]:
        return self.data.describe()


@dataclass(frozen=True)
class Failure:
    """A model that could not be trained from a seed. model: its key; labels: of the rows that read it."""

    model: str
    labels: tuple[str, ...]
    seed: int
    reason: str

    def __str__(self) -> str:
        return f"{'; '.join(self.labels)}, seed {self.seed}, could not be trained: {self.reason}"


@dataclass
class Workshop:
    """What trains the models of a plan. failures: those that could not be trained.

    features: where features of the frozen tower are kept: True in memory, a folder on disk, False nowhere, so that the
        tower runs in every epoch.
    """

    backbone: Backbone
    data: TrainingData
    out: Path
    image_size: int | None = None
    features: bool | Path = True
    failures: list[Failure] = field(default_factory=list)
    _sets: dict[int, TrainingSet] = field(default_factory=dict)
    _kept: dict[int, tuple[Any, Any]] = field(default_factory=dict)

    def path(self, model: Model, seed: int) -> Path:
        """The checkpoint of a model."""
        return self.out / MODELS / model.file(seed)

    def check(self, plan: Plan) -> None:
        """Build every method once.

        Raises:
            InputError: settings that do not fit the backbone, before hours are spent on those that do.
        """
        for judge in plan.judges:
            try:
                method = create_method(judge.model.method, self.backbone, judge.model.method_config(0))
                method.request.check(self.backbone.config.vision.layers)
            except InputError as error:
                raise InputError(f"{judge.model.label}: {error}") from error

    def train(self, plan: Plan, seeds: tuple[int, ...], progress: Progress) -> None:
        """Train what is not there yet; a run that was stopped goes on from its last saved step.

        A model whose loss is not finite any more is among the `failures` then, and the others are trained.

        Raises:
            InputError: the images have changed since others of these models were trained.
        """
        jobs = self._jobs(plan, seeds)
        images = len(self._trainer(*jobs[0]).data) if jobs else 0
        if jobs and self.data.source != "synthetic":
            self._check_data(plan, seeds)
        steps = [model.train["epochs"] * -(-images // model.train["batch_size"]) for model, _ in jobs]
        title = f"training {len(jobs)} model{'s' if len(jobs) > 1 else ''}"
        for number, (model, seed) in enumerate(jobs):
            try:
                self._train(model, seed, partial(_show, progress, title, sum(steps[:number]), sum(steps)))
            except DivergedError as error:
                labels = tuple(row.variant.label for row in plan.rows if row.judge.model == model)
                self.failures.append(Failure(model.key, labels, seed, str(error)))
        self._kept.clear()
        self._sets.clear()

    def has_failed(self, model: Model, seed: int) -> bool:
        """Whether there is no checkpoint of a model to be had."""
        return any((failure.model, failure.seed) == (model.key, seed) for failure in self.failures)

    def _jobs(self, plan: Plan, seeds: tuple[int, ...]) -> list[tuple[Model, int]]:
        """What is not trained yet."""
        return [(model, seed) for model in plan.models for seed in seeds if not self._is_done(model, seed)]

    def to_learn_from(self, plan: Plan, seeds: tuple[int, ...]) -> dict[str, Any]:
        """What the checkpoints still to be made will say of their images; {} where these are rendered, or none is."""
        jobs = self._jobs(plan, seeds)
        return self._trainer(*jobs[0]).data.describe() if jobs and self.data.source != "synthetic" else {}

    def _check_data(self, plan: Plan, seeds: tuple[int, ...]) -> None:
        """Raise InputError where a finished model has learnt from other images than there are now."""
        now = next(iter(self._sets.values())).describe()["fingerprint"]
        for path in (self.path(model, seed) for model in plan.models for seed in seeds if self._is_done(model, seed)):
            if read_info(path).data.get("fingerprint") != now:
                raise InputError(
                    f"{path} was trained on other images than {self.data.source} holds now, and all rows and seeds of "
                    "a table share theirs; bring those images back, or use --overwrite or another folder"
                )

    def _is_done(self, model: Model, seed: int) -> bool:
        path = self.path(model, seed)
        return path.is_file() and not state_path(path).exists()

    def _train(self, model: Model, seed: int, show: Callable[[Step], None]) -> None:
        trainer, path = self._trainer(model, seed), self.path(model, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        if state_path(path).exists():
            trainer.restore(state_path(path))
        trainer.run(path, progress=show)

    def _trainer(self, model: Model, seed: int) -> Trainer:
        method = create_method(model.method, self.backbone, model.method_config(seed))
        assert isinstance(method, TrainableMethod)
        size = self.image_size or method.image_size
        if size not in self._sets:
            self._sets[size] = self.data.open(size)
        keep = self.features if can_keep(method) else False
        trainer = Trainer(method, self._sets[size], TrainConfig(**model.train, seed=seed, keep_features=keep))
        if trainer.store is not None:  # what earlier trainers have kept, and what they know of the images
            trainer.store, trainer.items = self._kept.setdefault(size, (trainer.store, trainer.items))
        return trainer


def can_keep(method: Method) -> bool:
    """Whether a method can train from kept features."""
    try:
        kept_request(method)
    except InputError:
        return False
    return True


def _show(progress: Progress, title: str, before: int, total: int, step: Step) -> None:
    progress(title, before + (step.epoch - 1) * step.batches + step.batch, total, 0)
