"""Writing a run folder so that a kill at any moment loses at most the images in flight.

The journal (`progress.jsonl`) is the truth while a run goes on: a line is appended only after the files it speaks of
are in place. Lines are with the operating system at once, so that a kill loses none, and forced to disk every second
and at the end, in case the power fails. Tables, overlays and report are made from it and can always be made again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from headclip.data.discover import ImageFile, ImageSet
from headclip.files import content_hash
from headclip.locks import try_lock
from headclip.runs.commit import settle
from headclip.runs.facts import as_facts, check_same, new_facts, now
from headclip.runs.files import (
    CSV_TABLE,
    JOURNAL,
    LABELS,
    MAPS,
    MARKS,
    MASKS,
    OVERLAYS,
    PARQUET_TABLE,
    PREVIEWS,
    REGIONS,
    REPORT,
    RUN_JSON,
    TEMPORARY,
    RunFolderError,
    prove_writable,
    write_atomic,
    write_pieces,
)
from headclip.runs.output import check_output
from headclip.runs.run import (
    Entry,
    Row,
    csv_bytes,
    gone_line,
    journal_line,
    parquet_bytes,
    read_facts,
    read_journal,
)
from headclip.runs.volumes import remove_volumes

IN_PLACE = "a run is changed where it lies: get permission to write there, or copy it and name the copy"
LONG_TABLE, TABLE_REST = 0.1, 9  # seconds; how many times as long a table that takes longer is left alone
FORCE_SECONDS = 1.0  # lines of the journal are forced to disk together: each time costs milliseconds
_MARKS = tuple(f"{MARKS}{end}" for end in ("", "-journal", "-wal", "-shm"))  # what SQLite may have beside a database


class RunWriter:
    """The one writer of a run folder; a context manager that leaves a resumable folder however it is left."""

    def __init__(
        self,
        out: str | Path,
        images: ImageSet,
        settings: dict[str, Any],
        *,
        arguments: dict[str, Any] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        extra: dict[str, Any] | None = None,
        listed_only: bool = False,
    ) -> None:
        """Create the folder, or take up the run in it.

        Args:
            settings: JSON-able facts on which results depend (`Detector.describe()`).
            arguments: what the user asked for, to be kept in run.json.
            extra: further JSON-able entries of run.json, from the first moment on.
            listed_only: rows on record of images other than `images` stay in the journal, but out of the tables.

        Raises:
            RunFolderError: as `check_output`; or the run to resume was made with other settings or inputs, or
                is being written by another process.
        """
        check_output(out, resume=resume, overwrite=overwrite)
        self.folder = Path(out)
        settle(self.folder)
        self._images = images
        self._listed_only = listed_only
        self._started = time.perf_counter()
        self._forced = 0.0
        self._due = 0.0
        self.table_is_stale = False  # whether the record has more than results.csv
        old = None if overwrite else read_facts(self.folder)
        settings = as_facts(settings)
        if old is not None:
            check_same(old, settings, images, self.folder)
        self._journal = lock_journal(self.folder, "choose another --out" if old is None else IN_PLACE)
        with ExitStack() as held:
            held.callback(self._journal.close)
            if overwrite:
                prove_writable(self.folder)
                _remove_results(self.folder)
                self._journal.truncate(0)  # last: until then --resume makes again what is gone
            self._facts = new_facts(images, settings, arguments, old) | (extra or {})
            self.entries, sound = read_journal(self.folder / JOURNAL)
            self._journal.truncate(sound)
            shutil.rmtree(self.folder / TEMPORARY, ignore_errors=True)
            self._save_facts("running")
            held.pop_all()  # closed by the end of the run

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._facts["status"] == "running" and not isinstance(error, RunFolderError):
                self.refresh_table()
                self._save_facts("interrupted")
        finally:
            self._journal.close()
            shutil.rmtree(self.folder / TEMPORARY, ignore_errors=True)

    def is_done(self, image: ImageFile, content: Callable[[Path], str | None] = content_hash) -> bool:
        """Whether the journal has a judgement of exactly this file: same name and content.

        In journals of older versions, which have no hashes, same name, size and time. content: gives the SHA-256 of
        a file, for those who know it.
        """
        entry = self.entries.get(image.name)
        if entry is None or entry.row.status != "ok":
            return False
        try:
            size, mtime_ns = image.state()
        except OSError:
            return False
        if entry.sha256 is None:
            return (size, mtime_ns) == (entry.size, entry.mtime_ns)
        return size == entry.size and image.content(content) == entry.sha256

    def append(self, entries: Sequence[Entry]) -> None:
        """Put judged or failed images on record, unless they are as they are. Their files must be in place already.

        Raises:
            RunFolderError: the journal cannot be written.
        """
        entries = [entry for entry in entries if self.entries.get(entry.row.path) != entry]
        if not entries:
            return
        self._write(b"".join(journal_line(entry) for entry in entries))
        self.entries.update((entry.row.path, entry) for entry in entries)
        self.table_is_stale = True

    def drop(self, names: Iterable[str]) -> None:
        """Take images off the record.

        Raises:
            RunFolderError: the journal cannot be written.
        """
        known = [name for name in names if name in self.entries]
        self._write(b"".join(map(gone_line, known)))
        for name in known:
            del self.entries[name]
        self.table_is_stale = True

    def _write(self, lines: bytes, settle: bool = False) -> None:
        """settle: force to disk what has been written, now rather than within a second."""
        try:
            self._journal.write(lines)
            self._journal.flush()
            if settle or time.monotonic() - self._forced >= FORCE_SECONDS:
                os.fsync(self._journal.fileno())
                self._forced = time.monotonic()
        except OSError as error:
            raise RunFolderError(
                f"cannot write {self.folder / JOURNAL}: {error.strerror}; mend that and go on with --resume"
            ) from error

    def rows(self) -> list[Row]:
        """What is on record, in the order of the inputs; images of earlier calls beyond them follow."""
        names = dict.fromkeys(image.name for image in self._images)
        order = [name for name in names if name in self.entries]
        if not self._listed_only:
            order += [name for name in self.entries if name not in names]
        return [self.entries[name].row for name in order]

    def refresh_table(self) -> None:
        """Bring results.csv up to date, so that an unfinished run can be read by anything; the journal goes to disk."""
        begun = time.monotonic()
        self._write(b"", settle=True)
        write_atomic(self.folder, CSV_TABLE, csv_bytes(self.rows()), force=True)
        self.table_is_stale = False
        took = time.monotonic() - begun
        self._due = time.monotonic() + (TABLE_REST * took if took > LONG_TABLE else 0.0)

    @property
    def table_is_due(self) -> bool:
        """Whether to bring the table up to date now, for runs that grow a little at a time: writing a long one takes
        a tenth of the time at most, however often something is added."""
        return self.table_is_stale and time.monotonic() >= self._due

    def finish(self, report: str | Iterable[str], facts: dict[str, Any], rows: Sequence[Row] | None = None) -> None:
        """Write tables and report, add `facts` to run.json and mark the run finished.

        report: the page, or its pieces; rows: `rows()` with what judging adds; without it, no threshold is applied.
        """
        self._write(b"", settle=True)
        rows = self.rows() if rows is None else rows
        write_atomic(self.folder, PARQUET_TABLE, parquet_bytes(rows), force=True)
        write_atomic(self.folder, CSV_TABLE, csv_bytes(rows), force=True)
        write_pieces(self.folder, REPORT, [report] if isinstance(report, str) else report)
        self._facts |= facts
        self._save_facts("finished")

    def keep(self, facts: dict[str, Any]) -> None:
        """Add `facts` to run.json now, while the run goes on."""
        self._facts |= facts
        self._save_facts(self._facts["status"])

    @property
    def facts(self) -> dict[str, Any]:
        """run.json as it would be written now."""
        rows = self.rows()
        ok = sum(row.status == "ok" for row in rows)
        timing = dict(self._facts["timing"])
        timing["seconds"] = round(timing["earlier_seconds"] + time.perf_counter() - self._started, 3)
        timing["model_seconds"] = round(sum(row.seconds or 0.0 for row in rows), 3)
        counts = {"images": len(rows), "ok": ok, "failed": len(rows) - ok}
        return self._facts | {"updated": now(), "counts": counts, "timing": timing}

    def _save_facts(self, status: str) -> None:
        self._facts["status"] = status
        content = json.dumps(self.facts, indent=2) + "\n"
        write_atomic(self.folder, RUN_JSON, content.encode(), force=True)


def lock_journal(folder: Path, advice: str = IN_PLACE) -> BinaryIO:
    """Open the journal and hold it against a second writer; the lock ends with the process.

    advice: what to do where the folder cannot be written.

    Raises:
        RunFolderError: it cannot be written, or another process writes it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        journal = (folder / JOURNAL).open("ab+")
    except OSError as error:
        raise RunFolderError(f"cannot write to {folder}: {error.strerror}; {advice}") from error
    if not try_lock(journal):
        journal.close()
        raise RunFolderError(f"another headclip is writing to {folder}; wait for it or stop it")
    return journal


def _remove_results(folder: Path) -> None:
    """Delete what a run wrote, and nothing else.

    run.json stays until it is replaced: a kill in between leaves a folder that is still known as ours.
    """
    for name in (REPORT, PARQUET_TABLE, CSV_TABLE, REGIONS, LABELS, *_MARKS):
        (folder / name).unlink(missing_ok=True)
    for name in (MAPS, OVERLAYS, PREVIEWS, MASKS):
        shutil.rmtree(folder / name, ignore_errors=True)
    remove_volumes(folder)
