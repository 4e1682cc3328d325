"""One pass over the images of a run: judged, saved and put on record, each in threads of its own."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from headclip.data.discover import ImageFile, printable
from headclip.data.levels import MAP_MAXIMUM, quantise
from headclip.data.prefetch import Decoded, readable_batches
from headclip.errors import HeadclipError
from headclip.memory import is_memory_error
from headclip.prediction import Judge, Judgement
from headclip.runs.files import RunFileNameError, RunFolderError, map_file, preview_file, write_atomic
from headclip.runs.overlay import LevelHistogram
from headclip.runs.pictures import encode_map, encode_preview
from headclip.runs.run import Entry, Row

T = TypeVar("T")
NOT_FINITE = "the model gave values that are not numbers"
Stage = Literal["judging", "joining", "rendering", "regions"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a run is. done counts the images of this stage, failed ones included."""

    stage: Stage
    done: int
    total: int
    failed: int


class Record(Protocol):
    """What is needed of a `RunWriter` while images are judged."""

    @property
    def folder(self) -> Path: ...
    def append(self, entries: Sequence[Entry], /) -> None: ...
    def refresh_table(self) -> None: ...


_Judged = tuple[Decoded, Judgement | str, float]
"""An image, its judgement or the reason for none, and its share of the seconds of its batch."""


def passes_of(detector: Judge) -> int:
    """How many batches a detector judges at once."""
    return max(1, int(getattr(detector, "passes", 1)))


def images_ahead(detector: Judge) -> int:
    """How many images should wait, decoded, for a detector."""
    return max(4, (1 + passes_of(detector)) * detector.batch_size)


