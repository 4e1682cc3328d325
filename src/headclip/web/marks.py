"""What people say of single images: false alarm, or miss. Kept in a small database in the run folder."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from headclip.csv_text import CsvText
from headclip.errors import HeadclipError
from headclip.runs.files import MARKS as MARKS

MarkKind = Literal["false alarm", "miss"]
_LABELS: dict[str, int] = {"false alarm": 0, "miss": 1}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS marks (
    image TEXT PRIMARY KEY,      -- name of the image in the run
    mark TEXT NOT NULL CHECK (mark IN ('false alarm', 'miss')),
    threshold REAL,              -- what the image was judged by when it was marked
    marked TEXT NOT NULL         -- ISO 8601
) STRICT
"""


class MarksError(HeadclipError):
    """Marks cannot be read or kept."""


@dataclass(frozen=True)
class Mark:
    """One image's mark. threshold: of the page when the mark was set."""

    image: str
    mark: MarkKind
    threshold: float | None
    marked: str


class Marks:
    """The marks of one run folder. Every call opens the file anew, so several servers may share it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / MARKS

    def all(self) -> dict[str, Mark]:
        """Marks by image name.

        Raises:
            MarksError: the file is damaged.
        """
        if not self._path.is_file():
            return {}
        with self._open() as database:
            rows = database.execute("SELECT image, mark, threshold, marked FROM marks ORDER BY image")
            return {row[0]: Mark(*row) for row in rows}

    def set(self, image: str, mark: MarkKind | None, threshold: float | None = None) -> Mark | None:
        """Mark an image, or take its mark away.

        Raises:
            MarksError: the run folder cannot be written.
        """
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        with self._open() as database, database:
            if mark is None:
                database.execute("DELETE FROM marks WHERE image = ?", (image,))
                return None
            database.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?)", (image, mark, threshold, now))
        return Mark(image, mark, threshold, now)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=5.0)) as database:
                database.execute(_SCHEMA)
                yield database
        except sqlite3.DatabaseError as error:
            raise MarksError(f"marks cannot be kept in the run folder ({error}); is it read-only or full?") from error


def labels_csv(marks: Mapping[str, Mark], scores: Mapping[str, float | None]) -> str:
    """Marks as labels that `headclip evaluate` and `headclip calibrate --labelled` read: a false alarm is a normal
    image (0), a miss an anomalous one (1). Names are relative to the folder of the images."""
    buffer = CsvText()
    writer = csv.writer(buffer)
    writer.writerow(["image", "label", "mark", "score", "threshold", "marked"])
    for name in sorted(marks):
        mark, score = marks[name], scores.get(name)
        writer.writerow([name, _LABELS[mark.mark], mark.mark, _number(score), _number(mark.threshold), mark.marked])
    return buffer.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
