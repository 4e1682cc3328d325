"""Runs as the page shows them: rows by an id that says nothing of paths, what they are judged by, and their files."""

from __future__ import annotations

import hashlib
import re
import statistics
import threading
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from headclip.data.discover import printable
from headclip.errors import HeadclipError, InputError
from headclip.judgement import Criteria
from headclip.judgement.choosing import Judging, choose
from headclip.runs.files import JOURNAL, PARQUET_TABLE, RUN_JSON, preview_file
from headclip.runs.overlay import Scale
from headclip.runs.run import Row, Run
from headclip.web.marks import Marks

Origin = Literal["given", "run", "model", "guess"]


class NoSuchImageError(HeadclipError):
    """The run has no such image, or the image has no such file."""


@dataclass(frozen=True)
class Rule:
    """What a run is judged by, and why. origin: given at the start of the server; stored with the run; shipped with
    the model; or guessed from the run's own scores."""

    criteria: Criteria
    origin: Origin
    words: str


@dataclass(frozen=True)
class State:
    """A run as it was read at one moment. ids: of the rows, in their order."""

    run: Run
    revision: str
    ids: tuple[str, ...]
    rows: dict[str, Row]
    scale: Scale


class RunView:
    """One run folder, read again when it changes, so that a run can be looked at while it goes on."""

    def __init__(self, folder: Path, key: str, judging: Judging | None = None) -> None:
        """judging: what everything on the server is judged by, where the user said so.

        Raises:
            RunFolderError: the folder holds no run.
            CalibrationError: the calibration belongs to another model than the run's.
        """
        self.folder = folder
        self.key = key
        self.name = printable(folder.resolve().name)
        self.marks = Marks(folder)
        self._judging = judging or Judging()
        self._lock = threading.Lock()
        self._state, self._stamp = self._read()
        self.rule()

    @property
    def state(self) -> State:
        """The run as it is now."""
        with self._lock:
            if self._stamp != self._now():
                self._state, self._stamp = self._read()
            return self._state

    def row(self, image: str) -> Row:
        """The row of an id.

        Raises:
            NoSuchImageError: there is none.
        """
        row = self.state.rows.get(image)
        if row is None:
            raise NoSuchImageError("this run has no such image")
        return row

    def preview(self, image: str) -> Path:
        """The reduced picture of a judged image."""
        row = self.row(image)
        if row.status != "ok":
            raise NoSuchImageError("this image could not be judged, so there is no picture of it")
        return self._inside(preview_file(row.path))

    def map(self, image: str) -> Path:
        """The map of a judged image."""
        row = self.row(image)
        if row.map is None:
            raise NoSuchImageError("this image could not be judged, so there is no map of it")
        return self._inside(row.map)

    def original(self, image: str) -> Path:
        """Where the image was when it was judged."""
        row = self.row(image)
        if not _is_plain(row.path):
            raise NoSuchImageError("the name of this image leads out of its folder")
        return self.state.run.image_path(row)

    def rule(self) -> Rule:
        """What the run is judged by."""
        run = self.state.run
        judgement = run.facts.get("judgement")
        chosen = choose(self._judging, run.settings, judgement)
        if chosen.criteria is None:
            return guess([row.score or 0.0 for row in run.ok])
        given = self._judging != Judging()
        return Rule(chosen.criteria, "given" if given else "run" if judgement else "model", chosen.note or "")

    def _inside(self, name: str) -> Path:
        path = self.folder / name
        if not _is_plain(name) or not path.resolve().is_relative_to(self.folder.resolve()):
            raise NoSuchImageError("this file lies outside of the run folder")
        return path

    def _now(self) -> tuple[Any, ...]:
        stamps = []
        for name in (RUN_JSON, PARQUET_TABLE, JOURNAL):
            try:
                status = (self.folder / name).stat()
                stamps.append((status.st_mtime_ns, status.st_size))
            except OSError:
                stamps.append((0, 0))
        return tuple(stamps)

    def _read(self) -> tuple[State, tuple[Any, ...]]:
        """The run, and the stamp of its files from before they were read: what changes meanwhile is read again."""
        stamp = self._now()
        run = Run.open(self.folder)
        ids = tuple(image_id(row.path) for row in run.rows)
        revision = hashlib.blake2b(repr(stamp).encode(), digest_size=6).hexdigest()
        rows = dict(zip(ids, run.rows, strict=True))
        return State(run, revision, ids, rows, _scale(run)), stamp


def open_runs(folders: Sequence[Path], judging: Judging | None = None) -> dict[str, RunView]:
    """Runs by a short name for addresses, in the order given.

    Raises:
        RunFolderError: a folder holds no run.
        InputError: a folder is given twice.
        CalibrationError: the calibration belongs to another model than a run's.
    """
    views: dict[str, RunView] = {}
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise InputError(f"{folder} is given twice")
        seen.add(folder.resolve())
        key = free_key(folder, views)
        views[key] = RunView(folder, key, judging)
    return views


def free_key(folder: Path, taken: Container[str]) -> str:
    """A short name for addresses, after a folder, that no other run has."""
    stem = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")[:40] or "run"
    key, number = stem, 2
    while key in taken:
        key, number = f"{stem}-{number}", number + 1
    return key


def _scale(run: Run) -> Scale:
    """From the run's median map value, where the report's colours start too, up to the highest local score: what
    stands out of a rare defect must not be cut off. An unfinished run has no such median yet, and a scale that moved
    with every image would make all its small maps anew."""
    stored = run.facts.get("scale")
    if not stored:
        return Scale(0.0, 1.0)
    highest = max((row.local_score or 0.0 for row in run.ok), default=0.0)
    return Scale(stored["low"], max(stored["high"], highest, stored["low"] + 0.05))


def image_id(name: str) -> str:
    """16 hexadecimal digits for a name: in addresses in its place, so that no address holds a path."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def guess(scores: Sequence[float]) -> Rule:
    """A threshold to start from where nothing is calibrated: median and three robust standard deviations.

    >>> round(guess([0.1, 0.11, 0.12, 0.13, 0.14, 0.9]).criteria.threshold, 3)
    0.192
    """
    threshold = 0.5
    if scores:
        median = statistics.median(scores)
        spread = 1.4826 * statistics.median(abs(score - median) for score in scores)
        threshold = min(max(median + 3.0 * spread, min(scores)), max(scores))
    words = (
        "Nothing is calibrated: the line stands three robust standard deviations above the median of this run, as a "
        "place to start from. It promises nothing."
    )
    return Rule(Criteria(threshold, threshold, threshold), "guess", words)


def _is_plain(name: str) -> bool:
    """Whether a relative name stays below the folder that it is relative to.

    >>> [_is_plain(name) for name in ("a/b.png", "../a.png", "/etc/passwd", "C:\\\\a.png", "a/../../b")]
    [True, False, False, False, False]
    """
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive or "\0" in name)
