"""Judging a folder of images: decode, model, files, each in its own threads, and a row for every image."""

from __future__ import annotations

import itertools
import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.discover import ImageFile, ImageSet, discover, printable
from headclip.data.volumes.model import VolumeSet
from headclip.data.volumes.names import keep_salt
from headclip.inference.overlay import LevelHistogram, Scale
from headclip.inference.prefetch import Decoded, decode_ahead, readable_batches
from headclip.inference.report import report_pieces, thumbnail_names
from headclip.inference.resuming import find_work
from headclip.inference.run import Entry, Row, is_run_folder, read_facts
from headclip.inference.run_files import (
    MAP_MAXIMUM,
    MASKS,
    REGIONS,
    REPORT,
    RunFileNameError,
    RunFolderError,
    encode_map,
    encode_preview,
    map_file,
    preview_file,
    quantise,
    write_atomic,
)
from headclip.inference.run_render import render_overlays
from headclip.inference.run_writer import RunWriter, check_output
from headclip.inference.shards import Shard, check_whole, keep_listing
from headclip.inference.volumes import write_volumes
from headclip.inference.volumes_inputs import refuse_division, volume_facts
from headclip.judgement.choosing import Chosen, Judging, choose
from headclip.judgement.labels import read_labels
from headclip.judgement.run_judging import JudgedRows, judge_rows, judgement_facts

Stage = Literal["judging", "joining", "rendering", "regions"]
_PART_PAGE = "<!doctype html><title>headclip</title><p>One shard of a run: headclip merge makes the report of all.\n"
_log = logging.getLogger(__name__)


class Judgement(Protocol):
    """What is needed of a `Prediction`."""

    @property
    def score(self) -> float: ...
    @property
    def global_score(self) -> float: ...
    @property
    def local_score(self) -> float: ...
    @property
    def anomaly_map(self) -> NDArray[np.float32]: ...


class Judge(Protocol):
    """What is needed of a `Detector`."""

    @property
    def batch_size(self) -> int: ...
    def predict_arrays(self, images: list[NDArray[np.uint8]], /) -> Sequence[Judgement]: ...
    def describe(self) -> dict[str, Any]: ...


Elsewhere = Callable[[Sequence[ImageFile], Path, LevelHistogram, Callable[[list[Entry]], None]], None]
"""Judges files on other machines: given the files, the run folder in which their maps and previews shall be, the
histogram to add the maps to, and a function that puts judged images on record."""


@dataclass(frozen=True)
class Progress:
    """How far a run is. done counts the images of this stage, failed ones included."""

    stage: Stage
    done: int
    total: int
    failed: int


@dataclass(frozen=True)
class RunSummary:
    """What `predict_run` did. rows: all of the run; judged, skipped: images done now and in earlier calls."""

    folder: Path
    rows: tuple[Row, ...]
    judged: int
    skipped: int
    seconds: float

    @property
    def ok(self) -> list[Row]:
        """The judged images."""
        return [row for row in self.rows if row.status == "ok"]

    @property
    def failed(self) -> list[Row]:
        """The images that could not be judged, each with its reason."""
        return [row for row in self.rows if row.status == "failed"]

    @property
    def report(self) -> Path:
        """The page to open."""
        return self.folder / REPORT

    def top(self, count: int) -> list[Row]:
        """The most anomalous images, highest score first."""
        return sorted(self.ok, key=lambda row: -(row.score or 0.0))[:count]


