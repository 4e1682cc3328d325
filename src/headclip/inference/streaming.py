"""Predictions one after another: for folders too large to hold in memory, and for cameras."""

from __future__ import annotations

import glob
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from headclip.data.discover import discover
from headclip.data.prefetch import BATCH_PIXELS
from headclip.errors import ImageError
from headclip.files import expanded
from headclip.inference.deciding import decided
from headclip.inference.given import ImageLike, given_images, name_of, read
from headclip.judgement.verdicts import Criteria
from headclip.prediction import Prediction, judged_or_refused

MOST_AHEAD = 4  # images read before they are needed; they may be large
OnError = Callable[[ImageLike, ImageError], None]
Given = tuple[ImageLike, np.ndarray]
_Read = tuple[ImageLike, np.ndarray | ImageError]


class Predictor(Protocol):
    """What is needed of a detector."""

    @property
    def criteria(self) -> Criteria | None: ...
    @property
    def batch_size(self) -> int: ...
    def predict_arrays(
        self, images: Sequence[np.ndarray], categories: Sequence[str] | None = None, /
    ) -> list[Prediction]: ...


def stream(
    detector: Predictor, images: Iterable[ImageLike] | ImageLike, on_error: OnError | None = None
) -> Iterator[Prediction]:
    """What `BaseDetector.stream` says."""
    if isinstance(images, str | Path):
        images = _found(images)  # at once, so that a wrong path is an error here and not in a loop later
    return _predictions(detector, given_images(images), on_error or _warn)


def _predictions(detector: Predictor, images: Iterable[ImageLike], on_error: OnError) -> Iterator[Prediction]:
    def judge(batch: Sequence[Given]) -> list[Prediction]:
        return decided(detector.predict_arrays([pixels for _, pixels in batch]), detector.criteria)

    for batch in _batches(detector, images, on_error):
        for (image, _), prediction in judged_or_refused(judge, batch, lambda one, error: on_error(one[0], error)):
            yield replace(prediction, path=name_of(image))


def _batches(detector: Predictor, images: Iterable[ImageLike], on_error: OnError) -> Iterator[list[Given]]:
    """Images that could be read, up to the batch size, which may change on the way, or BATCH_PIXELS."""
    batch: list[Given] = []
    count = 0
    for image, pixels in _read_ahead(images, min(MOST_AHEAD, detector.batch_size - 1)):
        if isinstance(pixels, ImageError):
            on_error(image, pixels)
            continue
        batch.append((image, pixels))
        count += pixels.shape[0] * pixels.shape[1]
        if len(batch) >= detector.batch_size or count >= BATCH_PIXELS:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def _read_ahead(images: Iterable[ImageLike], ahead: int) -> Iterator[_Read]:
    """Every image decoded, or why it cannot be, in order, while up to `ahead` later ones are decoded in threads."""
    each = (one for image in images for one in _files(image))
    with ThreadPoolExecutor(2, thread_name_prefix="headclip-decode") as readers:
        waiting: deque[tuple[ImageLike, Callable[[], np.ndarray | ImageError]]] = deque()
        for image in each:
            waiting.append((image, readers.submit(_tried, image).result))
            if len(waiting) > ahead:
                image, result = waiting.popleft()
                yield image, result()
        while waiting:
            image, result = waiting.popleft()
            yield image, result()


def _tried(image: ImageLike) -> np.ndarray | ImageError:
    try:
        return read(image)
    except ImageError as error:
        return error


def _files(image: ImageLike) -> Iterator[ImageLike]:
    """The images of a folder or a glob; anything else, a missing file too, is one image."""
    if isinstance(image, str | Path):
        path = expanded(image)
        if path.is_dir() or (glob.has_magic(str(image)) and not path.exists()):
            yield from _found(image)
            return
    yield image


def _found(image: str | Path) -> list[ImageLike]:
    return [file.path for file in discover([image])]


def _warn(image: ImageLike, error: ImageError) -> None:
    name = name_of(image) or "an image"
    said = str(error) if str(error).startswith(name) else f"{name}: {error}"
    warnings.warn(f"passed over: {said}", stacklevel=4)
