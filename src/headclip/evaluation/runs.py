"""Scoring finished runs: rows of `headclip predict` are matched to the records of a dataset; no model is needed."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headclip.clip.preprocess import input_size
from headclip.data.datasets import Dataset
from headclip.errors import InputError
from headclip.evaluation.counts import encode_counts, read_counts
from headclip.evaluation.evaluate import (
    Evaluation,
    Options,
    Progress,
    check_leakage,
    check_out,
    refuse_leakage,
    scoring_progress,
    start,
    unique_names,
)
from headclip.evaluation.judged import JudgedImage, Resolution, Size, choose, read_truth
from headclip.evaluation.metrics.state import image_state
from headclip.evaluation.outputs import write_outputs
from headclip.evaluation.scoring import score_dataset
from headclip.files import write_atomically
from headclip.inference.overlay import resize_map
from headclip.inference.run import Row, Run
from headclip.inference.run_files import RunFolderError, read_levels

_NO_MAP = "the run kept no map: not in the pixel metrics"


def evaluate_runs(
    runs: Sequence[Path],
    datasets: Sequence[Dataset],
    out: Path,
    options: Options | None = None,
    *,
    arguments: dict[str, Any] | None = None,
    command: str = "",
    progress: Progress = lambda stage, done, total, failed: None,
) -> Evaluation:
    """Score finished runs on every dataset whose images they hold.

    Maps are read from the runs' 16-bit files, so that figures differ from those of a live evaluation by what
    1/65535 in the scores can do. Several runs over one dataset are compared with each other.

    Raises:
        InputError: a run shares no image with any dataset, a dataset none with any run; training images among
            them; a resolution that the maps do not have.
        RunFolderError: a folder holds no run.
    """
    options = options or Options()
    started = time.perf_counter()
    check_out(out, options)
    unique_names(datasets)
    opened = [Run.open(folder) for folder in runs]
    pairs = _pairs(opened, datasets)
    shared = {(id(run), dataset.name): check_leakage(run.settings, dataset, progress) for run, dataset, _ in pairs}
    refuse_leakage(shared.values(), options)
    labels = _labels(opened, pairs)
    start(out, command)
    evaluation = Evaluation(out, options, [], arguments or {}, command)
    with tempfile.TemporaryDirectory(prefix=".counts-", dir=out) as temporary:
        for number, (run, dataset, rows) in enumerate(pairs):
            scale = _resolution(run, options)
            images = _judged(run, dataset, rows, Path(temporary) / str(number), scale, options, progress)
            evaluation.results.append(
                score_dataset(
                    dataset,
                    images,
                    labels[id(run)],
                    run.settings,
                    options.scoring,
                    leakage=shared[id(run), dataset.name],
                    limit=options.limit,
                    extra_notes=_run_notes(run, dataset, rows, scale),
                    progress=scoring_progress(progress, dataset),
                )
            )
        evaluation.seconds = time.perf_counter() - started
        write_outputs(evaluation, progress)
    return evaluation


Pairs = list[tuple[Run, Dataset, dict[Path, Row]]]


def _pairs(runs: Sequence[Run], datasets: Sequence[Dataset]) -> Pairs:
    pairs = [(run, dataset, rows) for dataset in datasets for run in runs if (rows := match_rows(run, dataset))]
    for run in runs:
        if not any(pair[0] is run for pair in pairs):
            titles = ", ".join(dataset.info.title for dataset in datasets)
            raise InputError(
                f"no image of the run {run.folder} belongs to {titles}; it judged images under {run.facts['root']}"
            )
    for dataset in datasets:
        if not any(pair[1] is dataset for pair in pairs):
            raise InputError(f"no image of {dataset.info.title} in {dataset.root} is in any of these runs")
    return pairs


def match_rows(run: Run, dataset: Dataset) -> dict[Path, Row]:
    """The run's row of each image: by the place of its file, else by the longest end of its path, where that is
    clear. Never by order."""
    by_place = {_absolute(run.image_path(row)): row for row in run.rows}
    rows = {record.path: by_place[place] for record in dataset.records if (place := _absolute(record.path)) in by_place}
    if rows:
        return rows
    by_name: dict[str, list[Row]] = {}
    for row in run.rows:
        by_name.setdefault(Path(row.path).name, []).append(row)
    for record in dataset.records:
        candidates = by_name.get(record.path.name, [])
        common = [_shared_parts(record.path, row.path) for row in candidates]
        best = [row for row, length in zip(candidates, common, strict=True) if length == max(common)]
        if len(best) == 1 and _is_end(dataset.relative(record.path), best[0].path):
            rows[record.path] = best[0]
    return rows


def _is_end(first: str, second: str) -> bool:
    """Whether one of two relative paths is the end of the other."""
    return f"/{first}".endswith(f"/{second}") or f"/{second}".endswith(f"/{first}")


def _shared_parts(path: Path, name: str) -> int:
    count = 0
    for one, other in zip(reversed(path.parts), reversed(Path(name).parts), strict=False):
        if one != other:
            break
        count += 1
    return count


def _absolute(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _labels(runs: Sequence[Run], pairs: Pairs) -> dict[int, str]:
    """What tables call each run: its method, or, where several runs cover a dataset, its folder."""
    covered = [id(dataset) for _, dataset, _ in pairs]
    if len(set(covered)) == len(covered):
        return {id(run): str(run.settings.get("method", "run")) for run in runs}
    names = [run.folder.resolve().name for run in runs]
    clear = len(set(names)) == len(names)
    return {id(run): name if clear else str(run.folder) for run, name in zip(runs, names, strict=True)}


def _resolution(run: Run, options: Options) -> Resolution:
    kept: Resolution = (run.settings.get("evaluation") or {}).get("resolution", "image")
    if kept == "tower" and options.resolution == "image":
        raise InputError(f"the maps of {run.folder} are at the tower's resolution; use --resolution tower")
    return "tower" if kept == "tower" else options.scale


def _run_notes(run: Run, dataset: Dataset, rows: Mapping[Path, Row], scale: Resolution) -> list[str]:
    notes = [] if run.finished else [f"the run {run.folder.name} was not finished"]
    used = {row.path for row in rows.values()}
    others = [row.path for row in run.rows if row.path not in used]
    if others:
        which = f"{len(others)} row(s) of the run {run.folder.name}"
        notes.append(f"{which} belong to no image of the dataset, e.g. {others[0]}")
    if scale == "tower" and "evaluation" not in run.settings:
        notes.append("maps were brought from the image's to the tower's resolution, which smooths them slightly")
    return notes


def _judged(
    run: Run,
    dataset: Dataset,
    rows: Mapping[Path, Row],
    folder: Path,
    scale: Resolution,
    options: Options,
    progress: Progress,
) -> list[JudgedImage]:
    records = choose(dataset, options.limit)
    images = []
    for done, record in enumerate(records):
        progress(f"reading {run.folder.name}", done, len(records), 0)
        row, name = rows.get(record.path), dataset.relative(record.path)
        if record.label is None:
            images.append(JudgedImage(record, name, "unlabelled", reason="no label: cannot be scored"))
        elif row is None:
            images.append(JudgedImage(record, name, "missing", reason=f"no row in the run {run.folder.name}"))
        elif row.status == "failed":
            images.append(JudgedImage(record, name, "failed", reason=row.reason))
        else:
            image = JudgedImage(record, name, "ok", row.score, load_map=partial(run.load_map, row))
            counted = dataset.info.level != "image"
            images.append(_count(image, run, dataset, row, folder / f"{done}", scale) if counted else image)
    progress(f"reading {run.folder.name}", len(records), len(records), 0)
    return images


def _count(image: JudgedImage, run: Run, dataset: Dataset, row: Row, file: Path, scale: Resolution) -> JudgedImage:
    """The image with its pixel counts, or with the reason why there are none."""
    if row.map is None:
        return replace(image, reason=_NO_MAP, load_map=None)
    try:
        levels: NDArray[Any] = read_levels(run.folder / row.map)
    except RunFolderError as error:
        return replace(image, reason=f"{error}: not in the pixel metrics", load_map=None)
    size = (int(row.height or 0), int(row.width or 0))
    output = _output_size(run, size, (levels.shape[0], levels.shape[1]), scale)
    if output != levels.shape:
        levels = resize_map((levels / np.float32(65535)).astype(np.float32), (output[1], output[0]))
    truth = read_truth(image.record, dataset.info.mask_threshold, size, output)
    if not truth.known:
        return replace(image, reason=truth.note)
    write_atomically(file, encode_counts(image_state(levels, truth.mask), {}))
    return replace(image, reason=truth.note, load=partial(read_counts, file))


def _output_size(run: Run, image: Size, kept: Size, scale: Resolution) -> Size:
    """The size at which the map is scored; a run that kept maps of the tower's size has them already."""
    if scale == "image" or kept != image:
        return kept
    side = int(run.settings["image_size"])
    return input_size(*image, image_size=side, patch=1, keep_aspect=bool(run.settings.get("keep_aspect")))
