"""What runs beside the model, on any machine: a chunk of images in, records and files out. Knows nothing of Ray."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.discover import ImageFile
from headclip.data.prefetch import Decoded
from headclip.data.volumes.lone import LoneImage, decode_lone
from headclip.engine.chunks import Chunk, FileRef, Result
from headclip.engine.storage import Place
from headclip.errors import HeadclipError, ImageError
from headclip.inference.predict import judge_files
from headclip.judgement.verdicts import Criteria
from headclip.runs.files import REGIONS, TEMPORARY, RunFolderError
from headclip.runs.judging import judge_rows
from headclip.runs.run import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headclip.evaluation.recording import JudgingOptions

_UPLOADS = 8  # files at a time; a store answers slowly and many at once
_log = logging.getLogger(__name__)

Load = Callable[[Mapping[str, Any]], Any]
"""From arguments by the names of the command's options to a detector, or to detectors by label."""


class Worker(Protocol):
    """One actor's work; making it loads the model."""

    def __call__(self, chunk: Chunk) -> Result: ...


@dataclass(frozen=True)
class Target:
    """Where files go. folder: a run folder with a mark in it, by which a machine sees that it has the same disk;
    place: object storage; with neither in reach, files travel to the machine that keeps the record."""

    folder: str | None = None
    mark: str = ""
    place: Place | None = None

    @property
    def in_reach(self) -> Path | None:
        """The run folder, where this machine can write to it directly."""
        return Path(self.folder) if self.folder is not None and Path(self.folder, self.mark).is_file() else None


@dataclass(frozen=True)
class PredictTask:
    """Everything an actor needs to know for `headclip predict`.

    load, arguments: make the detector; backbone_hash, checkpoint_hash: what they must turn out to be; source: the
    prefix of remote inputs; criteria: thresholds to apply on the spot, for runs in object storage.
    """

    load: Load
    arguments: Mapping[str, Any]
    target: Target
    source: Place | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    criteria: Criteria | None = None
    hashes: Mapping[str, Any] = field(default_factory=dict)


class PredictWorker:
    """Judges chunks as `predict_run` does: same decoding, same batches, same files."""

    def __init__(self, task: PredictTask) -> None:
        self._task = task
        self._detector = task.load(task.arguments)
        check_hashes(self._detector.describe(), task.hashes)

    def __call__(self, chunk: Chunk) -> Result:
        return guarded(chunk, self._judge)

    def _judge(self, chunk: Chunk) -> Result:
        with _workplace(self._task.target) as folder:
            files = [ImageFile(Path(ref.path), ref.name) for ref in chunk.files]
            by_name = {ref.name: ref for ref in chunk.files}
            named = any(ref.category is not None for ref in chunk.files)
            source = self._task.source
            entries, histogram = judge_files(
                self._detector,
                folder,
                files,
                max_pixels=self._task.max_pixels,
                category_of=(lambda file: by_name[file.name].category or "object") if named else None,
                read=None if source is None else lambda file, most: fetch(source, by_name[file.name], file, most),
            )
            regions = ""
            if self._task.criteria is not None:
                judged = judge_rows(folder, [entry.row for entry in entries], self._task.criteria, folder)
                entries = [replace(entry, row=row) for entry, row in zip(entries, judged.rows, strict=True)]
                regions = (folder / REGIONS).read_text(encoding="utf-8")
                (folder / REGIONS).unlink()
            files_left = deliver(folder, self._task.target)
        payload = {"weights": histogram.packed(), "regions": regions}
        return Result(chunk.number, entries, payload, files_left)


