"""`headclip predict` on many machines: this one keeps the record, the others judge."""

from __future__ import annotations

import secrets
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.discover import ImageFile, ImageSet, discover
from headclip.engine.chunks import FileRef
from headclip.engine.crew import Crew, ask_one, cluster, judge_all
from headclip.engine.remote_run import RemoteRun
from headclip.engine.storage import Place, RemotePath, as_url, discover_remote, local_path
from headclip.engine.workers import Load, PredictTask, PredictWorker, Target
from headclip.errors import InputError
from headclip.inference.predict import Progress, RunSummary, predict_run
from headclip.judgement.choosing import Judging, choose
from headclip.runs.files import TEMPORARY, write_atomic
from headclip.runs.output import check_output
from headclip.runs.overlay import LevelHistogram
from headclip.runs.run import Entry, Row
from headclip.runs.shards import Shard

_HASHES = ("backbone_hash", "checkpoint_hash")
_PINNED = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Model:
    """What the workers load. arguments: by the names of the command's options, with absolute paths."""

    load: Load
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Described:
    """Stands for a detector that works elsewhere: what it says of itself, and no more."""

    facts: dict[str, Any]
    batch_size: int
    uses_category: bool = False

    def describe(self) -> dict[str, Any]:
        return dict(self.facts)

    def predict_arrays(self, images: Any, /) -> Any:
        raise NotImplementedError("this detector works on other machines")

    @property
    def hashes(self) -> dict[str, Any]:
        """What every worker's weights must be."""
        return {name: self.facts[name] for name in _HASHES if name in self.facts}


@dataclass(frozen=True)
class Settings:
    """What `predict_on_ray` is asked for, besides inputs and output; as in `predict_run`."""

    resume: bool = False
    overwrite: bool = False
    max_pixels: int = DEFAULT_MAX_PIXELS
    judging: Judging | None = None
    arguments: Mapping[str, Any] | None = None
    category_of: Callable[[ImageFile], str] | None = None
    shard: Shard | None = None


