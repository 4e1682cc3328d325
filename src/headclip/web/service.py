"""The model behind the API: images of a request in, results out, within the limits."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

import anyio
import anyio.to_thread
import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from headclip.data.decode import decode
from headclip.data.levels import quantise
from headclip.data.volumes.tiff import refuse_stack
from headclip.errors import ImageError
from headclip.judgement.verdicts import Criteria
from headclip.prediction import Judge, Judgement
from headclip.runs.pictures import encode_map
from headclip.web.batching import Batcher, ModelError, QueueFullError, StoppingError
from headclip.web.bodies import Upload
from headclip.web.foreign import check_alone
from headclip.web.limits import Limits
from headclip.web.metrics import Metrics
from headclip.web.schemas import ImageResult, MapData, RegionData

MapKind = Literal["none", "png", "npy"]
_DECODERS = 2  # images decoded at a time: each may hold max_pixels x 3 bytes before the queue counts it
_ENCODERS = 2
_HOPEFUL = 0.8  # share of the time for a request that the queue may be expected to take


@dataclass(frozen=True)
class Refused:
    """An image without a judgement, and the status that an answer about it alone would have."""

    status: int
    reason: str


class Service:
    """One model, one queue."""

    def __init__(self, detector: Judge, limits: Limits, metrics: Metrics, criteria: Criteria | None = None) -> None:
        self.detector = detector
        self.limits = limits
        self.criteria = criteria
        self.metrics = metrics
        self.batcher = Batcher(detector, queue=limits.queue, queue_pixels=limits.queue_pixels, report=metrics.batch)
        metrics.waiting.set_function(lambda: self.batcher.waiting)
        metrics.ready.set_function(lambda: float(self.batcher.alive))
        self._facts = _public(detector.describe())
        self._decoding: anyio.CapacityLimiter | None = None
        self._encoding: anyio.CapacityLimiter | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Which model it is, without paths of this machine."""
        return self._facts

    async def predict(self, uploads: Sequence[Upload], map_kind: MapKind) -> list[ImageResult]:
        """One result for each upload, in order.

        Raises:
            HTTPException: 429 when the queue is full, 503 while stopping, 504 when it takes too long; or what is
                wrong with the images when none of them could be judged.
        """
        started = time.monotonic()
        futures: list[Future[Judgement]] = []
        try:
            async with asyncio.timeout(self.limits.seconds):
                if self.batcher.full or self.batcher.expected_wait > _HOPEFUL * self.limits.seconds:
                    # Before the work of decoding; and rather at once than after a wait without an answer.
                    raise QueueFullError(self.batcher.retry_after())
                decoded = await self._decode(uploads)
                images = [item for item in decoded if not isinstance(item, Refused)]
                if map_kind != "none":
                    self._check_maps(images)
                futures = self.batcher.submit(images)
                del images
                outcomes = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
                found = iter(outcomes)
                merged = [item if isinstance(item, Refused) else _judged(next(found)) for item in decoded]
                del decoded
                results = [
                    await self._result(upload.name, item, map_kind)
                    for upload, item in zip(uploads, merged, strict=True)
                ]
        except TimeoutError:
            seconds = time.monotonic() - started
            raise HTTPException(504, f"no answer within {seconds:.0f} s; try again, or send fewer images") from None
        except QueueFullError as error:
            raise HTTPException(429, str(error), {"retry-after": str(error.seconds)}) from None
        except StoppingError as error:
            raise HTTPException(503, str(error), {"retry-after": "5"}) from None
        finally:
            for future in futures:
                future.cancel()  # without effect on what is done; the rest would be judged for nobody
        refused = [item for item in merged if isinstance(item, Refused)]
        self.metrics.images.labels("refused").inc(sum(item.status != 500 for item in refused))
        if len(refused) == len(merged):
            raise HTTPException(refused[0].status, _reasons(uploads, refused))
        return results

    async def _decode(self, uploads: Sequence[Upload]) -> list[NDArray[np.uint8] | Refused]:
        if self._decoding is None:
            self._decoding = anyio.CapacityLimiter(_DECODERS)
        room = self.limits.queue_pixels
        decoded: list[NDArray[np.uint8] | Refused] = []
        for upload in uploads:  # one after the other: a request of many images has no more than its share
            item = await anyio.to_thread.run_sync(self._decode_one, upload.content, limiter=self._decoding)
            if not isinstance(item, Refused):
                room -= item.shape[0] * item.shape[1]
                if room < 0 and decoded:
                    raise HTTPException(413, "the images have too many pixels together; send fewer in one request")
            decoded.append(item)
        return decoded

    def _decode_one(self, content: bytes) -> NDArray[np.uint8] | Refused:
        try:
            pixels = decode(content, max_pixels=self.limits.max_pixels)
            check_alone(content)
            refuse_stack(content)
            return pixels
        except ImageError as error:
            return Refused(_status_of(str(error)), str(error))

    def _check_maps(self, images: Sequence[NDArray[np.uint8]]) -> None:
        pixels = sum(image.shape[0] * image.shape[1] for image in images)
        if pixels > self.limits.max_pixels:
            raise HTTPException(
                413, f"maps of {pixels:,} pixels in one answer, more than {self.limits.max_pixels:,}; ask for fewer"
            )

    async def _result(self, name: str, item: Judgement | Refused, map_kind: MapKind) -> ImageResult:
        if isinstance(item, Refused):
            return ImageResult(name=name, status="failed", reason=item.reason)
        if self._encoding is None:
            self._encoding = anyio.CapacityLimiter(_ENCODERS)
        return await anyio.to_thread.run_sync(self._encode, name, item, map_kind, limiter=self._encoding)

    def _encode(self, name: str, judgement: Judgement, map_kind: MapKind) -> ImageResult:
        height, width = judgement.anomaly_map.shape
        criteria = self.criteria
        return ImageResult(
            name=name,
            status="ok",
            score=judgement.score,
            global_score=judgement.global_score,
            local_score=judgement.local_score,
            height=height,
            width=width,
            verdict=None if criteria is None else criteria.verdict(judgement.score).value,
            regions=None if criteria is None or criteria.pixel is None else _regions(judgement, criteria),
            map=None if map_kind == "none" else _encode_map(judgement.anomaly_map, map_kind),
        )