@dataclass(frozen=True)
class EvaluateTask:
    """Everything an actor needs to know for `headclip evaluate`: maps are counted here, only the counts travel.

    load: gives detectors by label; dataset: without its records, which come with each chunk.
    """

    load: Load
    arguments: Mapping[str, Any]
    dataset: Any
    options: JudgingOptions
    hashes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class EvaluateWorker:
    """Judges and counts chunks as `judge_dataset` does. `FileRef.extra`: the record, and the labels still to judge."""

    def __init__(self, task: EvaluateTask) -> None:
        from headclip.inference.shared import group_by_pass

        self._task = task
        self._detectors = task.load(task.arguments)
        for label, detector in self._detectors.items():
            check_hashes(detector.describe(), task.hashes.get(label, {}))
        self._groups = group_by_pass(self._detectors)

    def __call__(self, chunk: Chunk) -> Result:
        return guarded(chunk, self._judge)

    def _judge(self, chunk: Chunk) -> Result:
        from headclip.evaluation.judging import judge_files
        from headclip.evaluation.recording import Recorder

        files: list[ImageFile] = [LoneImage(Path(ref.path), ref.name) for ref in chunk.files]
        records = {ref.name: ref.extra[0] for ref in chunk.files}
        wanted = {ref.name: ref.extra[1] for ref in chunk.files}
        with tempfile.TemporaryDirectory(prefix="headclip-") as name:
            logs = {label: Log(Path(name, str(n)), label, wanted) for n, label in enumerate(self._detectors)}
            recorders = {
                label: Recorder(detector, self._task.dataset, records, logs[label], self._task.options)
                for label, detector in self._detectors.items()
            }
            judge_files(self._groups, records, recorders, files, self._task.options)
            contents = {label: collect(log.folder) for label, log in logs.items()}
        entries = [entry for log in logs.values() for entry in log.entries.values()]
        by_label = {label: (list(log.entries.values()), contents[label]) for label, log in logs.items()}
        return Result(chunk.number, entries, by_label)


class Log:
    """Takes the place of a `RunWriter` where another process keeps the record."""

    def __init__(self, folder: Path, label: str, wanted: Mapping[str, frozenset[str]]) -> None:
        self.folder, self._label, self._wanted = folder, label, wanted
        self.entries: dict[str, Entry] = {}

    def is_done(self, file: ImageFile) -> bool:
        return self._label not in self._wanted[file.name]

    def append(self, entries: list[Entry]) -> None:
        self.entries.update((entry.row.path, entry) for entry in entries)


def guarded(chunk: Chunk, work: Callable[[Chunk], Result]) -> Result:
    """Whatever happens is a result: a full disk is fatal, anything else costs this chunk a second attempt."""
    try:
        result = work(chunk)
    except (RunFolderError, DeliveryError) as error:
        result = Result(chunk.number, fatal=str(error))
    except Exception as error:
        _log.exception("chunk %d failed", chunk.number)
        result = Result(chunk.number, error=f"{type(error).__name__}: {error}")
    result.worker = f"{socket.gethostname()}:{os.getpid()}"
    return result


class DeliveryError(HeadclipError):
    """Results cannot be written where they should go."""


def check_hashes(facts: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse to work with another model than the others.

    Raises:
        HeadclipError: weights differ from those that the run is made with.
    """
    wrong = [name for name, value in expected.items() if facts.get(name) != value]
    if wrong:
        raise HeadclipError(
            f"{socket.gethostname()} has other weights than the first machine ({', '.join(wrong)}); "
            "give all of them the same files"
        )


def fetch(source: Place, ref: FileRef, file: ImageFile, max_pixels: int) -> Decoded:
    """One image from object storage, decoded, or the reason why not."""
    pixels, reason = None, None
    try:
        pixels = decode_lone(source.read(ref.path), max_pixels)
    except FileNotFoundError:
        reason = "the file does not exist"
    except ImageError as error:
        reason = str(error)
    except OSError as error:
        reason = f"the file cannot be read: {' '.join(str(error).split())[:200]}"
    except Exception as error:  # a thread that dies would leave the chunk waiting for ever
        reason = f"unexpected {type(error).__name__}: {error}"
    return Decoded(file, pixels, reason, ref.size, ref.mtime_ns)


@contextmanager
def _workplace(target: Target) -> Iterator[Path]:
    """The run folder where it is in reach, else an empty folder of this machine that goes afterwards."""
    if target.in_reach is not None:
        yield target.in_reach
        return
    with tempfile.TemporaryDirectory(prefix="headclip-") as name:
        yield Path(name)


def deliver(folder: Path, target: Target) -> dict[str, bytes]:
    """Bring the files of a chunk to object storage; what cannot be put in place from here is returned.

    Raises:
        DeliveryError: the store refuses them.
    """
    if target.in_reach is not None:
        return {}
    if target.place is None:
        return collect(folder)
    place = target.place
    try:
        with ThreadPoolExecutor(_UPLOADS, thread_name_prefix="headclip-upload") as pool:
            jobs = [pool.submit(place.write, name, content) for name, content in collect(folder).items()]
            for job in jobs:
                job.result()
    except OSError as error:
        raise DeliveryError(
            f"cannot write below {place.shown}: {' '.join(str(error).split())[:300]}; mend that and go on with --resume"
        ) from error
    return {}


def collect(folder: Path) -> dict[str, bytes]:
    """All finished files below a folder, by name."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(f"{TEMPORARY}/")}
