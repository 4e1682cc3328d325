"""A labelled set of noisy pictures with bright defects, and a detector without a model that scores brightness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.fake_detector import FakeDetector, FakePrediction
from inference.test_peers import write_alike


class _Method:
    uses_category = False


class FakeEvaluated(FakeDetector):
    """Maps are brightness / 255, so that direct computation needs nothing but the files."""

    image_size, method = 28, _Method()

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        return self.image_size, self.image_size

    def __init__(self, training: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.training = training

    def predict_arrays(self, images: Sequence[NDArray[np.uint8]], /, *, resized: bool = False) -> list[FakePrediction]:
        """`resized` changes nothing: maps have the size of what is given."""
        return super().predict_arrays(images)

    def describe(self) -> dict[str, Any]:
        facts = {"backbone": "fake", "backbone_hash": "0" * 64, "method": "fake", "image_size": self.image_size}
        return facts | {"checkpoint": None, "checkpoint_data": self.training, "keep_aspect": False}


def picture(path: Path, seed: int, box: tuple[int, int, int, int] | None = None, size=(40, 32)) -> Path:
    """Noise of (width, height) = size, brighter inside the box of rows and columns."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 120 + 5 * (seed % 7), (size[1], size[0], 3), dtype=np.uint8)
    if box is not None:
        inside = (slice(box[0], box[1]), slice(box[2], box[3]))
        pixels[inside] = np.minimum(pixels[inside].astype(int) + 60 + seed % 5 * 15, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, box: tuple[int, int, int, int], size=(40, 32)) -> Path:
    """White inside the box."""
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[box[0] : box[1], box[2] : box[3]] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_set(root: Path, categories=("cup", "nut"), normal=4, defects=5, seed=0) -> Path:
    """MVTec folders: `normal` good and `defects` bent images of each category, with masks."""
    for number, name in enumerate(categories):
        base = root / name
        for index in range(normal):
            picture(base / "test" / "good" / f"{index}.png", seed + 100 * number + index)
        for index in range(defects):
            box = (4 + index, 14 + index, 6, 16 + 2 * index)
            picture(base / "test" / "bent" / f"{index}.png", seed + 100 * number + 50 + index, box)
            mask(base / "ground_truth" / "bent" / f"{index}_mask.png", box)
    return root


def write_kinds(base: Path, good: int, bent: Sequence[int]) -> Path:
    """Two categories: bars, `good` normal ones and four more of which those in `bent` have a ring; and noise, five
    normal images and three with a bright part. What one kind has in common the other lacks."""
    write_alike(base / "bars" / "test" / "good", good, spot=())
    write_alike(base / "bars" / "test" / "bent", 4, spot=tuple(bent))
    for index in range(5):
        picture(base / "noise" / "test" / "good" / f"{index}.png", index, size=(96, 96))
    for index in range(3):
        picture(base / "noise" / "test" / "bent" / f"{index}.png", 50 + index, (20, 50, 20, 60), size=(96, 96))
    return base


def brightness(path: Path) -> np.ndarray:
    """The map that the detector gives."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(np.float32).mean(axis=2) / np.float32(255.0)
