"""Several detectors on one backbone: what they have in common of the vision pass is computed once an image."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headclip.clip.streams import Stream, run_streams
from headclip.errors import InputError
from headclip.inference.detector import Detector
from headclip.inference.given import batches_of_one_size, check_arrays
from headclip.memory import in_halves
from headclip.prediction import Prediction


@dataclass(frozen=True)
class Piece:
    """Predictions of one detector for some of the images given.

    indices: which of them; seconds: what they took, a shared pass counting for each detector in equal parts.
    """

    label: str
    indices: list[int]
    predictions: list[Prediction]
    seconds: float


class PassGroup:
    """Detectors whose methods are served by one vision pass, or a single one that runs by itself.

    Results equal those of each detector alone, to rounding: the pass is the same, but for the order of some sums.
    """

    def __init__(self, detectors: Mapping[str, Detector]) -> None:
        self.detectors = dict(detectors)
        self.first = next(iter(self.detectors.values()))

    @property
    def batch_size(self) -> int:
        """Images a pass."""
        return min(detector.batch_size for detector in self.detectors.values())

    def pieces(
        self,
        images: Sequence[np.ndarray],
        categories: Sequence[str] | None = None,
        labels: Collection[str] | None = None,
        *,
        resized: bool = False,
    ) -> Iterator[Piece]:
        """Decoded images, (H, W, 3) uint8 -> the predictions of each detector, batch by batch as they are made.

        labels: the detectors that are wanted; None means all. resized: as in `Detector.predict_arrays`.
        """
        wanted = {name: detector for name, detector in self.detectors.items() if labels is None or name in labels}
        if len(wanted) == 1:
            ((label, alone),) = wanted.items()
            started = time.perf_counter()
            given = () if categories is None else (categories,)
            said: dict[str, Any] = {"resized": True} if resized else {}
            predictions = alone.predict_arrays(images, *given, **said)
            yield Piece(label, list(range(len(images))), predictions, time.perf_counter() - started)
            return

        def judge(chosen: Sequence[int]) -> list[Piece]:
            names = None if categories is None else [categories[i] for i in chosen]
            given = [images[i] for i in chosen]
            size = images[chosen[0]].shape[:2]
            enters = size if resized else self.first.input_size(*size)
            return list(self._batch(given, enters, size, names, list(chosen), wanted))

        for _, chosen in batches_of_one_size(images, self.batch_size):
            yield from in_halves(judge, chosen, self._go_on_with)

    def _go_on_with(self, images: int) -> None:
        for detector in self.detectors.values():
            detector.go_on_with(images)

    def _batch(
        self,
        images: list[np.ndarray],
        size: tuple[int, int],
        output: tuple[int, int],
        names: list[str] | None,
        indices: list[int],
        wanted: Mapping[str, Detector],
    ) -> Iterator[Piece]:
        started = time.perf_counter()
        with torch.no_grad():
            pixels = self.first.pixels(images, size)
            found = run_streams(self.first.backbone.vision, pixels, [_stream(d) for d in wanted.values()])
        if self.first.device.type == "cuda":
            torch.cuda.synchronize(self.first.device)  # else the first method would be charged for the pass
        share = (time.perf_counter() - started) / len(wanted)
        for (label, detector), tokens in zip(wanted.items(), found, strict=True):
            started = time.perf_counter()
            with torch.no_grad():  # not around the yield: what runs in between is somebody else's
                scores = detector.method.score(tokens, detector.batch_text(names), size, output)
                predictions = detector.as_predictions(scores)
            yield Piece(label, indices, predictions, share + time.perf_counter() - started)


def group_by_pass(detectors: Mapping[str, Detector]) -> list[PassGroup]:
    """Detectors by what they need of the vision pass, in order; the labels tell them apart.

    Together run those that share a loaded backbone (the same object), input size and the way position embeddings
    are resized, if all that their methods need is a single pass: CSA layers, taps and head weights may differ.

    Raises:
        InputError: no detector.
    """
    if not detectors:
        raise InputError("no method to run; name at least one")
    if len(detectors) == 1:
        return [PassGroup(detectors)]
    groups: dict[tuple[object, ...], dict[str, Detector]] = {}
    for label, detector in detectors.items():
        groups.setdefault(_needs(label, detector), {})[label] = detector
    return [PassGroup(group) for group in groups.values()]


def predict_methods(
    detectors: Mapping[str, Detector], images: Sequence[np.ndarray], categories: Sequence[str] | None = None
) -> dict[str, list[Prediction]]:
    """Decoded images, (H, W, 3) uint8 -> for each detector one prediction each, in order.

    Raises:
        InputError: as `group_by_pass` and `Detector.predict_arrays`.
    """
    check_arrays(images, categories)
    results: dict[str, dict[int, Prediction]] = {label: {} for label in detectors}
    for group in group_by_pass(detectors):
        for piece in group.pieces(images, categories):
            results[piece.label].update(zip(piece.indices, piece.predictions, strict=True))
    return {label: [found[index] for index in range(len(images))] for label, found in results.items()}


def _needs(label: str, detector: Detector) -> tuple[object, ...]:
    """Equal for detectors that one pass can serve."""
    stream = detector.method.stream()
    if stream is None:
        return ("alone", label)
    side = detector.backbone.config.vision.image_size
    native = not detector.keep_aspect and detector.input_size(1, 1) == (side, side)  # no embedding is resized
    interpolation = None if native else stream.request.interpolation
    return (id(detector.backbone), detector.image_size, detector.keep_aspect, interpolation)


def _stream(detector: Detector) -> Stream:
    stream = detector.method.stream()
    assert stream is not None
    return stream
