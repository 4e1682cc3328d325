"""Large images at their own resolution: overlapping tiles, blended into one map, and the whole image for context."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from headclip.clip.preprocess import resize
from headclip.errors import InputError
from headclip.inference.base import BaseDetector
from headclip.inference.deciding import Thresholds, criteria_of, decided
from headclip.inference.given import ImageLike, check_arrays, check_count, given_images, name_of, read
from headclip.inference.roi import Roi, judged_within
from headclip.prediction import Prediction

OVERLAP = 0.25


class Tiled(Protocol):
    """What is needed of a `Detector` or an `ExportedDetector`."""

    @property
    def batch_size(self) -> int: ...
    @property
    def image_size(self) -> int: ...
    @property
    def method(self) -> Any: ...
    def input_size(self, height: int, width: int) -> tuple[int, int]: ...
    def predict_arrays(
        self, images: Sequence[np.ndarray], categories: Sequence[str] | None = None
    ) -> list[Prediction]: ...
    def describe(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Axis:
    """Where tiles lie along one side of an image. starts: first pixel of each; size: of all of them.

    weights: (tiles, size) float32, how much each tile says of each of its pixels; over all tiles that see a pixel
    they sum to 1.
    """

    starts: tuple[int, ...]
    size: int
    weights: np.ndarray


class TiledDetector(BaseDetector):
    """A detector that sees images larger than the tower's input in tiles, at their own resolution.

    The map is that of the tiles, blended by a window that falls smoothly to their edges. The score keeps the context
    of the whole image: its global part is that of the image as a whole, shrunk as without tiles; its local part is
    the mean of the map's highest values, as many of them as make the method's share of one tile, so that a small
    defect counts as much as in an image of a tile's size. Smaller images go the usual way.

    Scores of images judged in tiles and of those judged whole are not on the same scale: a calibration holds for the
    way in which its images were judged.

    Args:
        detector: a `Detector` or an `ExportedDetector`, of a method whose score has a global and a local part.
        overlap: of neighbouring tiles, as a share of their size, 0 to 0.75.
        tile: side of a tile in pixels of the image; None takes the tower's own, at which nothing is rescaled.
        calibration: thresholds as of `Detector`, made from images judged in such tiles.

    Raises:
        InputError: an overlap or tile size that does not make sense, or a method that joins its score otherwise.

    Example:
        >>> import numpy as np
        >>> from headclip.inference.detector import Detector
        >>> tiled = TiledDetector(Detector(device="cpu"), tile=96)
        >>> tiled.predict_arrays([np.zeros((120, 200, 3), np.uint8)])[0].anomaly_map.shape
        (120, 200)
    """

    def __init__(
        self,
        detector: Tiled,
        overlap: float = OVERLAP,
        tile: int | None = None,
        calibration: Thresholds | None = None,
    ) -> None:
        if not 0 <= overlap <= 0.75:
            raise InputError(
                f"tile overlap {overlap}: choose 0 to 0.75, the share of a tile that its neighbour sees too"
            )
        if tile is not None and not 32 <= tile <= 4096:
            raise InputError(f"tile size {tile}: choose 32 to 4096 px")
        config = detector.describe()["config"]
        if not {"alpha", "top_share", "normalise_map"} <= config.keys():
            raise InputError(
                f"{detector.method.name} joins its image score in a way of its own, which tiles would change; "
                "run it without --tile, or use a method such as headclip or anomalyclip"
            )
        compared = [name for name in ("peers", "references") if detector.describe().get(name)]
        if compared:
            option = {"peers": "--peers", "references": "--reference"}[compared[0]]
            raise InputError(f"tiles are parts of images, and {compared[0]} whole ones; leave --tile or {option} out")
        if config["normalise_map"] != "none":
            raise InputError("tiles need maps of one scale; leave --tile or --set normalise_map=image out")
        self.detector, self.overlap, self.tile = detector, overlap, tile or detector.image_size
        if getattr(detector, "criteria", None) is not None:
            raise InputError("the detector's thresholds are those of whole images; give TiledDetector a calibration")
        self.roi: Roi | None = getattr(detector, "roi", None)
        self._whole: Callable[..., list[Prediction]] = getattr(detector, "predict_whole", detector.predict_arrays)
        self.alpha, self.top_share = float(config["alpha"]), float(config["top_share"])
        self.criteria = None if calibration is None else criteria_of(calibration, self.describe())

    @property
    def batch_size(self) -> int:
        """Images, or tiles, a pass."""
        return self.detector.batch_size

    @property
    def method(self) -> Any:
        """The method of the detector inside."""
        return self.detector.method

    def describe(self) -> dict[str, Any]:
        """The facts of the detector inside, and the tiles."""
        return {**self.detector.describe(), "tiles": {"size": self.tile, "overlap": self.overlap}}

    def predict(
        self, images: Iterable[ImageLike] | ImageLike, categories: Sequence[str] | None = None
    ) -> list[Prediction]:
        """As `Detector.predict`; images are read one after another, since they may be large."""
        given = list(given_images(images))
        check_count(given, categories)
        names = [None] * len(given) if categories is None else [[category] for category in categories]
        return [
            replace(decided(self.predict_arrays([read(image)], name), self.criteria)[0], path=name_of(image))
            for image, name in zip(given, names, strict=True)
        ]

    def predict_arrays(self, images: Sequence[np.ndarray], categories: Sequence[str] | None = None) -> list[Prediction]:
        """Decoded images, (H, W, 3) uint8 -> one prediction each, in order.

        Raises:
            InputError: another kind of array, or not one category for each image.
            ImageError: an image does not hold the region of interest of the detector inside.
        """
        check_arrays(images, categories)
        return judged_within(self.roi, images, lambda parts: self._predict_parts(parts, categories))

    def _predict_parts(self, images: Sequence[np.ndarray], categories: Sequence[str] | None) -> list[Prediction]:
        small = [i for i, image in enumerate(images) if max(image.shape[:2]) <= self.tile]
        names = [] if categories is None else [[categories[i] for i in small]]
        whole = self._whole([images[i] for i in small], *names) if small else []
        found = dict(zip(small, whole, strict=True))
        for index, image in enumerate(images):
            if index not in found:
                found[index] = self._predict_tiled(image, None if categories is None else categories[index])
        return [found[index] for index in range(len(images))]

    def _predict_tiled(self, image: np.ndarray, category: str | None) -> Prediction:
        height, width = image.shape[:2]
        shrunk = resize(image, self.detector.input_size(height, width)).permute(1, 2, 0).numpy()
        context = self._judge([np.ascontiguousarray(shrunk)], category)[0]
        anomaly_map = self._blend(image, category)
        pixels = min(self.tile, height) * min(self.tile, width)
        count = max(1, math.floor(pixels * self.top_share))
        flat = anomaly_map.ravel()
        local = float(np.partition(flat, flat.size - count)[flat.size - count :].mean(dtype=np.float64))
        score = (1 - self.alpha) * context.global_score + self.alpha * local
        return Prediction(score, context.global_score, local, anomaly_map)

    def _blend(self, image: np.ndarray, category: str | None) -> np.ndarray:
        """(H, W) float32: the tiles' maps, each times its window. Only a batch of tiles is held at a time."""
        rows, columns = (tile_axis(length, self.tile, self.overlap) for length in image.shape[:2])
        blended = np.zeros(image.shape[:2], np.float32)
        for places in _batches([(i, j) for i in range(len(rows.starts)) for j in range(len(columns.starts))], self):
            spans = [
                (
                    slice(rows.starts[i], rows.starts[i] + rows.size),
                    slice(columns.starts[j], columns.starts[j] + columns.size),
                )
                for i, j in places
            ]
            found = self._judge([np.ascontiguousarray(image[span]) for span in spans], category)
            for (i, j), span, prediction in zip(places, spans, found, strict=True):
                blended[span] += prediction.anomaly_map * rows.weights[i][:, None] * columns.weights[j]
        return np.clip(blended, 0, 1, out=blended)

    def _judge(self, images: list[np.ndarray], category: str | None) -> list[Prediction]:
        if category is None:
            return self._whole(images)
        return self._whole(images, [category] * len(images))


def tile_axis(length: int, tile: int, overlap: float) -> Axis:
    """As few tiles as cover `length` pixels and overlap by at least that share, evenly spread.

    >>> tile_axis(600, 256, 0.25).starts
    (0, 172, 344)
    """
    size = min(tile, length)
    step = max(1, math.floor(size * (1 - overlap)))
    count = 1 + math.ceil((length - size) / step)
    starts = tuple(round(index * (length - size) / max(1, count - 1)) for index in range(count))
    centre = (np.arange(size) + 0.5) / size
    window = np.sin(np.pi * centre) ** 2 + 1e-3  # never zero: some pixels at the border are seen by one tile alone
    total = np.zeros(length)
    for start in starts:
        total[start : start + size] += window
    weights = np.stack([window / total[start : start + size] for start in starts])
    return Axis(starts, size, weights.astype(np.float32))


def _batches(places: list[tuple[int, int]], detector: TiledDetector) -> Iterator[list[tuple[int, int]]]:
    for start in range(0, len(places), detector.batch_size):
        yield places[start : start + detector.batch_size]