def predict_run(
    detector: Judge,
    inputs: Sequence[str | Path] | ImageSet,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    judging: Judging | None = None,
    arguments: dict[str, Any] | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    refresh_seconds: float = 10.0,
    category_of: Callable[[ImageFile], str] | None = None,
    shard: Shard | None = None,
    elsewhere: Elsewhere | None = None,
) -> RunSummary:
    """Judge all images that `inputs` name and write the run folder `out`.

    A broken image becomes a failed row. Interrupted or killed at any moment, the folder stays readable and
    `resume` goes on: what is judged already (same content of the file, also under a new name) is kept, failed images
    are tried again.

    Args:
        detector: a `Detector`, or anything with its `predict_arrays`, `describe` and `batch_size`.
        inputs: files, folders and globs, or what `discover` made of them.
        max_pixels: larger images are refused, each with a row that says so.
        judging: thresholds for verdicts and regions; by default those of the run that is resumed, else the
            checkpoint's, else none.
        arguments: kept in run.json.
        progress: called in this thread after every batch and every overlay.
        refresh_seconds: how often results.csv is brought up to date on the way.
        category_of: what an image shows, for methods that put it into words; None leaves it at the detector's.
        shard: judge this part of the images alone, into a run folder of its own below `out`, for `merge_runs`.
        elsewhere: judges in place of this process, which keeps the record; `detector` then only describes itself.

    Raises:
        InputError: an input does not exist or holds no image.
        CalibrationError: the calibration belongs to another model.
        RunFolderError: `out` cannot be used or written.
        KeyboardInterrupt: passed on, with the folder left ready for `resume`.
    """
    started = time.perf_counter()
    images = inputs if isinstance(inputs, ImageSet) else discover(inputs, skip_folder=is_run_folder)
    settings = detector.describe() | ({} if category_of is None else {"category": "each image's own"})
    every, extra, target = images, None, Path(out)
    if isinstance(images, VolumeSet):
        refuse_division(shard, elsewhere)
        settings |= {"volumes": images.facts()}
        extra = {"volumes": volume_facts(images)}
    if shard is not None:
        images, target = shard.of(every), shard.folder(Path(out))
    earlier = (read_facts(target) or {}) if resume else None
    chosen = choose(judging or Judging(), settings, (earlier or {}).get("judgement"))
    if shard is not None:
        check_whole(Path(out))
        check_output(target, resume=resume, overwrite=overwrite)
        digest = keep_listing(target.parent, [file.name for file in every])
        extra = {"shard": {"index": shard.index, "count": shard.count, "listing": digest, "images": len(every)}}
    writer = RunWriter(
        target,
        images,
        settings,
        arguments=arguments,
        resume=resume,
        overwrite=overwrite,
        extra=extra,
        listed_only=shard is not None,
    )
    with writer:
        if isinstance(images, VolumeSet) and images.salt is not None:
            keep_salt(writer.folder, images.salt)
        histogram = LevelHistogram()
        todo = find_work(writer, images, every, histogram, earlier, renamed=category_of is None)
        skipped = len(images) - len(todo)
        session = _Session(detector, writer, histogram, progress, len(images), skipped, refresh_seconds)
        session.category_of = category_of
        ahead = max(4, 2 * detector.batch_size)
        if elsewhere is not None:
            elsewhere(todo, writer.folder, histogram, session.append)
        else:
            with closing(decode_ahead(todo, max_pixels=max_pixels, max_images=ahead)) as decoded:
                session.judge(decoded)
        if isinstance(images, VolumeSet):
            write_volumes(writer.folder, images, writer.rows())
        finish = _finish if shard is None else _finish_part
        rows = finish(writer, histogram, chosen, progress)
    return RunSummary(writer.folder, rows, len(todo), skipped, time.perf_counter() - started)