def predict_on_ray(
    model: Model,
    inputs: Sequence[str] | ImageSet,
    out: str | Path,
    crew: Crew,
    settings: Settings,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> RunSummary:
    """Judge all images that `inputs` name with the actors of a Ray cluster.

    Inputs are files, folders and globs that every machine can read, or URLs (see `storage`). A local `out` becomes a
    run folder as `predict_run` makes it; a URL becomes a run without overlays and report (`remote_run`).

    The rows are those of a run on one machine. Scores are the same bit for bit where the same hardware judges the
    same batches with as many threads, which it does unless a file of the input is broken; else within rounding.

    Raises:
        InputError: Ray is missing; inputs that do not exist, hold no image, or that workers cannot read.
        CrewError: the cluster cannot do the work.
        RunFolderError: `out` cannot be used or written.
        KeyboardInterrupt: passed on, with `out` left ready for `resume`.
    """
    target = as_url(out)
    source, images = find_images(inputs, target)
    if target is None:
        out = local_path(out)
        if settings.shard is None:
            check_output(out, resume=settings.resume, overwrite=settings.overwrite)  # before a model is loaded
    else:
        RemoteRun.check(Place(target), resume=settings.resume, overwrite=settings.overwrite)
    with cluster(crew) as found:
        seen = str(images.files[0].path) if source is None else None
        detector, pinned = meet(found, model, seen)
        hired = _Hired(found, pinned, detector, source, settings)
        if target is None:
            return hired.to_folder(images, Path(out), progress)
        return hired.to_store(images, Place(target), progress)


def find_images(inputs: Sequence[str] | ImageSet, out: str | None) -> tuple[Place | None, ImageSet]:
    """The images that inputs name, and the prefix of their store; None for files on disk, found already or not.

    Raises:
        InputError: as `discover` and `discover_remote`; a mixture of both.
    """
    if isinstance(inputs, ImageSet):
        return None, inputs
    urls = [as_url(entry) for entry in inputs]
    remote = [url for url in urls if url is not None]
    if remote and len(remote) < len(urls):
        raise InputError("some inputs are on disk and some in object storage; judge them one by one")
    if remote:
        return discover_remote(remote, skip=[] if out is None else [out])
    return None, discover([str(local_path(entry)) for entry in inputs])


def meet(crew: Crew, model: Model, sample: str | None) -> tuple[Described, Model]:
    """Ask one worker what the model is; with what `auto` means there, so that it means the same everywhere.

    sample: an image on disk that the worker must be able to see.

    Raises:
        HeadclipError: the model cannot be loaded.
        InputError: the worker does not see the image.
    """
    (detector, seen), said = ask_one(crew, partial(_introduce, model, sample))
    for message in said:
        warnings.warn(message, stacklevel=2)
    if not seen:
        raise InputError(f"workers cannot see {sample}; use a folder that all machines share, or a URL such as s3://")
    return detector, Model(model.load, pin(model.arguments, detector))


def _introduce(model: Model, sample: str | None) -> tuple[Described, bool]:
    """Runs on a worker."""
    detector = model.load(model.arguments)
    uses_category = bool(getattr(getattr(detector, "method", None), "uses_category", False))
    described = Described(detector.describe(), detector.batch_size, uses_category)
    return described, sample is None or Path(sample).exists()


def pin(arguments: Mapping[str, Any], detector: Described) -> dict[str, Any]:
    """Arguments with the precision and batch size that the first worker chose, where they were left open."""
    pinned = dict(arguments)
    if pinned.get("precision") == "auto" and detector.facts.get("precision") in _PINNED:
        pinned["precision"] = detector.facts["precision"]
    if "batch_size" in pinned:
        pinned["batch_size"] = detector.batch_size
    return pinned


@dataclass(frozen=True)
class _Hired:
    """A crew that knows its model."""

    crew: Crew
    model: Model
    detector: Described
    source: Place | None
    settings: Settings

    @property
    def category_of(self) -> Callable[[ImageFile], str] | None:
        return self.settings.category_of if self.detector.uses_category else None

    def to_folder(self, images: ImageSet, out: Path, progress: Callable[[Progress], None]) -> RunSummary:
        """A run folder, in which `predict_run` does all but the judging."""
        settings = self.settings
        return predict_run(
            self.detector,
            images,
            out,
            resume=settings.resume,
            overwrite=settings.overwrite,
            max_pixels=settings.max_pixels,
            judging=settings.judging,
            arguments=dict(settings.arguments or {}),
            progress=progress,
            category_of=self.category_of,
            shard=settings.shard,
            elsewhere=self._into_folder,
        )

    def _into_folder(
        self,
        files: Sequence[ImageFile],
        folder: Path,
        histogram: LevelHistogram,
        record: Callable[[list[Entry]], None],
    ) -> None:
        mark = f"{TEMPORARY}/ray-{secrets.token_hex(8)}"
        write_atomic(folder, mark, b"")
        task = self._task(Target(str(folder.resolve()), mark))
        for result in self._results(task, files, lambda entry: record([entry])):
            for name, content in result.files.items():  # of workers that do not have this disk
                write_atomic(folder, name, content)
            histogram.add(result.payload["weights"])
            record(result.entries)

    def to_store(self, images: ImageSet, out: Place, progress: Callable[[Progress], None]) -> RunSummary:
        """A run in object storage: workers write maps and previews there, this machine the tables."""
        settings = self.settings
        if settings.shard is not None:
            raise InputError("--shard needs a local --out; a cluster divides the images by itself")
        started = time.perf_counter()
        facts = self.detector.describe() | ({} if self.category_of is None else {"category": "each image's own"})
        earlier = RemoteRun.facts_of(out) if settings.resume else None
        chosen = choose(settings.judging or Judging(), facts, (earlier or {}).get("judgement"))
        asked = dict(settings.arguments or {})
        run = RemoteRun(out, images, facts, chosen, arguments=asked, resume=settings.resume)
        todo = [image for image in images if not run.is_done(image)]
        done, failed = len(images) - len(todo), 0

        def record(entries: list[Entry], regions: str = "") -> None:
            nonlocal done, failed
            run.append(entries, regions)
            done += len(entries)
            failed += sum(entry.row.status == "failed" for entry in entries)
            progress(Progress("judging", done, len(images), failed))

        with run:
            progress(Progress("judging", done, len(images), failed))
            task = self._task(Target(place=out), chosen.criteria)
            for result in self._results(task, todo, lambda entry: record([entry])):
                record(result.entries, result.payload["regions"])
            rows = run.finish()
        seconds = time.perf_counter() - started
        return RunSummary(Path(out.shown), rows, len(todo), len(images) - len(todo), seconds)

    def _task(self, target: Target, criteria: Any = None) -> PredictTask:
        return PredictTask(
            self.model.load,
            self.model.arguments,
            target,
            self.source,
            self.settings.max_pixels,
            criteria,
            self.detector.hashes,
        )

    def _results(self, task: PredictTask, files: Sequence[ImageFile], lose: Callable[[Entry], None]) -> Any:
        refs = [file_ref(file, self.category_of) for file in files]

        def on_lost(ref: FileRef, reason: str) -> None:
            lose(Entry(Row(ref.name, "failed", reason=reason), ref.size, ref.mtime_ns))

        return judge_all(self.crew, partial(PredictWorker, task), refs, self.detector.batch_size, on_lost)


def file_ref(file: ImageFile, category_of: Callable[[ImageFile], str] | None) -> FileRef:
    """What travels of a file."""
    category = None if category_of is None else category_of(file)
    path: Any = file.path
    if isinstance(path, RemotePath):
        return FileRef(file.name, path.inner, path.size, path.mtime_ns, category)
    return FileRef(file.name, str(path), category=category)
