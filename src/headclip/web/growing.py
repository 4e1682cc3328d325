"""Images that join a run while it is open, with their verdicts where thresholds are known."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from headclip.data.discover import ImageFile, ImageSet
from headclip.inference.predict import judge_more
from headclip.judgement.choosing import Chosen, Judging, choose
from headclip.judgement.verdicts import Criteria
from headclip.prediction import Judge
from headclip.runs.judging import judge_rows, judgement_facts
from headclip.runs.overlay import LevelHistogram
from headclip.runs.records import read_labels
from headclip.runs.render import count_sound
from headclip.runs.run import Entry, Row, read_facts
from headclip.runs.writer import RunWriter

_DAMAGED = "its map or preview in the run folder is missing or damaged"


def open_run(folder: Path, root: Path, detector: Judge, judging: Judging) -> tuple[RunWriter, Chosen]:
    """Create a run for images below `root`, or take it up again; and the thresholds it is judged by, as `choose` says.

    What is on record is judged again where the thresholds are others than before; images whose maps are damaged are
    then on record as failed.

    Raises:
        CalibrationError: the calibration belongs to another model.
        RunFolderError: the run was made with another model or folder, or another process writes it.
    """
    facts, settings = read_facts(folder), detector.describe()
    judgement = (facts or {}).get("judgement")
    chosen = choose(judging, settings, judgement)
    with ExitStack() as held:
        writer = held.enter_context(RunWriter(folder, ImageSet(root, ()), settings, resume=facts is not None))
        before = None if judgement is None else Criteria.from_json(judgement["criteria"])
        if chosen.criteria != before:
            fail_damaged(writer, list(writer.entries.values()))
            _judge(writer, list(writer.entries.values()), chosen)
            writer.refresh_table()
        _keep_judgement(writer, chosen)
        held.pop_all()  # the caller's from here on
    return writer, chosen


def add_images(
    detector: Judge, writer: RunWriter, files: Sequence[ImageFile], chosen: Chosen, *, max_pixels: int
) -> None:
    """Judge files into a run, with verdicts and numbers of regions, and bring its table up to date if that is due.

    Masks and outlines are left to `headclip predict --resume` and `headclip rejudge`, which see the whole run.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    judge_more(detector, writer, files, max_pixels=max_pixels)
    if chosen.criteria is not None:
        _judge(writer, [writer.entries[file.name] for file in files if file.name in writer.entries], chosen)
    if writer.table_is_due:
        bring_up_to_date(writer, chosen)


def fail_damaged(writer: RunWriter, entries: Sequence[Entry]) -> list[str]:
    """Put on record as failed what has been judged and has no sound map and preview any more; the images' names.

    Raises:
        RunFolderError: the journal cannot be written.
    """
    rows = [entry.row for entry in entries if entry.row.status == "ok"]
    names = [row.path for row in count_sound(writer.folder, rows, LevelHistogram())]
    writer.append([Entry(Row(name, "failed", reason=_DAMAGED), 0, 0) for name in names])
    return names


def bring_up_to_date(writer: RunWriter, chosen: Chosen) -> None:
    """The table, and what run.json says of verdicts."""
    writer.refresh_table()
    if chosen.criteria is not None:
        _keep_judgement(writer, chosen)


def _judge(writer: RunWriter, entries: Sequence[Entry], chosen: Chosen) -> None:
    judged = judge_rows(writer.folder, [entry.row for entry in entries], chosen.criteria)
    writer.append([replace(entry, row=row) for entry, row in zip(entries, judged.rows, strict=True)])


def _keep_judgement(writer: RunWriter, chosen: Chosen) -> None:
    """run.json says what the run is judged by, so that whoever takes it up judges by the same."""
    labels = read_labels(writer.folder)
    facts = judgement_facts(writer.rows(), chosen.criteria, chosen.calibration, chosen.note, labels)
    writer.keep({"judgement": facts})
