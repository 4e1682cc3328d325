"""Judging a finished run again: other thresholds, the same scores and maps, no model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from headclip.judgement.calibration import Calibration
from headclip.judgement.verdicts import Criteria
from headclip.runs.commit import commit, staging_folder
from headclip.runs.files import (
    CSV_TABLE,
    LABELS,
    MASKS,
    PARQUET_TABLE,
    REGIONS,
    REPORT,
    RUN_JSON,
    TEMPORARY,
    RunFolderError,
    write_atomic,
    write_pieces,
)
from headclip.runs.judging import judge_rows, judgement_facts
from headclip.runs.records import labels_bytes
from headclip.runs.report import report_pieces, report_thumbnails
from headclip.runs.run import Row, Run, csv_bytes, parquet_bytes
from headclip.runs.volumes import judge_volumes, score_share
from headclip.runs.writer import lock_journal


@dataclass(frozen=True)
class Rejudged:
    """run: as it is now; changed: the images whose verdict is another one than before, old row and new row."""

    run: Run
    changed: tuple[tuple[Row, Row], ...]


def rejudge(
    folder: str | Path,
    criteria: Criteria | None,
    *,
    calibration: Calibration | None = None,
    note: str | None = None,
    labels: Mapping[str, int] | None = None,
    on_done: Callable[[str], None] = lambda name: None,
) -> Rejudged:
    """Change verdicts, regions, masks, tables, report and counts of a finished run.

    Killed at any moment, the run is as before or as after, never between.

    Args:
        criteria: the new thresholds; None takes verdicts and regions away.
        calibration: where they come from, to be kept in run.json; refused where it belongs to another model.
        note: what the thresholds are worth, one sentence; by default the calibration's.
        labels: 0 or 1 by image name, to be kept beside earlier ones.
        on_done: called with each image's name.

    Raises:
        RunFolderError: no run, one that is not finished or is being written, or a map is missing.
        CalibrationError: the calibration belongs to another model.
    """
    run = Run.open(folder)
    if not run.finished:
        raise RunFolderError(f"the run in {run.folder} is not finished; go on with it first (--resume)")
    if calibration is not None:
        calibration.check_fits(run.settings)
    journal = lock_journal(run.folder)
    try:
        run = Run.open(folder)  # as it is now that nobody else changes it
        known = {**run.load_labels(), **(labels or {})}
        rows = _stage(run, criteria, partial(judgement_facts, calibration=calibration, note=note), known, on_done)
        commit(run.folder)
    finally:
        shutil.rmtree(run.folder / TEMPORARY, ignore_errors=True)
        journal.close()
    pairs = zip(run.rows, rows, strict=True)
    changed = tuple((old, new) for old, new in pairs if old.verdict != new.verdict)
    return Rejudged(Run.open(folder), changed)


def _stage(
    run: Run,
    criteria: Criteria | None,
    describe: Callable[..., dict[str, Any] | None],
    labels: Mapping[str, int],
    on_done: Callable[[str], None],
) -> tuple[Row, ...]:
    """Write the files of the new state where they count for nothing yet."""
    staged = staging_folder(run.folder)
    (staged / MASKS).mkdir()
    judged = judge_rows(run.folder, run.rows, criteria, staged, on_done)
    judge_volumes(run.folder, staged, criteria, score_share(run.facts))
    if criteria is None:
        write_atomic(staged, REGIONS, b"", force=True)
    if labels:
        write_atomic(staged, LABELS, labels_bytes(labels), force=True)
    facts = dict(run.facts)
    facts["judgement"] = describe(judged.rows, criteria, labels=labels)
    facts["rejudged"] = datetime.now().astimezone().isoformat(timespec="seconds")
    write_atomic(staged, PARQUET_TABLE, parquet_bytes(judged.rows), force=True)
    write_atomic(staged, CSV_TABLE, csv_bytes(judged.rows), force=True)
    if "scale" in facts:  # else it is a run without pictures, of headclip evaluate
        thumbnails = report_thumbnails(run.report, run.folder, judged.rows, facts["scale"])
        page = report_pieces(judged.rows, facts, thumbnails, run.folder, judged.regions, labels)
        write_pieces(staged, REPORT, page)
    write_atomic(staged, RUN_JSON, (json.dumps(facts, indent=2) + "\n").encode(), force=True)
    shutil.rmtree(staged / TEMPORARY, ignore_errors=True)
    return judged.rows
