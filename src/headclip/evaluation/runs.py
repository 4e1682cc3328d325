"""Scoring finished runs: rows of `headclip predict` are matched to the records of a dataset; no model is needed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headclip.clip.preprocess import input_size
from headclip.data.datasets import Dataset
from headclip.data.discover import printable
from headclip.data.records import ImageRecord
from headclip.errors import InputError
from headclip.evaluation.checks import (
    Progress,
    check_leakage,
    check_out,
    refuse_leakage,
    start,
    unique_names,
)
from headclip.evaluation.counts import encode_counts, read_counts
from headclip.evaluation.evaluate import Evaluation, Options, scoring_progress
from headclip.evaluation.judged import JudgedImage, Resolution, Size, choose, read_truth
from headclip.evaluation.outputs import write_outputs
from headclip.evaluation.scoring import score_dataset
from headclip.files import content_hash, scratch_folder, write_atomically
from headclip.metrics.state import image_state
from headclip.runs.files import JOURNAL, RunFolderError
from headclip.runs.overlay import resize_map
from headclip.runs.pictures import read_levels
from headclip.runs.run import Row, Run, read_journal

_FEW_LEVELS = 256
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
    if options.overwrite and any(folder.resolve().is_relative_to(out.resolve()) for folder in runs):
        raise InputError(f"--overwrite would delete a run that lies in {out}; choose another --out")
    opened = [Run.open(folder) for folder in runs]
    pairs = _pairs(opened, datasets)
    shared = {(id(run), id(dataset)): check_leakage(run.settings, dataset, progress) for run, dataset, _ in pairs}
    refuse_leakage(shared.values(), options)
    labels = _labels(opened, pairs)
    start(out, command, options)
    evaluation = Evaluation(out, options, [], arguments or {}, command)
    with scratch_folder(out) as temporary:
        for number, (run, dataset, rows) in enumerate(pairs):
            scale = _resolution(run, options)
            images, lost = _judged(run, dataset, rows, temporary / str(number), scale, options, progress)
            evaluation.results.append(
                score_dataset(
                    dataset,
                    images,
                    labels[id(run)],
                    run.settings,
                    options.scoring,
                    leakage=shared[id(run), id(dataset)],
                    limit=options.limit,
                    extra_notes=[*lost, *_run_notes(run, rows, scale)],
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
            names = any(_by_name(run, dataset) for dataset in datasets)
            raise InputError(
                f"no image of the run {run.folder} belongs to {titles}; it judged images under {run.facts['root']}"
                + (", and those of the same names have another content" if names else "")
            )
    for dataset in datasets:
        if not any(pair[1] is dataset for pair in pairs):
            raise InputError(f"no image of {dataset.info.title} in {dataset.root} is in any of these runs")
    return pairs


def match_rows(run: Run, dataset: Dataset) -> dict[Path, Row]:
    """The run's row of each image: by the place of its file, else, where data have moved, by name and content.

    By name, a row belongs to the image with which it shares the longest end of its path, at least the whole of one
    of the two relative names; where two images or two rows fit equally well, neither is taken. Never by order. Where
    the run's journal tells the content of the file that it judged, the image has to have the same.
    """
    by_place = {_absolute(run.image_path(row)): row for row in run.rows}
    rows = {record.path: by_place[place] for record in dataset.records if (place := _absolute(record.path)) in by_place}
    return rows or _of_same_content(run, _by_name(run, dataset))


def _of_same_content(run: Run, rows: Mapping[Path, Row]) -> dict[Path, Row]:
    """Those images that are, byte by byte, what the run judged, as far as it tells."""
    if not rows:
        return {}
    known = {name: entry.sha256 for name, entry in read_journal(run.folder / JOURNAL)[0].items()}
    return {
        path: row
        for path, row in rows.items()
        if (judged := known.get(row.path)) is None or content_hash(path) in (None, judged)
    }


def _by_name(run: Run, dataset: Dataset) -> dict[Path, Row]:
    fits = [
        (_shared_parts(record.path, run.image_path(row)), record.path, row)
        for record, row in _same_ends(dataset, run.rows)
    ]
    of_record, of_row = _clear_best(fits, 1), _clear_best(fits, 2)
    return {path: row for path, row in of_record.items() if of_row.get(row) == path}


def _clear_best(fits: list[tuple[int, Path, Row]], key: int) -> dict[Any, Any]:
    """For each entry at `key` its partner of the longest common end, unless two have it."""
    best: dict[Any, list[tuple[int, Any]]] = {}
    for fit in fits:
        best.setdefault(fit[key], []).append((fit[0], fit[3 - key]))
    found = {}
    for entry, partners in best.items():
        longest = max(length for length, _ in partners)
        fitting = [partner for length, partner in partners if length == longest]
        if len(fitting) == 1:
            found[entry] = fitting[0]
    return found


def _same_ends(dataset: Dataset, rows: Iterable[Row]) -> Iterator[tuple[ImageRecord, Row]]:
    """Images and rows of which one relative name is the end of the other, whole parts of it."""
    whole: dict[str, list[Row]] = {}
    by_end: dict[str, list[Row]] = {}
    for row in rows:
        whole.setdefault(row.path, []).append(row)
        for end in _ends(row.path):
            by_end.setdefault(end, []).append(row)
    for record in dataset.records:
        name, *shorter = _ends(dataset.relative(record.path))
        fitting = [*by_end.get(name, []), *(row for end in shorter for row in whole.get(end, []))]
        yield from ((record, row) for row in fitting)


def _ends(path: str) -> Iterator[str]:
    """
    >>> list(_ends("a/b.png"))
    ['a/b.png', 'b.png']
    """
    while path:
        yield path
        path = path.partition("/")[2]


def _shared_parts(first: Path, second: Path) -> int:
    count = 0
    for one, other in zip(reversed(first.parts), reversed(second.parts), strict=False):
        if one != other:
            break
        count += 1
    return count


def _absolute(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _labels(runs: Sequence[Run], pairs: Pairs) -> dict[int, str]:
    """What tables call each run: as it was called when it was judged, else by its method; where that does not tell
    the runs over a dataset apart, by its folder's name, or by its path."""
    choices = (
        {id(run): str(run.facts.get("label") or run.settings.get("method", "run")) for run in runs},
        {id(run): printable(run.folder.resolve().name) for run in runs},
    )
    for names in choices:
        rows = [(id(dataset), names[id(run)]) for run, dataset, _ in pairs]
        if len(set(rows)) == len(rows):
            return names
    return {id(run): printable(str(run.folder)) for run in runs}