def judge_more(
    detector: Judge, writer: RunWriter, files: Sequence[ImageFile], *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> None:
    """Add images to a run that stays open, and bring its table up to date; overlays and report are not made.

    For files that appear one by one; `predict_run` is for those that are all there, and finishes such a run too.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    session = _Session(detector, writer, LevelHistogram(), lambda progress: None, len(files), 0, float("inf"))
    with closing(decode_ahead(files, max_pixels=max_pixels, max_images=max(4, detector.batch_size))) as decoded:
        session.judge(decoded)
    writer.refresh_table()


class _Record(Protocol):
    """What is needed of a `RunWriter` while images are judged."""

    @property
    def folder(self) -> Path: ...
    def append(self, entries: Sequence[Entry], /) -> None: ...
    def refresh_table(self) -> None: ...


class _Kept:
    """A record in memory, for files that are judged on behalf of another process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: list[Entry] = []

    def append(self, entries: Sequence[Entry], /) -> None:
        self.entries += entries

    def refresh_table(self) -> None:
        """There is no table."""


def judge_files(
    detector: Judge,
    folder: Path,
    files: Sequence[ImageFile],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    category_of: Callable[[ImageFile], str] | None = None,
    read: Callable[[ImageFile, int], Decoded] | None = None,
) -> tuple[list[Entry], LevelHistogram]:
    """Judge files as `predict_run` does, maps and previews below `folder`; whoever asked keeps the record.

    read: from a file and the most pixels allowed to pixels, for files that are not on a disk.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    kept, histogram = _Kept(folder), LevelHistogram()
    session = _Session(detector, kept, histogram, lambda progress: None, len(files), 0, float("inf"))
    session.category_of = category_of
    ahead = max(4, 2 * detector.batch_size)
    workers = 2 if read is None else 8  # a store answers slowly and many at once
    decoded = decode_ahead(files, max_pixels=max_pixels, max_images=ahead, workers=workers, read=read)
    with closing(decoded):
        session.judge(decoded)
    return kept.entries, histogram


class _Session:
    """One pass over the images that are still to be judged."""

    def __init__(
        self,
        detector: Judge,
        writer: _Record,
        histogram: LevelHistogram,
        progress: Callable[[Progress], None],
        total: int,
        skipped: int,
        refresh_seconds: float,
    ) -> None:
        self._histogram = histogram
        self._detector = detector
        self._writer = writer
        self._progress = progress
        self._total = total
        self._done = skipped
        self._failed = 0
        self._refresh_seconds = refresh_seconds
        self._refreshed = time.monotonic()
        self._batch_size = detector.batch_size
        self.category_of: Callable[[ImageFile], str] | None = None

    def judge(self, decoded: Iterator[Decoded]) -> None:
        """Files of one batch are written while the model works on the next; the journal follows them."""
        waiting: deque[list[Future[Entry]]] = deque()
        self._report()
        with ThreadPoolExecutor(2, thread_name_prefix="headclip-write") as pool:
            try:
                for batch in readable_batches(decoded, lambda: self._batch_size, self._refuse):
                    waiting.append([pool.submit(self._save, *judged) for judged in self._judge_batch(batch)])
                    while len(waiting) > 1:
                        self._record(waiting.popleft())
            finally:  # after an interruption too: what the model has judged is kept
                while waiting:
                    self._record(waiting.popleft())

    def _refuse(self, item: Decoded) -> None:
        """Put an unreadable image on record."""
        self.append([_failed(item, item.reason or "unknown reason")])

    def _judge_batch(self, batch: list[Decoded]) -> list[tuple[Decoded, Judgement | str, float]]:
        """Every image with its judgement, or the reason for none, and its share of the batch's seconds."""
        started = time.perf_counter()
        try:
            predict: Callable[..., Sequence[Judgement]] = self._detector.predict_arrays  # categories only if asked for
            categories = () if self.category_of is None else ([self.category_of(item.file) for item in batch],)
            judgements = predict([item.pixels for item in batch if item.pixels is not None], *categories)
            if len(judgements) != len(batch):
                raise ValueError(f"{len(judgements)} results for {len(batch)} images")
        except Exception as error:
            _log.debug("judging %d image(s) failed", len(batch), exc_info=True)
            if len(batch) > 1:
                if _is_memory_error(error):
                    self._batch_size = max(1, len(batch) // 2)
                return [judged for item in batch for judged in self._judge_batch([item])]
            return [(batch[0], _model_reason(error), 0.0)]
        seconds = (time.perf_counter() - started) / len(batch)
        return [(item, result, seconds) for item, result in zip(batch, judgements, strict=True)]

    def _save(self, item: Decoded, judgement: Judgement | str, seconds: float) -> Entry:
        """The entry of one image, its files in place; runs in a thread. A failing folder ends the run."""
        if isinstance(judgement, str):
            return _failed(item, judgement)
        try:
            return self._save_judged(item, judgement, seconds)
        except RunFileNameError as error:
            return _failed(item, str(error))
        except RunFolderError:
            raise
        except Exception as error:
            _log.debug("saving %s failed", item.file.name, exc_info=True)
            return _failed(item, f"cannot be saved: {type(error).__name__}: {error}")

    def _save_judged(self, item: Decoded, judgement: Judgement, seconds: float) -> Entry:
        assert item.pixels is not None
        height, width = item.pixels.shape[:2]
        anomaly_map = judgement.anomaly_map
        if anomaly_map.shape != (height, width):
            return _failed(item, f"the model gave a map of shape {anomaly_map.shape} for {(height, width)}")
        if not (np.isfinite(judgement.score) and np.isfinite(anomaly_map).all()):
            return _failed(item, "the model gave values that are not numbers")
        name = item.file.name
        levels = quantise(anomaly_map)
        write_atomic(self._writer.folder, map_file(name), encode_map(levels))
        write_atomic(self._writer.folder, preview_file(name), encode_preview(item.pixels))
        row = Row(
            path=name,
            status="ok",
            score=float(judgement.score),
            height=height,
            width=width,
            global_score=float(judgement.global_score),
            local_score=float(judgement.local_score),
            map=map_file(name),
            seconds=seconds,
            peak=int(levels.max()) / MAP_MAXIMUM,
        )
        self._histogram.update(levels)
        return Entry(row, item.size, item.mtime_ns, item.sha256)

    def _record(self, saved: list[Future[Entry]]) -> None:
        self.append([future.result() for future in saved])

    def append(self, entries: list[Entry]) -> None:
        """Put judged and failed images on record, and say how far things are."""
        self._writer.append(entries)
        self._done += len(entries)
        self._failed += sum(entry.row.status == "failed" for entry in entries)
        self._report()
        if time.monotonic() - self._refreshed > self._refresh_seconds:
            self._writer.refresh_table()
            self._refreshed = time.monotonic()

    def _report(self) -> None:
        self._progress(Progress("judging", self._done, self._total, self._failed))


def _finish(
    writer: RunWriter, histogram: LevelHistogram, chosen: Chosen, progress: Callable[[Progress], None]
) -> tuple[Row, ...]:
    """Overlays, regions, tables and report. The scale needs all maps of the run, so this comes last."""
    writer.refresh_table()
    rows = writer.rows()
    ok = [row for row in rows if row.status == "ok"]
    scale = histogram.scale()
    count = count_stage(progress, "rendering", len(ok), len(rows) - len(ok))
    thumbnails = render_overlays(writer.folder, ok, scale, thumbnail_names(ok), count)
    judged = _judge(writer, rows, chosen, progress)
    labels = read_labels(writer.folder)
    facts = {
        "scale": scale_facts(scale),
        "judgement": judgement_facts(judged.rows, chosen.criteria, chosen.calibration, chosen.note, labels),
    }
    page = report_pieces(judged.rows, writer.facts | facts, thumbnails, writer.folder, judged.regions, labels)
    writer.finish(page, facts, judged.rows)
    return judged.rows


def _finish_part(
    writer: RunWriter, histogram: LevelHistogram, chosen: Chosen, progress: Callable[[Progress], None]
) -> tuple[Row, ...]:
    """Regions and tables of a shard. Overlays and report need the scale of all shards: merging makes them."""
    judged = _judge(writer, writer.rows(), chosen, progress)
    facts = {
        "scale": scale_facts(histogram.scale()),
        "judgement": judgement_facts(judged.rows, chosen.criteria, chosen.calibration, chosen.note),
    }
    writer.finish(_PART_PAGE, facts, judged.rows)
    return judged.rows


def _judge(writer: RunWriter, rows: Sequence[Row], chosen: Chosen, progress: Callable[[Progress], None]) -> JudgedRows:
    """Verdicts and regions of all rows; masks and regions of earlier thresholds go."""
    shutil.rmtree(writer.folder / MASKS, ignore_errors=True)
    (writer.folder / REGIONS).unlink(missing_ok=True)
    if chosen.criteria is None:
        return judge_rows(writer.folder, rows, None)
    failed = sum(row.status == "failed" for row in rows)
    on_judged = count_stage(progress, "regions", len(rows), failed)
    return judge_rows(writer.folder, rows, chosen.criteria, writer.folder, on_judged)


def count_stage(progress: Callable[[Progress], None], stage: Stage, total: int, failed: int) -> Callable[[str], None]:
    """A function that is called with each image's name and reports how many there have been."""
    numbers = itertools.count(1)
    return lambda name: progress(Progress(stage, next(numbers), total, failed))


def scale_facts(scale: Scale) -> dict[str, float]:
    """A scale as run.json keeps it."""
    return {"low": round(scale.low, 6), "high": round(scale.high, 6)}


def _failed(item: Decoded, reason: str) -> Entry:
    return Entry(Row(item.file.name, "failed", reason=_one_line(reason)), item.size, item.mtime_ns, item.sha256)


def _one_line(reason: str) -> str:
    lines = reason.strip().splitlines()
    return printable(lines[0])[:300] if lines else "unknown reason"


def _model_reason(error: Exception) -> str:
    if _is_memory_error(error):
        return "not enough memory for this image; try a smaller --image-size or another --device"
    return f"the model failed: {type(error).__name__}: {error}"


def _is_memory_error(error: Exception) -> bool:
    """MemoryError, or what torch raises instead, told by its words: torch need not be imported here."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