def _judged(outcome: Judgement | BaseException) -> Judgement | Refused:
    if isinstance(outcome, ModelError):
        return Refused(outcome.status, str(outcome))
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _regions(judgement: Judgement, criteria: Criteria) -> list[RegionData]:
    return [RegionData(**region.to_json()) for region in criteria.regions(judgement.score, judgement.anomaly_map)]


def _encode_map(anomaly_map: NDArray[np.float32], kind: MapKind) -> MapData:
    height, width = anomaly_map.shape
    if kind == "npy":
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(anomaly_map, dtype=np.float32), allow_pickle=False)
        data = base64.b64encode(buffer.getvalue()).decode()
        return MapData(encoding="npy", height=height, width=width, data=data)
    data = base64.b64encode(encode_map(quantise(anomaly_map))).decode()
    return MapData(encoding="png", height=height, width=width, data=data)


def _status_of(reason: str) -> int:
    """415 for something that is no image, 413 for too many pixels, 422 for a damaged or unfit image."""
    if reason.startswith("not a PNG"):
        return 415
    return 413 if "more than the limit" in reason or "larger than Pillow allows" in reason else 422


def _reasons(uploads: Sequence[Upload], refused: Sequence[Refused]) -> str:
    if len(refused) == 1:
        return refused[0].reason
    return "; ".join(f"{upload.name}: {item.reason}" for upload, item in zip(uploads, refused, strict=True))[:2000]


def _public(facts: dict[str, Any]) -> dict[str, Any]:
    """What a detector says of itself, without where its files lie."""
    private = ("checkpoint", "references", "calibration", "checkpoint_data")
    return {key: value for key, value in facts.items() if key not in private and not _is_path(value)}


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and (value.startswith(("/", "~", "\\")) or value[1:3] in (":\\", ":/"))
