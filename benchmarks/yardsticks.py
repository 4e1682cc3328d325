"""A detector that learns nothing, to measure the embedded model against: patches unlike the rest of their own image.

Each patch of 16 px (every 8 px) is described by means and deviations of brightness, two colour differences, gradient
magnitude and Laplacian of Gaussian at three scales. Its anomaly is the mean distance to its three nearest neighbours
among the patches of the same image that do not overlap it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import cdist

from headclip.clip.preprocess import input_size, resize
from headclip.prediction import Prediction

PATCH, STRIDE, NEIGHBOURS, TOP_SHARE = 16, 8, 3, 0.01
SCALES = (1.0, 2.0, 4.0)
FLOOR = 0.01  # of the range of brightness: smaller differences are noise


def channels(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) in [0, 1] -> (9, H, W) responses."""
    grey = image.mean(axis=2)
    found = [grey, image[..., 0] - image[..., 1], image[..., 2] - image[..., 1]]
    for sigma in SCALES:
        found.append(sigma * ndimage.gaussian_gradient_magnitude(grey, sigma))
        found.append(sigma**2 * ndimage.gaussian_laplace(grey, sigma))
    return np.stack(found)


def patch_features(image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """(H, W, 3) in [0, 1] -> (patches, 18) features, each divided by its spread in this image, and the patch grid."""
    windows = np.lib.stride_tricks.sliding_window_view(channels(image), (PATCH, PATCH), axis=(1, 2))
    windows = windows[:, ::STRIDE, ::STRIDE]  # (9, rows, columns, 16, 16)
    values = np.concatenate([windows.mean(axis=(3, 4)), windows.std(axis=(3, 4))])  # (18, rows, columns)
    grid = values.shape[1:]
    flat = values.reshape(len(values), -1).T
    middle = np.median(flat, axis=0)
    return flat / (1.4826 * np.median(np.abs(flat - middle), axis=0) + FLOOR), (grid[0], grid[1])


def neighbour_distance(features: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(patches, F) -> (rows, columns): mean distance to the nearest patches that share no pixel."""
    distances = cdist(features, features)
    rows, columns = np.divmod(np.arange(len(features)), grid[1])
    reach = PATCH // STRIDE
    close = (np.abs(rows[:, None] - rows) < reach) & (np.abs(columns[:, None] - columns) < reach)
    distances[close] = np.inf
    nearest = np.partition(distances, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return nearest.mean(axis=1).reshape(grid)


class PatchNeighbours:
    """The same interface as `headclip.Detector`, as far as `headclip.evaluation` uses it."""

    method = SimpleNamespace(uses_category=False)
    batch_size = 4

    def __init__(self, image_size: int = 256, least_side: float = 0.0) -> None:
        self.image_size, self.least_side = image_size, least_side

    def describe(self) -> dict[str, Any]:
        return {"method": "patch neighbours", "backbone": "none", "image_size": self.image_size, "checkpoint": None}

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        return input_size(
            height, width, image_size=self.image_size, patch=PATCH, keep_aspect=True, least_side=self.least_side
        )

    def predict_arrays(self, images: Sequence[np.ndarray], categories: object = None) -> list[Prediction]:
        return [self._predict(image) for image in images]

    def _predict(self, image: np.ndarray) -> Prediction:
        small = resize(image, self.input_size(*image.shape[:2])).permute(1, 2, 0).numpy() / 255
        distance = neighbour_distance(*patch_features(small))
        anomaly = (1 - np.exp(-distance / 10)).astype(np.float32)  # any rising function into [0, 1] ranks the same
        top = np.sort(anomaly, axis=None)[-max(1, round(TOP_SHARE * anomaly.size)) :]
        at = [
            ((np.arange(side) + 0.5) * few / side - PATCH / 2) / STRIDE  # patch 0 is centred half a patch in
            for side, few in zip(image.shape[:2], small.shape[:2], strict=True)
        ]
        whole = ndimage.map_coordinates(anomaly, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")
        score = float(top.mean())
        return Prediction(score, score, score, whole.clip(0, 1).astype(np.float32))
