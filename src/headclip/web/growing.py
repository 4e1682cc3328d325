"""Images that join a run while it is open, with their verdicts where thresholds are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headclip.data.discover import ImageFile
from headclip.inference.predict import judge_more
from headclip.inference.prediction import Judge
from headclip.inference.run_writer import RunWriter
from headclip.judgement.run_judging import judge_rows
from headclip.judgement.verdicts import Criteria


def add_images(
    detector: Judge, writer: RunWriter, files: Sequence[ImageFile], criteria: Criteria | None, *, max_pixels: int
) -> None:
    """Judge files into a run, and put verdicts and numbers of regions into its table.

    Masks and outlines are left to `headclip predict --resume` and `headclip rejudge`, which see the whole run.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    judge_more(detector, writer, files, max_pixels=max_pixels)
    if criteria is None:
        return
    entries = [writer.entries[file.name] for file in files if file.name in writer.entries]
    judged = judge_rows(writer.folder, [entry.row for entry in entries], criteria)
    writer.append([replace(entry, row=row) for entry, row in zip(entries, judged.rows, strict=True)])
    writer.refresh_table()
