"""The result for one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """What was found in one image.

    score: image score in [0, 1], higher is more anomalous; joined from global_score (whole image) and local_score
        (the highest share of the map). anomaly_map: float32 (H, W) in [0, 1] at the image's own resolution.
    path: where the image came from, None for one given as an array.
    """

    score: float
    global_score: float
    local_score: float
    anomaly_map: np.ndarray
    path: str | None = None

    @property
    def height(self) -> int:
        return int(self.anomaly_map.shape[0])

    @property
    def width(self) -> int:
        return int(self.anomaly_map.shape[1])
