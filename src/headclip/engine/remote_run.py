"""A run in object storage: the tables and folders of a run folder, without what is made for looking.

    parts/00000.parquet   rows as they came, with the size and time of the file; written whole while the run goes on
    maps/ previews/ masks/  as in a run folder, written by the workers
    run.json              from the first moment on; says whether the run is finished
    results.parquet, results.csv, regions.jsonl, progress.jsonl   at the end

Copied to a disk, a finished one is a run folder that every command takes; `headclip predict` with the same inputs and
`--resume` then adds overlays and the report without judging an image again.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headclip.data.discover import ImageFile, ImageSet
from headclip.data.run_folder import is_sound
from headclip.engine.storage import Place
from headclip.files import parse_json
from headclip.judgement.choosing import Chosen
from headclip.runs.facts import as_facts, changed_settings, new_facts
from headclip.runs.files import (
    CSV_TABLE,
    JOURNAL,
    MAPS,
    MASKS,
    OVERLAYS,
    PARQUET_TABLE,
    PREVIEWS,
    REGIONS,
    REPORT,
    RUN_JSON,
    RunFolderError,
)
from headclip.runs.judging import judgement_facts
from headclip.runs.run import (
    COLUMNS,
    Entry,
    Row,
    csv_bytes,
    journal_line,
    parquet_bytes,
    row_schema,
)

PARTS = "parts"
_ROWS, _SECONDS = 5_000, 30.0  # a part is written when it has that many rows, or the oldest of them waits that long
_OURS = (PARTS, MAPS, MASKS, PREVIEWS, OVERLAYS)
_FILES = (CSV_TABLE, PARQUET_TABLE, JOURNAL, REGIONS, REPORT)


class RemoteRun:
    """The record of a run in object storage, kept by one process; a context manager.

    Stores know no locks: two processes that write one run at a time do not see each other.
    """

    def __init__(
        self,
        place: Place,
        images: ImageSet,
        settings: dict[str, Any],
        chosen: Chosen,
        *,
        arguments: dict[str, Any],
        resume: bool = False,
    ) -> None:
        """Begin a run, or take one up; what `check` refuses is not expected here.

        Raises:
            RunFolderError: the run to resume was made with other settings, inputs or thresholds.
        """
        self._place, self._images, self._chosen = place, images, chosen
        self._started = self._flushed = time.perf_counter()
        old = self.facts_of(place)
        settings = as_facts(settings)
        if old is not None and not resume:
            _remove(place)
            old = None
        criteria = None if chosen.criteria is None else chosen.criteria.to_json()
        if old is not None:
            _check_same(old, settings, images, criteria, place)
        self._facts = new_facts(images, settings, arguments, old) | {"criteria": criteria}
        self.entries: dict[str, Entry] = {}
        self._regions: dict[str, str] = {}
        self._part = 0
        if old is not None:
            self._read_parts()
        self._waiting: list[Entry] = []
        self._save_facts("running")

    @staticmethod
    def facts_of(place: Place) -> dict[str, Any] | None:
        """run.json of a run of ours, else None.

        Raises:
            RunFolderError: the store cannot be read.
        """
        try:
            facts = parse_json(place.read(RUN_JSON))
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise RunFolderError(f"cannot read {place.shown}: {_line(error)}") from error
        return facts if is_sound(facts) else None

    @classmethod
    def check(cls, place: Place, *, resume: bool = False, overwrite: bool = False) -> None:
        """Whether a run may be written there; cheap, so that it can be asked before a model is loaded.

        Raises:
            RunFolderError: as `headclip.runs.output.check_output`.
        """
        if resume and overwrite:
            raise RunFolderError("--resume and --overwrite exclude each other; give one of them")
        facts = cls.facts_of(place)
        if facts is None and not place.is_empty():
            raise RunFolderError(f"{place.shown} is not empty and holds no run of headclip; choose a new prefix")
        if facts is not None and not (resume or overwrite):
            state = "a finished run" if facts["status"] == "finished" else "an unfinished run"
            raise RunFolderError(
                f"{place.shown} already holds {state}; add --resume to go on with it, --overwrite to replace it, "
                f"or choose another prefix"
            )

    def __enter__(self) -> RemoteRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._facts["status"] == "running":
            self._flush()
            self._save_facts("interrupted")

    def is_done(self, image: ImageFile) -> bool:
        """Whether there is a judgement of exactly this file: same name, size and time."""
        entry = self.entries.get(image.name)
        if entry is None or entry.row.status != "ok":
            return False
        try:
            status = image.path.stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)

    def append(self, entries: Sequence[Entry], regions: str = "") -> None:
        """Put images on record, whose files are in place. regions: lines of regions.jsonl.

        Raises:
            RunFolderError: the store refuses a part.
        """
        for entry in entries:
            self.entries[entry.row.path] = entry
            self._regions.pop(entry.row.path, None)  # those of an earlier judgement
        self._regions.update((json.loads(line)["path"], line) for line in regions.splitlines())
        self._waiting += entries
        if len(self._waiting) >= _ROWS or time.perf_counter() - self._flushed > _SECONDS:
            self._flush()

    def rows(self) -> tuple[Row, ...]:
        """What is on record, in the order of the inputs; images of earlier calls beyond them follow."""
        names = dict.fromkeys(image.name for image in self._images)
        order = [name for name in names if name in self.entries]
        order += [name for name in self.entries if name not in names]
        return tuple(self.entries[name].row for name in order)

    def finish(self) -> tuple[Row, ...]:
        """Write tables and journal, and mark the run finished."""
        self._flush()
        rows, chosen = self.rows(), self._chosen
        regions = "".join(self._regions[row.path] + "\n" for row in rows if row.path in self._regions)
        tables = {
            PARQUET_TABLE: parquet_bytes(rows),
            CSV_TABLE: csv_bytes(rows),
            JOURNAL: b"".join(journal_line(self.entries[row.path]) for row in rows),
        }
        if chosen.criteria is not None:
            tables[REGIONS] = regions.encode()
        for name, content in tables.items():
            self._write(name, content)
        self._facts["judgement"] = judgement_facts(rows, chosen.criteria, chosen.calibration, chosen.note)
        self._save_facts("finished")
        return rows

    def _flush(self) -> None:
        self._flushed = time.perf_counter()
        if not self._waiting:
            return
        lines = [
            asdict(entry.row)
            | {"size": entry.size, "mtime_ns": entry.mtime_ns, "sha256": entry.sha256}
            | {"found": self._regions.get(entry.row.path)}
            for entry in self._waiting
        ]
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(lines, schema=_part_schema()), sink)
        self._write(f"{PARTS}/{self._part:05d}.parquet", sink.getvalue())
        self._part += 1
        self._waiting = []

    def _read_parts(self) -> None:
        """Of several rows on one image the last counts."""
        for name in sorted(self._place.list(PARTS)):
            if not name.endswith(".parquet"):
                continue
            self._part = max(self._part, int(PurePosixPath(name).stem) + 1)
            for line in pq.read_table(io.BytesIO(self._place.read(name))).to_pylist():
                row = Row(**{column: line[column] for column in COLUMNS})
                self.entries[row.path] = Entry(row, line["size"], line["mtime_ns"], line["sha256"])
                self._regions.pop(row.path, None)
                if line["found"] is not None:
                    self._regions[row.path] = line["found"]

    def _save_facts(self, status: str) -> None:
        self._facts["status"] = status
        rows = [entry.row for entry in self.entries.values()]
        ok = sum(row.status == "ok" for row in rows)
        timing = dict(self._facts["timing"])
        timing["seconds"] = round(timing["earlier_seconds"] + time.perf_counter() - self._started, 3)
        timing["model_seconds"] = round(sum(row.seconds or 0.0 for row in rows), 3)
        counts = {"images": len(rows), "ok": ok, "failed": len(rows) - ok}
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        facts = self._facts | {"updated": now, "counts": counts, "timing": timing}
        self._write(RUN_JSON, (json.dumps(facts, indent=2) + "\n").encode())

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._place.write(name, content)
        except OSError as error:
            raise RunFolderError(
                f"cannot write {self._place.shown}/{name}: {_line(error)}; mend that and go on with --resume"
            ) from error


def _part_schema() -> pa.Schema:
    """Columns of a part: those of results.parquet, what the journal knows besides, and the regions as JSON."""
    more = [("size", pa.int64()), ("mtime_ns", pa.int64()), ("sha256", pa.string()), ("found", pa.string())]
    return pa.schema([*row_schema(), *(pa.field(*item) for item in more)])


def _check_same(old: dict[str, Any], settings: dict[str, Any], images: ImageSet, criteria: Any, place: Place) -> None:
    advice = "use the same, --overwrite the run, or choose another prefix"
    if old["root"] != images.shown_root:
        under = f"{old['root']}, not {images.shown_root}"
        raise RunFolderError(f"the run in {place.shown} judged images under {under}; {advice}")
    changed = changed_settings(old["settings"], settings)
    if changed:
        shown = "; ".join(f"{key} {before!r} there, {now!r} now" for key, before, now in changed[:3])
        raise RunFolderError(f"the run in {place.shown} was made with other settings ({shown}); {advice}")
    if old.get("criteria") != json.loads(json.dumps(criteria)):
        raise RunFolderError(f"the run in {place.shown} was made with other thresholds; {advice}")


def _remove(place: Place) -> None:
    """Delete what a run wrote, and nothing else; run.json is replaced afterwards."""
    for folder in _OURS:
        for name in place.list(folder):
            place.delete(name)
    for name in _FILES:
        place.delete(name)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
