"""Images of many requests become batches of one model, in one thread, with a bounded queue before it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headclip.data.prefetch import BATCH_PIXELS
from headclip.errors import HeadclipError, ImageError
from headclip.memory import is_memory_error
from headclip.prediction import Judge, Judgement

_log = logging.getLogger(__name__)
_FIRST_GUESS = 0.1  # seconds an image, until the first batch has been timed


class QueueFullError(HeadclipError):
    """There is no room for more images; try again after `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full; try again in {seconds} s")
        self.seconds = seconds


class StoppingError(HeadclipError):
    """The server is shutting down and takes no more images."""


class ModelError(HeadclipError):
    """The model could not judge one image. status: of the answer; 422 where the image is to blame."""

    def __init__(self, reason: str, status: int = 500) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class BatchReport:
    """What the model did: images of a batch, seconds in the model, and seconds that each image waited before."""

    images: int
    failed: int
    seconds: float
    waited: tuple[float, ...]


@dataclass
class _Job:
    pixels: NDArray[np.uint8]  # (H, W, 3)
    action: Callable[[], Any] | None = None  # in place of judging the pixels
    future: Future[Any] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    @property
    def count(self) -> int:
        return self.pixels.shape[0] * self.pixels.shape[1]


class Batcher:
    """One worker thread that takes whatever waits, up to the detector's batch size, and judges it at once.

    It has a detector's methods, so that what judges files can stand in the same queue.

    A batch waits `linger` seconds at most for company, so a lone image is hardly delayed, and under load batches
    fill up by themselves while the model works.
    """

    def __init__(
        self,
        detector: Judge,
        *,
        queue: int,
        queue_pixels: int,
        linger: float = 0.005,
        report: Callable[[BatchReport], None] = lambda batch: None,
    ) -> None:
        self._detector = detector
        self._queue = queue
        self._queue_pixels = queue_pixels
        self._linger = linger
        self._report = report
        self._batch_size = max(1, detector.batch_size)
        self._jobs: deque[_Job] = deque()
        self._pixels = 0
        self._in_model = 0
        self._pace = _FIRST_GUESS
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="headclip-model", daemon=True)
        self._thread.start()

    @property
    def batch_size(self) -> int:
        """Images a batch."""
        return self._batch_size

    def describe(self) -> dict[str, Any]:
        """Facts of the detector."""
        return self._detector.describe()

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return len(self._jobs)

    @property
    def alive(self) -> bool:
        """Whether images are still taken and judged."""
        return self._thread.is_alive() and not self._stopping

    @property
    def full(self) -> bool:
        """Whether not even one more image would be taken: cheap to ask before decoding it."""
        return len(self._jobs) >= self._queue or self._pixels >= self._queue_pixels

    @property
    def expected_wait(self) -> float:
        """Seconds until what is in the queue now is judged, by how long the last images took."""
        return (len(self._jobs) + self._in_model) * self._pace

    def retry_after(self) -> int:
        """Whole seconds after which the queue should have room again."""
        return max(1, math.ceil(self.expected_wait / 2))

    def submit(self, images: Sequence[NDArray[np.uint8]]) -> list[Future[Judgement]]:
        """Put (H, W, 3) images into the queue, all or none; cancelling a future takes its image out again.

        Raises:
            QueueFullError: there is no room for all of them.
            StoppingError: `close` has been called.
        """
        jobs = [_Job(image) for image in images]
        with self._changed:
            self._check_open()
            if not self._has_room(jobs):
                raise QueueFullError(self.retry_after())
            self._add(jobs)
        return [job.future for job in jobs]

    def predict_arrays(self, images: Sequence[NDArray[np.uint8]]) -> list[Judgement]:
        """As the detector would, but in turn with everybody else; waits for room, one image at a time."""
        futures = []
        for image in images:
            job = _Job(image)
            with self._changed:
                self._changed.wait_for(lambda job=job: self._stopping or self._has_room([job]))  # type: ignore[misc]
                self._check_open()
                self._add([job])
            futures.append(job.future)
        return [future.result() for future in futures]

    def run(self, action: Callable[[], Any]) -> Future[Any]:
        """Do something else with the model, in turn: no two threads use it at the same time.

        Raises:
            QueueFullError, StoppingError: as `submit`.
        """
        job = _Job(np.zeros((1, 1, 3), np.uint8), action)
        with self._changed:
            self._check_open()
            if not self._has_room([job]):
                raise QueueFullError(self.retry_after())
            self._add([job])
        return job.future

    def close(self) -> None:
        """Take nothing more, judge what is in the queue, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _check_open(self) -> None:
        if self._stopping:
            raise StoppingError("the server is shutting down; try again later")

    def _has_room(self, jobs: list[_Job]) -> bool:
        pixels = self._pixels + sum(job.count for job in jobs)
        return len(self._jobs) + len(jobs) <= self._queue and (not self._jobs or pixels <= self._queue_pixels)

    def _add(self, jobs: list[_Job]) -> None:
        self._jobs.extend(jobs)
        self._pixels += sum(job.count for job in jobs)
        self._changed.notify_all()

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            try:
                self._judge(batch)
            except BaseException as error:  # the thread must outlive anything: it is the only one
                _log.exception("a batch failed")
                for job in batch:
                    if not job.future.done():
                        job.future.set_exception(ModelError(f"the model failed: {type(error).__name__}"))
            self._in_model = 0

    def _take(self) -> list[_Job] | None:
        """The next batch; empty where all of it was cancelled, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or bool(self._jobs))
            if not self._jobs:
                return None
            if not self._stopping:
                self._changed.wait_for(lambda: self._stopping or len(self._jobs) >= self._batch_size, self._linger)
            batch: list[_Job] = []
            pixels = 0
            while self._jobs and len(batch) < self._batch_size:
                job = self._jobs[0]
                if batch and (pixels + job.count > BATCH_PIXELS or job.action or batch[0].action):
                    break
                self._jobs.popleft()
                self._pixels -= job.count
                if job.future.set_running_or_notify_cancel():
                    batch.append(job)
                    pixels += job.count
            self._in_model = len(batch)
            self._changed.notify_all()
            return batch

    def _judge(self, batch: list[_Job]) -> None:
        if not batch:
            return
        action = batch[0].action
        if action is not None:
            try:
                batch[0].future.set_result(action())
            except Exception as error:
                batch[0].future.set_exception(error)
            return
        started = time.monotonic()
        results = self._results([job.pixels for job in batch])
        seconds = time.monotonic() - started
        self._pace += 0.3 * (seconds / len(batch) - self._pace)
        failed = sum(isinstance(result, ModelError) for result in results)
        self._report(BatchReport(len(batch), failed, seconds, tuple(started - job.since for job in batch)))
        for job, result in zip(batch, results, strict=True):
            if isinstance(result, ModelError):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

    def _results(self, images: list[NDArray[np.uint8]]) -> list[Judgement | ModelError]:
        """Every image's judgement; one that the model cannot judge does not take the others with it."""
        try:
            found = list(self._detector.predict_arrays(images))
            if len(found) != len(images):
                raise ValueError(f"{len(found)} results for {len(images)} images")
            return [_checked(judgement, image) for judgement, image in zip(found, images, strict=True)]
        except Exception as error:
            _log.debug("judging %d image(s) failed", len(images), exc_info=True)
            if len(images) > 1:
                return [result for image in images for result in self._results([image])]
            return [ModelError(str(error), 422) if isinstance(error, ImageError) else ModelError(_reason(error))]


def _checked(judgement: Judgement, image: NDArray[Any]) -> Judgement | ModelError:
    if judgement.anomaly_map.shape != image.shape[:2]:
        return ModelError(f"the model gave a map of shape {judgement.anomaly_map.shape} for {image.shape[:2]}")
    if not (np.isfinite(judgement.score) and np.isfinite(judgement.anomaly_map).all()):
        return ModelError("the model gave values that are not numbers")
    return judgement


def _reason(error: Exception) -> str:
    if is_memory_error(error):
        return "not enough memory for this image; send a smaller one"
    return f"the model failed: {type(error).__name__}"
