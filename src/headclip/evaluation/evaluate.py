"""Judge and score datasets, or score finished runs, and write every table of the evaluation."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from headclip.data.datasets import Dataset
from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.errors import InputError
from headclip.evaluation.checks import (
    RUNS,
    Progress,
    check_every_leakage,
    check_out,
    label_folders,
    refuse_leakage,
    start,
    unique_names,
)
from headclip.evaluation.compared import Compared
from headclip.evaluation.comparison import MethodComparison, compare_results
from headclip.evaluation.judged import Resolution, choose
from headclip.evaluation.judging import Elsewhere, judge_dataset
from headclip.evaluation.outputs import write_outputs
from headclip.evaluation.peers import PeerOptions
from headclip.evaluation.recording import COUNTS, JudgingOptions
from headclip.evaluation.scoring import DatasetResult, ScoringOptions, count_category, score_dataset
from headclip.evaluation.shards import PartWriter
from headclip.evaluation.shots import ShotOptions, shots_json
from headclip.evaluation.tables import TableRow, table_rows
from headclip.inference.detector import Detector
from headclip.inference.roi import refuse_roi
from headclip.metrics import PROTOCOLS
from headclip.runs.shards import Shard


@dataclass(frozen=True)
class Options:
    """resolution: None takes that of the protocol: "tower" for ader, as the published codes do, else "image".

    bootstrap: draws for the intervals, 0 for none; limit: images of each category, None for all; worst: images of
    each kind in worst.html; remarks: lines for the head of the tables; shard: judge this part of the images alone, for
    `merge_evaluations`; peers: compare each image with so many of its category, unlabelled, None with none;
    peer_weight: how much that counts; shots: compare with so many normal images of its category, which are not scored
    (`headclip.evaluation.shots`), chosen by `seed`; by the labels of the methods where they are to have different
    numbers, so that all judge the same images.
    """

    protocol: str = "exact"
    resolution: Resolution | None = None
    bootstrap: int = 1000
    seed: int = 0
    limit: int | None = None
    keep_maps: bool = False
    resume: bool = False
    overwrite: bool = False
    allow_leakage: bool = False
    figures: bool = True
    worst: int = 12
    max_pixels: int = DEFAULT_MAX_PIXELS
    remarks: tuple[str, ...] = ()
    shard: Shard | None = None
    peers: int | None = None
    peer_weight: float = 1.0
    shots: int | Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InputError(f"unknown protocol '{self.protocol}'; choose {' or '.join(PROTOCOLS)}")
        if self.resolution not in (None, "image", "tower"):
            raise InputError(f"unknown resolution '{self.resolution}'; choose image or tower")
        if self.bootstrap < 0 or (self.limit is not None and self.limit < 2):
            raise InputError("--bootstrap needs 0 or more, --limit 2 or more")
        if (self.peers is not None and self.peers < 2) or not self.peer_weight >= 0:
            raise InputError("--peers needs 2 or more, --peer-weight 0 or more")
        if self.shots is not None and self.shard is not None:
            raise InputError("--shots and --shard do not go together; leave one of them out")
        _ = self.compared

    @property
    def scale(self) -> Resolution:
        """The resolution at which maps and masks meet."""
        return self.resolution or ("tower" if self.protocol == "ader" else "image")

    @property
    def compared(self) -> Compared:
        """What methods compare each image with."""
        return Compared(
            None if self.peers is None else PeerOptions(self.peers, self.peer_weight),
            None if self.shots is None else ShotOptions(self.shots, self.seed),
        )

    @property
    def judging(self) -> JudgingOptions:
        return JudgingOptions(self.scale, self.keep_maps, self.resume, self.max_pixels, self.compared)

    @property
    def scoring(self) -> ScoringOptions:
        return ScoringOptions(self.protocol, self.bootstrap if self.shard is None else 0, self.seed)

    def place(self, out: Path) -> Path:
        """Where results go: `out`, or the shard's folder in it."""
        return out if self.shard is None else self.shard.folder(out)


@dataclass
class Evaluation:
    """All results, and the rows of their tables. extra: further entries of results.json."""

    out: Path
    options: Options
    results: list[DatasetResult]
    arguments: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    seconds: float = 0.0
    hints: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> list[TableRow]:
        return table_rows(self.results, self.options.protocol)

    @cached_property
    def comparisons(self) -> list[MethodComparison]:
        """Of the other methods with the first; asked for once all results are there."""
        return compare_results(self.results, self.options.protocol)


def evaluate(
    detector: Detector,
    datasets: Sequence[Dataset],
    out: Path,
    options: Options | None = None,
    *,
    arguments: dict[str, Any] | None = None,
    command: str = "",
    progress: Progress = lambda stage, done, total, failed: None,
    elsewhere: Elsewhere | None = None,
) -> Evaluation:
    """Judge every image of the datasets, score, and write tables, scores and results to `out`.

    elsewhere: judges in place of this process, as in `judge_dataset`.

    Raises:
        InputError: the model was trained on a dataset or on images of it, unless that is allowed; a dataset is
            given twice.
        RunFolderError: `out` cannot be used.
        KeyboardInterrupt: passed on; `resume` goes on with what is left.
    """
    detectors = {str(detector.describe()["method"]): detector}
    evaluation = Evaluation(out, options or Options(), [], arguments or {}, command)
    base = evaluation.options.place(out) / RUNS
    with evaluation.options.compared.left_alone(detectors):
        return _evaluate(evaluation, detectors, datasets, lambda dataset, label: base / dataset, progress, elsewhere)


