"""Running every detector of a plan over the test sets, and what is kept of it: a small file each, written at once.

A record holds the figures under both protocols and, for every image, the image score and its two parts, so that any
joint score ratio follows without the model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headclip.ablation.models import Progress, Workshop
from headclip.ablation.plan import Judge, Plan
from headclip.data.datasets import Dataset
from headclip.errors import InputError
from headclip.evaluation.checks import refuse_tested_images
from headclip.evaluation.evaluate import RUNS, Options, evaluate_methods
from headclip.evaluation.fingerprint import dataset_fingerprint
from headclip.evaluation.judged import choose, dataset_key, name_images
from headclip.evaluation.outputs import FORMAT as EVALUATION
from headclip.evaluation.outputs import RESULTS as EVALUATION_RESULTS
from headclip.evaluation.scoring import DatasetResult
from headclip.files import load_json, write_atomically
from headclip.inference.detector import Detector
from headclip.metrics import PROTOCOLS
from headclip.runs.run import Run

RECORDS, SCRATCH = "records", "scratch"
JUDGED_AT_ONCE = 8_000
"""Detectors times images of one pass: each keeps up to 0.5 MB of pixel counts on disk until the pass is over."""


@dataclass(frozen=True)
class JudgingSettings:
    """How detectors run and are scored; fields as in `headclip.evaluation.evaluate.Options` and `Detector`."""

    protocol: str = "ader"
    resolution: str | None = None
    limit: int | None = None
    allow_leakage: bool = False
    device: str = "auto"
    precision: str = "fp32"
    batch_size: int | None = None

    @property
    def options(self) -> Options:
        return Options(
            protocol=self.protocol,
            resolution=self.resolution,  # type: ignore[arg-type]
            bootstrap=0,
            limit=self.limit,
            resume=True,
            allow_leakage=self.allow_leakage,
            figures=False,
            worst=0,
        )


def useful(datasets: Sequence[Dataset], levels: Sequence[str]) -> tuple[list[Dataset], list[str]]:
    """The datasets that have something of the wanted levels, without the parts that are not asked for, and notes.

    Raises:
        InputError: none has.
    """
    found, notes = [], []
    for dataset in datasets:
        level = dataset.info.level
        if level != "both" and level not in levels:
            notes.append(f"{dataset.info.title} has {level} metrics only, which this ablation is not about: left out")
        elif levels == ("image",) and level == "both":
            found.append(replace(dataset, info=replace(dataset.info, level="image")))  # no pixels are counted
        else:
            found.append(dataset)
    if not found:
        raise InputError(f"{'; '.join(notes)}. Give a dataset with {' or '.join(levels)} labels by --eval NAME=PATH")
    return found, notes


class Court:
    """Judges datasets with the detectors of a plan and keeps a record of each."""

    def __init__(self, workshop: Workshop, settings: JudgingSettings) -> None:
        self.workshop, self.settings, self.out = workshop, settings, workshop.out
        self._fingerprints: dict[tuple[str, Path], str] = {}

    def record_path(self, judge: Judge, seed: int, dataset: Dataset) -> Path:
        """Where the record of a detector on a dataset lies."""
        name = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in dataset_key(dataset))
        return self.out / RECORDS / name / f"{judge.key}-seed{seed}.json"

    def record(self, judge: Judge, seed: int, dataset: Dataset) -> dict[str, Any] | None:
        """What is on record, None where nothing is or the dataset has other images by now."""
        try:
            found = load_json(self.record_path(judge, seed, dataset))
        except (OSError, ValueError):
            return None
        same = found["level"] == dataset.info.level and found["scale"] == self.settings.options.scale
        # records of earlier versions have no fingerprint: nothing says that they are of these images
        return found if same and found.get("fingerprint") == self._fingerprint(dataset) else None

    def _fingerprint(self, dataset: Dataset) -> str:
        """Of the images that are judged, their masks and labels; the files are read once."""
        key = (dataset.info.name, dataset.root)
        if key not in self._fingerprints:
            self._fingerprints[key] = dataset_fingerprint(choose(dataset, self.settings.limit))
        return self._fingerprints[key]

    def refuse_leakage(
        self, plan: Plan, seeds: tuple[int, ...], datasets: Sequence[Dataset], progress: Progress
    ) -> None:
        """`refuse_tested_images`, for what is still to be trained."""
        if data := self.workshop.to_learn_from(plan, seeds):
            refuse_tested_images(data, datasets, self.settings.options, progress)

    def judge(self, plan: Plan, seeds: tuple[int, ...], datasets: Sequence[Dataset], progress: Progress) -> None:
        """Judge what is not on record; every image is decoded once for all detectors that are left."""
        for dataset in datasets:
            todo = [
                (judge, seed)
                for judge in plan.judges
                for seed in judge.seeds(seeds)
                if not self.workshop.has_failed(judge.model, seed) and self.record(judge, seed, dataset) is None
            ]
            size = max(1, JUDGED_AT_ONCE // max(1, len(choose(dataset, self.settings.limit))))
            for start in range(0, len(todo), size):
                self._judge(todo[start : start + size], dataset, progress)

    def _judge(self, pairs: list[tuple[Judge, int]], dataset: Dataset, progress: Progress) -> None:
        scratch = self.out / SCRATCH / self.record_path(*pairs[0], dataset).parent.name
        if scratch.exists() and not _is_evaluation(scratch):
            shutil.rmtree(scratch)
        named = {f"{judge.key}-seed{seed}": (judge, seed) for judge, seed in pairs}
        detectors = {label: self._detector(*pair) for label, pair in named.items()}
        results = evaluate_methods(detectors, [dataset], scratch, self.settings.options, progress=_no_scoring(progress))
        about = {"scale": self.settings.options.scale, "fingerprint": self._fingerprint(dataset)}
        for result in results:
            judge, seed = named[result.method]
            run = Run.open(scratch / RUNS / dataset_key(dataset) / result.method)
            content = _content(result, run, judge, seed) | about
            write_atomically(self.record_path(judge, seed, dataset), json.dumps(content) + "\n")
        shutil.rmtree(scratch.parent)

    def _detector(self, judge: Judge, seed: int) -> Detector:
        settings, model = self.settings, judge.model
        common: dict[str, Any] = {
            "device": settings.device,
            "precision": settings.precision,
            "batch_size": settings.batch_size,
            "image_size": self.workshop.image_size,
        }
        if not model.trained:
            config = {**model.config, **judge.scoring}
            return Detector(self.workshop.backbone, method=model.method, settings=config, **common)
        checkpoint = self.workshop.path(model, seed)
        asked = {name: value for name, value in model.config.items() if name == "image_size"}
        return Detector(self.workshop.backbone, checkpoint, settings={**asked, **judge.scoring}, **common)


def _no_scoring(progress: Progress) -> Progress:
    """Without the many short stages that score a single detector."""

    def show(stage: str, done: int, total: int, failed: int) -> None:
        if not stage.startswith("scoring"):
            progress(stage, done, total, failed)

    return show


def _is_evaluation(folder: Path) -> bool:
    try:
        found = load_json(folder / EVALUATION_RESULTS)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == EVALUATION


def _content(result: DatasetResult, run: Run, judge: Judge, seed: int) -> dict[str, Any]:
    info = result.dataset.info
    parts = {row.path: row for row in run.rows}
    names = name_images([image.record for image in result.images], result.dataset.root)
    images = []
    for image, file in zip(result.images, names.files, strict=True):
        row = parts.get(file.name)
        if image.ok and row is not None:
            label = int(image.record.label or 0)
            images.append([image.record.category, label, row.score, row.global_score, row.local_score])
    return {
        "dataset": result.name,
        "title": info.title,
        "domain": info.domain,
        "family": info.family,
        "level": info.level,
        "method": judge.model.method,
        "seed": seed,
        "alpha": judge.alpha,
        "figures": {
            category.name: {protocol: dict(category.figures[protocol]) for protocol in PROTOCOLS}
            for category in result.categories
        },
        "images": images,
        "notes": list(result.notes),
        "leakage": result.leakage,
    }