def _resolution(run: Run, options: Options) -> Resolution:
    kept: Resolution = (run.settings.get("evaluation") or {}).get("resolution", "image")
    if kept == "tower" and options.resolution == "image":
        raise InputError(f"the maps of {run.folder} are at the tower's resolution; use --resolution tower")
    return "tower" if kept == "tower" else options.scale


def _run_notes(run: Run, rows: Mapping[Path, Row], scale: Resolution) -> list[str]:
    notes = [] if run.finished else [f"the run {run.name} was not finished"]
    used = {row.path for row in rows.values()}
    others = [row.path for row in run.rows if row.path not in used]
    if others:
        which = f"{len(others)} row(s) of the run {run.name}"
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
) -> tuple[list[JudgedImage], list[str]]:
    """All images, and a note where the 16-bit maps have lost most of what the model said."""
    records = choose(dataset, options.limit)
    images: list[JudgedImage] = []
    top: list[int] = []
    for done, record in enumerate(records):
        progress(f"reading {run.name}", done, len(records), 0)
        row, name = rows.get(record.path), dataset.relative(record.path)
        if record.label is None:
            images.append(JudgedImage(record, name, "unlabelled", reason="no label: cannot be scored"))
        elif row is None:
            images.append(JudgedImage(record, name, "missing", reason=f"no row in the run {run.name}"))
        elif row.status == "failed":
            images.append(JudgedImage(record, name, "failed", reason=row.reason))
        else:
            image = JudgedImage(record, name, "ok", row.score, load_map=partial(run.load_map, row))
            counted = dataset.info.level != "image"
            images.append(_count(image, run, dataset, row, folder / f"{done}", scale, top) if counted else image)
    progress(f"reading {run.name}", len(records), len(records), 0)
    if not top or max(top) >= _FEW_LEVELS:
        return images, []
    lost = f"no map of {run.name} reaches {_FEW_LEVELS} of 65,535 levels: 16 bits have lost most of"
    return images, [f"{lost} its scores, and pixel figures of a live evaluation will differ"]


def _count(
    image: JudgedImage, run: Run, dataset: Dataset, row: Row, file: Path, scale: Resolution, top: list[int]
) -> JudgedImage:
    """The image with its pixel counts, or with the reason why there are none; its highest level goes to `top`."""
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
    top.append(int(levels.max()) if levels.dtype == np.uint16 else int(65535 * levels.max()))
    write_atomically(file, encode_counts(image_state(levels, truth.mask), {}))
    return replace(image, reason=truth.note, load=partial(read_counts, file))


def _output_size(run: Run, image: Size, kept: Size, scale: Resolution) -> Size:
    """The size at which the map is scored; a run that kept maps of the tower's size has them already."""
    if scale == "image" or kept != image:
        return kept
    side = int(run.settings["image_size"])
    keep, least = bool(run.settings.get("keep_aspect")), float(run.settings.get("least_side") or 0.0)
    patch = int(run.settings.get("patch", 1))  # runs of earlier versions do not say it
    return input_size(*image, image_size=side, patch=patch, keep_aspect=keep, least_side=least)