def evaluate_together(
    detectors: Mapping[str, Detector],
    datasets: Sequence[Dataset],
    out: Path,
    options: Options | None = None,
    *,
    arguments: dict[str, Any] | None = None,
    command: str = "",
    progress: Progress = lambda stage, done, total, failed: None,
    elsewhere: Elsewhere | None = None,
) -> Evaluation:
    """`evaluate` for several methods, or variants of one: one set of tables, a row block each, compared in pairs.

    Every image is decoded once, and runs once through the vision tower for all methods that share a pass (see
    `headclip.inference.shared`; that takes detectors made with one and the same loaded `Backbone`).

    Args:
        detectors: by label, which names the rows in tables and a folder in runs/DATASET/.

    Raises:
        InputError: as `evaluate`; no detector; labels that are empty or name the same folder.
    """
    folders = label_folders(detectors)
    evaluation = Evaluation(out, options or Options(), [], arguments or {}, command)

    def place(dataset: str, label: str) -> Path:
        return evaluation.options.place(out) / RUNS / dataset / folders[label]

    with evaluation.options.compared.left_alone(detectors):
        return _evaluate(evaluation, detectors, datasets, place, progress, elsewhere)


def evaluate_methods(
    detectors: Mapping[str, Detector],
    datasets: Sequence[Dataset],
    out: Path,
    options: Options | None = None,
    *,
    arguments: dict[str, Any] | None = None,
    command: str = "",
    progress: Progress = lambda stage, done, total, failed: None,
) -> list[DatasetResult]:
    """The results of `evaluate_together`: dataset by dataset, in each the detectors in their order.

    `DatasetResult.method` is the detector's label. `Options.resume` goes on with what is not on record in `out`.
    """
    together = evaluate_together(
        detectors, datasets, out, options, arguments=arguments, command=command, progress=progress
    )
    return together.results


def _evaluate(
    evaluation: Evaluation,
    detectors: Mapping[str, Detector],
    datasets: Sequence[Dataset],
    place: Callable[[str, str], Path],
    progress: Progress,
    elsewhere: Elsewhere | None,
) -> Evaluation:
    started = time.perf_counter()
    options = evaluation.options
    for detector in detectors.values():
        refuse_roi(detector, "datasets are scored as whole images; leave it out, or cut the images")
    check_out(evaluation.out, options)
    out = evaluation.out = options.place(evaluation.out)
    keys = unique_names(datasets)
    datasets, shots = options.compared.split(datasets, options.max_pixels)
    facts = options.compared.all_facts(detectors)
    shared = check_every_leakage(facts, datasets, progress)
    refuse_leakage(shared.values(), options)
    about = {} if options.shard is None else {"shard": vars(options.shard)}
    start(out, evaluation.command, options, **about)
    part = None if options.shard is None else PartWriter(out, options.shard)
    for dataset, key, taken in zip(datasets, keys, shots, strict=True):
        records = choose(dataset, options.limit)
        folders = {label: place(key, label) for label in detectors}
        judged = judge_dataset(
            detectors,
            dataset,
            records,
            folders,
            options.judging,
            arguments=evaluation.arguments,
            progress=_judging_progress(progress, dataset, len(detectors)),
            elsewhere=elsewhere,
            shard=options.shard,
            shots=taken,
        )
        for label in detectors:
            evaluation.results.append(
                score_dataset(
                    dataset,
                    judged[label],
                    label,
                    facts[label],
                    options.scoring,
                    leakage=shared[key, label],
                    limit=options.limit,
                    progress=scoring_progress(progress, dataset, label if len(detectors) > 1 else ""),
                    count=count_category if part is None else part.counter(key, label),
                )
            )
            if part is not None:
                part.keep(evaluation.results[-1], judged[label], records, folders[label], options.worst)
    evaluation.extra |= shots_json(keys, datasets, shots)
    evaluation.seconds = time.perf_counter() - started
    if part is not None:
        part.finish(evaluation)
        return evaluation
    write_outputs(evaluation, progress)
    for folder in [*(out / RUNS).glob(f"*/{COUNTS}"), *(out / RUNS).glob(f"*/*/{COUNTS}")]:
        shutil.rmtree(folder, ignore_errors=True)
    return evaluation


def _judging_progress(progress: Progress, dataset: Dataset, methods: int) -> Callable[[int, int, int], None]:
    title = f"judging {dataset.info.title}" + (f" by {methods} methods" if methods > 1 else "")
    return lambda done, total, failed: progress(title, done, total, failed)


def scoring_progress(progress: Progress, dataset: Dataset, label: str = "") -> Callable[[int, int], None]:
    """Progress of scoring, by categories. label: whose judgements, where there are several."""
    title = f"scoring {dataset.info.title}" + (f", {label}" if label else "")
    return lambda done, total: progress(title, done, total, 0)
