"""A folder that is looked at all the time: images are judged as they appear, into a run folder."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from headclip.data.discover import ImageFile, Unlisted, find_images, printable, told
from headclip.data.run_folder import refuse_run
from headclip.data.volumes.lone import LoneImage
from headclip.errors import HeadclipError, InputError
from headclip.judgement.choosing import Chosen, Judging
from headclip.prediction import Judge
from headclip.runs.output import check_output
from headclip.runs.run import Entry, is_run_folder
from headclip.runs.writer import RunWriter
from headclip.web.alarms import Alarms, is_alarm, read_command
from headclip.web.growing import add_images, bring_up_to_date, fail_damaged, open_run
from headclip.web.retries import Retries, may_pass
from headclip.web.trouble import Trouble

_log = logging.getLogger(__name__)
INTERVAL = 1.0  # seconds between two looks at least
_REST = 5  # how many times as long as a look at the folder took it is left alone
_CHECKED = 8  # maps of earlier times that are looked at together


@dataclass(frozen=True)
class WatchState:
    """judged, failed: images on record; error: why nothing can be done at the moment."""

    judged: int
    failed: int
    error: str | None


class Watch:
    """One thread that judges what is new in `folder` into the run `out`.

    A file counts as complete when its size and time were the same at two looks in a row. What the run has on record
    already is not judged again, so the server can be stopped and started. A file that changes is judged again; so is,
    at each start and after growing pauses, one that failed for a reason outside its content.
    """

    def __init__(
        self, folder: Path, out: Path, *, max_pixels: int, interval: float = INTERVAL, on_alarm: str | None = None
    ) -> None:
        """Check both folders, so that mistakes show at the start.

        on_alarm: a command for each image that is judged now and is not "ok" (`headclip.web.alarms`).

        Raises:
            InputError: `folder` is none, or a run; a command for alarms that is none.
            RunFolderError: `out` holds something else than a run.
        """
        self.folder = folder.absolute()
        self.out = out
        if not self.folder.is_dir():
            raise InputError(f"--watch {folder}: this is not a folder; make it, or name another one")
        refuse_run(self.folder)
        check_output(out, resume=is_run_folder(out))
        self._max_pixels = max_pixels
        self._interval = interval
        self._seen: dict[str, tuple[int, int]] = {}
        self._done: dict[str, tuple[int, int]] = {}
        self._retries = Retries()
        self._unchecked: list[str] = []  # judged earlier; whether their maps are whole is looked at in the pauses
        self._unlisted: Unlisted = {}  # subfolders that the last look passed over
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._listing_took = 0.0  # seconds of the last look at the folder
        self._trouble = Trouble(interval)
        self._succeeded = time.monotonic()
        self._ended: HeadclipError | OSError | None = None  # why the run folder could not be left as it should
        self._chosen = Chosen()
        if on_alarm is not None:
            read_command(on_alarm)
        self._on_alarm = on_alarm
        self._alarms: Alarms | None = None
        self._state = WatchState(0, 0, None)

    @property
    def idle_seconds(self) -> float:
        """How long ago the last look ended without an error, or, before the first one, since when there is none."""
        return time.monotonic() - self._succeeded

    @property
    def state(self) -> WatchState:
        """How far it is."""
        return self._state

    def open(self, detector: Judge, judging: Judging | None = None) -> RunWriter:
        """Create the run, or take it up again; `judging` and errors as in `start`."""
        writer, self._chosen = open_run(self.out, self.folder, detector, judging or Judging())
        if self._on_alarm is not None:
            if self._chosen.criteria is None:
                with writer:
                    raise InputError("--on-alarm needs a threshold; add --calibration, --threshold or --false-alarms")
            self._alarms = Alarms(self._on_alarm, self.out)
        for name, entry in writer.entries.items():
            if not may_pass(entry):
                self._done[name] = (entry.size, entry.mtime_ns)
        self._unchecked = list(writer.entries)
        self._count(writer, None)
        return writer

    def start(self, detector: Judge, judging: Judging | None = None) -> None:
        """Begin in a thread of its own.

        judging: thresholds for verdicts and regions in the run's table; by default those of the run that is taken up,
            else the checkpoint's, else none.

        Raises:
            CalibrationError: the calibration belongs to another model.
            InputError: there is a command for alarms, and no threshold to raise one.
            RunFolderError: the run was made with another model or folder, or another process writes it.
        """
        writer = self.open(detector, judging)
        self._thread = threading.Thread(target=self._work, args=(detector, writer), name="headclip-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the images that are being judged; the run folder is left whole.

        Raises:
            HeadclipError: what was done last could not be written; the journal holds all but that.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._ended is not None:
            raise self._ended

    def _work(self, detector: Judge, writer: RunWriter) -> None:
        try:
            with writer:
                while not self._stop.is_set():
                    self._stop.wait(self._turn(detector, writer))
                if writer.table_is_stale:
                    bring_up_to_date(writer, self._chosen)
        except (HeadclipError, OSError) as error:  # the thread has nobody to tell; `stop` has
            self._ended = error
        finally:
            if self._alarms is not None:
                self._alarms.close()

    def _turn(self, detector: Judge, writer: RunWriter) -> float:
        """One look and what it brings; the seconds to rest after it."""
        try:
            self.look(detector, writer)
            pause = max(self._interval, _REST * self._listing_took)
            self.check_maps(writer, pause)
            if writer.table_is_due:
                bring_up_to_date(writer, self._chosen)
        except Exception as error:  # a full disk, a share that went away: it may come back
            if self._trouble.met(f"{type(error).__name__}: {error}"):
                is_known = isinstance(error, (HeadclipError, OSError))
                words = "watching %s: %s; the server tries again by itself"
                _log.error(words, self.folder, error, exc_info=None if is_known else error)
            self._count(writer, type(error).__name__ + "; the server's log says more")
            return self._trouble.pause
        if self._trouble.over():
            _log.warning("watching %s: it goes on", self.folder)
        self._succeeded = time.monotonic()
        self._count(writer, None)
        return pause

    def look(self, detector: Judge, writer: RunWriter) -> int:
        """Judge what is new and complete; the number of images."""
        files = self._complete()
        size = max(1, detector.batch_size)
        for start in range(0, len(files), size):
            if self._stop.is_set():
                return start
            batch = files[start : start + size]
            add_images(detector, writer, batch, self._chosen, max_pixels=self._max_pixels)
            for file in batch:
                self._note(file, writer.entries.get(file.name))
            self._count(writer, self._state.error)
        return len(files)

    def check_maps(self, writer: RunWriter, seconds: float) -> None:
        """Look for that long whether the maps of earlier times are whole; images without are not done any more."""
        end = time.monotonic() + seconds
        while self._unchecked and not self._stop.is_set() and time.monotonic() < end:
            names = self._unchecked[-_CHECKED:]
            for name in fail_damaged(writer, [writer.entries[name] for name in names if name in writer.entries]):
                self._done.pop(name, None)
            del self._unchecked[-_CHECKED:]

    def _note(self, file: ImageFile, entry: Entry | None) -> None:
        """A file that was tried: done, perhaps with an alarm, or to be tried again."""
        if entry is None:
            return
        state = (entry.size, entry.mtime_ns)
        if may_pass(entry):
            self._retries.failed(file.name, self._seen.get(file.name, state))
            return
        self._retries.forget(file.name)
        self._done[file.name] = state
        if self._alarms is not None and is_alarm(entry.row):
            self._alarms.raised(file.path, entry.row)

    def _complete(self) -> list[ImageFile]:
        """Files that are not on record as they are, and did not change since the last look."""
        begun = time.monotonic()
        start = len(os.path.join(self.folder, ""))  # noqa: PTH118 - also where the folder is the root
        seen: dict[str, tuple[int, int]] = {}
        complete: list[ImageFile] = []
        unlisted: Unlisted = {}
        for path in find_images(self.folder, unlisted=unlisted):
            try:
                status = path.stat()
            except OSError:
                continue  # gone again
            name = printable(str(path)[start:].replace(os.sep, "/"))  # relative_to takes longer than all the rest
            seen[name] = state = (status.st_size, status.st_mtime_ns)
            is_new = self._done.get(name) != state and self._seen.get(name) == state
            if is_new and self._retries.is_due(name, state):
                complete.append(LoneImage(path, name))
        self._seen = seen
        self._listing_took = time.monotonic() - begun
        if unlisted.keys() - self._unlisted.keys():
            _log.warning("watching %s: passed over, for they cannot be looked into: %s", self.folder, told(unlisted))
        self._unlisted = unlisted
        return complete

    def _count(self, writer: RunWriter, error: str | None) -> None:
        ok = sum(entry.row.status == "ok" for entry in writer.entries.values())
        self._state = WatchState(ok, len(writer.entries) - ok, error)
