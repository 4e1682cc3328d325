"""Judge and score datasets, or score finished runs, and write every table of the evaluation."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headclip.data.datasets import Dataset
from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.hashing import TrainingHashes, leakage
from headclip.errors import InputError
from headclip.evaluation.judged import JudgedImage, Resolution, choose, dataset_key
from headclip.evaluation.judging import COUNTS, JudgingOptions, judge_dataset
from headclip.evaluation.metrics import PROTOCOLS
from headclip.evaluation.outputs import FIGURES, FILES, FORMAT, RESULTS, write_outputs
from headclip.evaluation.scoring import DatasetResult, ScoringOptions, score_dataset
from headclip.evaluation.tables import TableRow, table_rows
from headclip.files import write_atomically
from headclip.inference.detector import Detector
from headclip.inference.run_files import RUN_JSON

RUNS = "runs"


@dataclass(frozen=True)
class Options:
    """resolution: None takes that of the protocol: "tower" for ader, as the published codes do, else "image".

    bootstrap: draws for the intervals, 0 for none; limit: images of each category, None for all; worst: images of
    each kind in worst.html; remarks: lines for the head of the tables.
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

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InputError(f"unknown protocol '{self.protocol}'; choose {' or '.join(PROTOCOLS)}")
        if self.resolution not in (None, "image", "tower"):
            raise InputError(f"unknown resolution '{self.resolution}'; choose image or tower")
        if self.bootstrap < 0 or (self.limit is not None and self.limit < 2):
            raise InputError("--bootstrap needs 0 or more, --limit 2 or more")

    @property
    def scale(self) -> Resolution:
        """The resolution at which maps and masks meet."""
        return self.resolution or ("tower" if self.protocol == "ader" else "image")

    @property
    def scoring(self) -> ScoringOptions:
        return ScoringOptions(self.protocol, self.bootstrap, self.seed)


Progress = Callable[[str, int, int, int], None]
"""Called with what is being done, how much of it is done, of how much, and how many images failed."""


@dataclass
class Evaluation:
    """All results, and the rows of their tables."""

    out: Path
    options: Options
    results: list[DatasetResult]
    arguments: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    seconds: float = 0.0
    hints: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[TableRow]:
        return table_rows(self.results, self.options.protocol)


def evaluate(
    detector: Detector,
    datasets: Sequence[Dataset],
    out: Path,
    options: Options | None = None,
    *,
    arguments: dict[str, Any] | None = None,
    command: str = "",
    progress: Progress = lambda stage, done, total, failed: None,
) -> Evaluation:
    """Judge every image of the datasets, score, and write tables, scores and results to `out`.

    Raises:
        InputError: the model was trained on a dataset or on images of it, unless that is allowed; a dataset is
            given twice.
        RunFolderError: `out` cannot be used.
        KeyboardInterrupt: passed on; `resume` goes on with what is left.
    """
    options = options or Options()
    started = time.perf_counter()
    check_out(out, options)
    labels = unique_names(datasets)
    facts = detector.describe()
    shared = {dataset_key(dataset): check_leakage(facts, dataset, progress) for dataset in datasets}
    refuse_leakage(shared.values(), options)
    start(out, command, options)
    evaluation = Evaluation(out, options, [], arguments or {}, command)
    for dataset, label in zip(datasets, labels, strict=True):
        images = _judge(detector, dataset, out / RUNS / label, options, arguments, progress)
        evaluation.results.append(
            score_dataset(
                dataset,
                images,
                str(facts["method"]),
                facts,
                options.scoring,
                leakage=shared[label],
                limit=options.limit,
                progress=scoring_progress(progress, dataset),
            )
        )
    evaluation.seconds = time.perf_counter() - started
    write_outputs(evaluation, progress)
    for folder in (out / RUNS).glob(f"*/{COUNTS}"):
        shutil.rmtree(folder, ignore_errors=True)
    return evaluation


def _judge(
    detector: Detector,
    dataset: Dataset,
    folder: Path,
    options: Options,
    arguments: dict[str, Any] | None,
    progress: Progress,
) -> list[JudgedImage]:
    resume = options.resume and (folder / RUN_JSON).is_file()
    judging = JudgingOptions(options.scale, options.keep_maps, resume, options.max_pixels)

    def show(done: int, total: int, failed: int) -> None:
        progress(f"judging {dataset.info.title}", done, total, failed)

    records = choose(dataset, options.limit)
    return judge_dataset(detector, dataset, records, folder, judging, arguments=arguments, progress=show)


def scoring_progress(progress: Progress, dataset: Dataset) -> Callable[[int, int], None]:
    """Progress of scoring, by categories."""
    return lambda done, total: progress(f"scoring {dataset.info.title}", done, total, 0)


def unique_names(datasets: Sequence[Dataset]) -> list[str]:
    """A folder name for each dataset; own data goes by the name of its folder.

    Raises:
        InputError: two would share one.
    """
    labels = [dataset_key(dataset) for dataset in datasets]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise InputError(f"{', '.join(sorted(twice))} is given twice; evaluate the copies one by one")
    return labels


def check_out(out: Path, options: Options) -> None:
    """Whether the evaluation may be written to `out`.

    Raises:
        InputError: `out` is a file, holds something else, or holds an evaluation and neither `resume` nor
            `overwrite` is given.
    """
    if options.resume and options.overwrite:
        raise InputError("--resume and --overwrite exclude each other; give one of them")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out needs a folder")
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        found = json.loads((out / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{out} is not empty and holds no evaluation; choose an empty or a new folder")
    if not (options.resume or options.overwrite):
        state = "a finished" if found.get("status") == "finished" else "an unfinished"
        raise InputError(
            f"{out} already holds {state} evaluation; add --resume to go on with it, --overwrite to replace it, "
            "or choose another folder"
        )


def start(out: Path, command: str, options: Options) -> None:
    """Mark the folder as ours, so that a kill leaves one that can be resumed; with `overwrite`, empty it before."""
    write_atomically(out / RESULTS, json.dumps({"format": FORMAT, "status": "running", "command": command}) + "\n")
    if options.overwrite:
        for name in FILES:
            (out / name).unlink(missing_ok=True)
        for name in (RUNS, FIGURES):
            shutil.rmtree(out / name, ignore_errors=True)


def check_leakage(facts: Mapping[str, Any], dataset: Dataset, progress: Progress) -> str:
    """What the training set of a detector (or of a run's settings) shares with a dataset, in one line, or ""."""
    training = TrainingHashes.from_metadata(facts.get("checkpoint_data") or {})
    title = f"comparing {dataset.info.title} with the training images"
    has_hashes = bool(training.files or training.looks)

    def show(done: int) -> None:
        if has_hashes:
            progress(title, done, len(dataset), 0)

    return leakage(training, dataset_key(dataset), dataset.records, progress=show).sentence()


def refuse_leakage(shared: Iterable[str], options: Options) -> None:
    """Raise InputError where something is shared and that has not been allowed."""
    found = [sentence for sentence in shared if sentence]
    if found and not options.allow_leakage:
        raise InputError(
            f"{'; '.join(found)}. Figures on images seen in training mean nothing: use another checkpoint or "
            "dataset, or --allow-leakage, which marks every table"
        )