class Session:
    """One pass over the images that are still to be judged."""

    def __init__(
        self,
        detector: Judge,
        writer: Record,
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
        self._judging: deque[Future[list[_Judged]]] = deque()
        self._saving: deque[list[Future[Entry]]] = deque()
        self.passes = passes_of(detector)
        self.category_of: Callable[[ImageFile], str] | None = None

    def judge(self, decoded: Iterator[Decoded]) -> None:
        """Files of one batch are written while the model works on the next; the journal follows them.

        A detector that has passes side by side (`Judge.passes`) gets as many batches at once, in threads.
        """
        self._report()
        with (
            self._side_by_side(),
            ThreadPoolExecutor(self.passes, thread_name_prefix="headclip-model") as models,
            ThreadPoolExecutor(2, thread_name_prefix="headclip-write") as writers,
        ):
            try:
                for batch in readable_batches(decoded, lambda: self._batch_size, self._refuse):
                    if self.passes > 1:
                        self._judging.append(models.submit(self._judge_batch, batch))
                    else:  # in this thread, where an interruption stops it
                        self._judging.append(_done(self._judge_batch(batch)))
                    self._go_on(writers, self.passes if self.passes > 1 else 0, 1)
            finally:  # after an interruption too: what the model has judged is kept
                self._go_on(writers, 0, 0)

    def _go_on(self, writers: ThreadPoolExecutor, judging: int, saving: int) -> None:
        """Save what has been judged and record what has been saved, until no more batches than that are waited for."""
        while len(self._judging) > judging:
            judged = self._judging[0].result()  # kept in its place, should an interruption come just now
            self._judging.popleft()
            self._saving.append([writers.submit(self._save, *one) for one in judged])
        while len(self._saving) > saving:
            self._record(self._saving.popleft())

    def _side_by_side(self) -> AbstractContextManager[object]:
        enter: Callable[[], AbstractContextManager[object]] | None = getattr(self._detector, "side_by_side", None)
        return nullcontext() if enter is None or self.passes == 1 else enter()

    def _refuse(self, item: Decoded) -> None:
        """Put an unreadable image on record."""
        self.append([failed_entry(item, item.reason or "unknown reason")])

    def _judge_batch(self, batch: list[Decoded]) -> list[_Judged]:
        """Every image with its judgement, or the reason for none, and its share of the batch's seconds."""
        started, parts = time.perf_counter(), None
        try:
            predict: Callable[..., Sequence[Judgement]] = self._detector.predict_arrays  # categories only if asked for
            categories = () if self.category_of is None else ([self.category_of(item.file) for item in batch],)
            judgements = predict([item.pixels for item in batch if item.pixels is not None], *categories)
            if len(judgements) != len(batch):
                raise ValueError(f"{len(judgements)} results for {len(batch)} images")
        except Exception as error:
            _log.debug("judging %d image(s) failed", len(batch), exc_info=True)
            if len(batch) == 1:
                return [(batch[0], _model_reason(error), 0.0)]
            size = 1
            if is_memory_error(error):
                size = self._batch_size = max(1, len(batch) // 2)
                _log.warning("out of memory with %d images a pass; going on with %d", len(batch), size)
            parts = [batch[start : start + size] for start in range(0, len(batch), size)]
        if parts is not None:  # outside the handler, where the error no longer holds what the pass has made
            return [judged for part in parts for judged in self._judge_batch(part)]
        seconds = (time.perf_counter() - started) / len(batch)
        return [(item, result, seconds) for item, result in zip(batch, judgements, strict=True)]

    def _save(self, item: Decoded, judgement: Judgement | str, seconds: float) -> Entry:
        """The entry of one image, its files in place; runs in a thread. A failing folder ends the run."""
        if isinstance(judgement, str):
            return failed_entry(item, judgement)
        try:
            return self._save_judged(item, judgement, seconds)
        except RunFileNameError as error:
            return failed_entry(item, str(error))
        except RunFolderError:
            raise
        except Exception as error:
            _log.debug("saving %s failed", item.file.name, exc_info=True)
            return failed_entry(item, f"cannot be saved: {type(error).__name__}: {error}")

    def _save_judged(self, item: Decoded, judgement: Judgement, seconds: float) -> Entry:
        assert item.pixels is not None
        height, width = item.pixels.shape[:2]
        anomaly_map = judgement.anomaly_map
        if anomaly_map.shape != (height, width):
            return failed_entry(item, f"the model gave a map of shape {anomaly_map.shape} for {(height, width)}")
        if not is_finite(judgement):
            return failed_entry(item, NOT_FINITE)
        name = item.file.name
        levels = quantise(anomaly_map)
        write_atomic(self._writer.folder, map_file(name), encode_map(levels))
        write_atomic(self._writer.folder, preview_file(name), encode_preview(item.pixels))
        self._histogram.update(levels)
        return judged_entry(item, judgement, seconds, levels)

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


def is_finite(judgement: Judgement) -> bool:
    """Whether score and map hold nothing but numbers."""
    return bool(np.isfinite(judgement.score) and np.isfinite(judgement.anomaly_map).all())


def judged_entry(
    item: Decoded, judgement: Judgement, seconds: float, levels: NDArray[np.uint16] | None = None
) -> Entry:
    """The entry of a judged image. levels: the quantised map, where its file is kept."""
    assert item.pixels is not None
    row = Row(
        path=item.file.name,
        status="ok",
        score=float(judgement.score),
        height=item.pixels.shape[0],
        width=item.pixels.shape[1],
        global_score=float(judgement.global_score),
        local_score=float(judgement.local_score),
        map=None if levels is None else map_file(item.file.name),
        seconds=seconds,
        peak=None if levels is None else int(levels.max()) / MAP_MAXIMUM,
    )
    return Entry(row, item.size, item.mtime_ns, item.sha256)


def failed_entry(item: Decoded, reason: str) -> Entry:
    """The entry of an image without a judgement."""
    return Entry(Row(item.file.name, "failed", reason=_one_line(reason)), item.size, item.mtime_ns, item.sha256)


def _one_line(reason: str) -> str:
    lines = reason.strip().splitlines()
    return printable(lines[0])[:300] if lines else "unknown reason"


def _model_reason(error: Exception) -> str:
    if is_memory_error(error):
        return "not enough memory for this image; try a smaller --image-size or another --device"
    if isinstance(error, HeadclipError):
        return str(error)
    return f"the model failed: {type(error).__name__}: {error}"


def _done(result: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(result)
    return future
