"""Whether an exported graph does what the eager model does: measured on images, at the end of every export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headclip.data.decode import as_rgb
from headclip.data.discover import discover
from headclip.errors import ImageError, InputError
from headclip.inference.detector import Detector
from headclip.inference.exported import Engine, ExportedDetector

# OpenVINO computes the weights of the resize in float32 even where the graph says float64: now and then a pixel that
# enters the tower differs by one level of 255.
TOLERANCE: dict[Engine, float] = {"onnx": 5e-4, "torch": 5e-4, "openvino": 2e-3}
_RENDERED = ((256, 256), (180, 420), (500, 220))
_SEED = 700_001


@dataclass(frozen=True)
class Parity:
    """Largest differences between the exported and the eager model.

    images: how many; source: which. anomaly_map, score: largest difference over pixels and images; mean_map: mean
    difference of the image where it is largest. flips: images on the other side of `threshold`, which is the
    calibration's or, without one, amid the eager scores, where flips are likeliest.
    """

    images: int
    source: str
    anomaly_map: float
    mean_map: float
    score: float
    flips: int
    threshold: float
    threshold_from: str
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether both differences lie within the tolerance; NaN does not."""
        return bool(self.anomaly_map <= self.tolerance and self.score <= self.tolerance)

    def lines(self) -> list[str]:
        """The report in words."""
        return [
            f"parity on {self.images} images ({self.source}), tolerance {self.tolerance:g}: "
            f"{'within' if self.ok else 'OUT OF TOLERANCE'}",
            f"  largest map difference {self.anomaly_map:.2e} (largest mean over a map {self.mean_map:.2e})",
            f"  largest score difference {self.score:.2e}",
            f"  labels that flip at {self.threshold:.4f} ({self.threshold_from}): {self.flips}",
        ]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


def measure_parity(
    eager: Detector,
    exported: ExportedDetector,
    images: Sequence[np.ndarray],
    source: str,
    tolerance: float | None = None,
) -> Parity:
    """Judge decoded images with both. Images of equal size share a batch, so several batch sizes are tried.

    tolerance: largest difference of a map value or a score; None takes the engine's in TOLERANCE.

    Raises:
        InputError: no image is given.
    """
    if not images:
        raise InputError("no image to check the export with; name a folder with --check, or leave it out")
    maps, means, scores = [], [], []
    for start in range(0, len(images), 8):
        part = list(images[start : start + 8])
        for one, other in zip(eager.predict_arrays(part), exported.predict_arrays(part), strict=True):
            difference = np.abs(one.anomaly_map - other.anomaly_map)
            maps.append(float(difference.max()))
            means.append(float(difference.mean()))
            scores.append((one.score, other.score))
    first, second = np.array(scores).T
    threshold, origin = _threshold(exported.describe().get("calibration"), first)
    return Parity(
        images=len(images),
        source=source,
        anomaly_map=float(np.max(maps)),
        mean_map=float(np.max(means)),
        score=float(np.abs(first - second).max()),
        flips=int(((first > threshold) != (second > threshold)).sum()),
        threshold=threshold,
        threshold_from=origin,
        tolerance=TOLERANCE[exported.engine] if tolerance is None else tolerance,
    )


def check_images(folder: Path | None, most: int) -> tuple[list[np.ndarray], str]:
    """Images to check with, and what they are: up to `most` spread over a folder, else rendered ones.

    Raises:
        InputError: the folder holds no image that can be read.
    """
    if folder is None:
        return list(_rendered(most)), "rendered"
    files = list(discover([folder]))
    images = []
    for index in sorted(set(np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int).tolist())):
        try:
            images.append(as_rgb(files[index].path))
        except ImageError:
            continue
    if not images:
        raise InputError(f"--check {folder}: none of its images can be read")
    return images, str(folder)


def _rendered(most: int) -> Iterator[np.ndarray]:
    from headclip.data.synthetic import SyntheticDataset

    for number, size in enumerate(_RENDERED):
        count = (most + len(_RENDERED) - 1 - number) // len(_RENDERED)
        if count:
            data = SyntheticDataset(_SEED + number, count, size)
            yield from (data[index].image.permute(1, 2, 0).contiguous().numpy() for index in range(count))


def _threshold(calibration: Mapping[str, Any] | None, scores: np.ndarray) -> tuple[float, str]:
    image = (calibration or {}).get("image")
    if isinstance(image, Mapping) and isinstance(image.get("threshold"), int | float):
        return float(image["threshold"]), "of the calibration"
    ordered = np.unique(scores)
    middle = ordered[max(0, len(ordered) // 2 - 1) :][:2].mean()  # between two images, not on one
    return float(middle), "amid the eager scores; there is no calibration"
