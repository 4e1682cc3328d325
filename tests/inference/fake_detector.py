"""A detector without a model: the same picture always gets the same map and score, in no time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FakePrediction:
    score: float
    global_score: float
    local_score: float
    anomaly_map: NDArray[np.float32]


class FakeDetector:
    """Maps are the picture's brightness / 255, scores the map's mean. `seconds` makes each image slow."""

    def __init__(self, backbone: str = "fake", batch_size: int = 4, seconds: float = 0.0) -> None:
        self.backbone = backbone
        self.batch_size = batch_size
        self.seconds = seconds
        self.batches: list[int] = []

    def describe(self) -> dict[str, Any]:
        return {"backbone": {"name": self.backbone, "hash": "0" * 64}, "method": "fake", "image_size": 240}

    def predict_arrays(self, images: Sequence[NDArray[np.uint8]], /) -> list[FakePrediction]:
        self.batches.append(len(images))
        time.sleep(self.seconds * len(images))
        return [self._predict(image) for image in images]

    def _predict(self, image: NDArray[np.uint8]) -> FakePrediction:
        anomaly_map = image.astype(np.float32).mean(axis=2) / np.float32(255.0)  # (H, W)
        score = float(anomaly_map.mean())
        return FakePrediction(score, score / 2, score / 3, anomaly_map)
