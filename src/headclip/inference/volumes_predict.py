"""One volume in, its scores and its anomaly volume out, without a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.volumes.find import open_volume
from headclip.data.volumes.model import VolumeOptions
from headclip.runs.volumes import volume_score


class SliceJudge(Protocol):
    """What is needed of a `Detector`."""

    @property
    def batch_size(self) -> int: ...
    def predict_arrays(self, images: list[NDArray[np.uint8]], /) -> Sequence[Any]: ...


@dataclass(frozen=True)
class VolumePrediction:
    """score: mean of the highest slice scores; slice_scores: (n,) in order; anomaly_volume: float32 in [0, 1], on the
    voxels (i, j, k) of a NIfTI file or DICOM series, (page, H, W) for a TIFF, where pages of other sizes than the
    first are left 0; affine: (4, 4) voxel indices to mm, right, anterior, superior, None for a TIFF; notes: what to
    know about it."""

    score: float
    slice_scores: NDArray[np.float64]
    anomaly_volume: NDArray[np.float32]
    affine: NDArray[np.float64] | None
    notes: tuple[str, ...]


def predict_volume(
    detector: SliceJudge,
    path: str | Path,
    options: VolumeOptions | None = None,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> VolumePrediction:
    """Judge a TIFF, a NIfTI file, a DICOM file or the folder of a DICOM series.

    Slices are read a batch at a time; the anomaly volume is held in memory, 4 bytes a voxel.

    Raises:
        InputError: the path names no volume, or several; a package for its format is missing.
        ImageError: the volume or a slice of it cannot be read.
    """
    options = options or VolumeOptions()
    volume = open_volume(path, options)
    grid, size = volume.grid, max(1, detector.batch_size)
    scores: list[float] = []
    result: NDArray[np.float32] | None = None if grid is None else np.zeros(grid.shape, np.float32, order="F")
    for start in range(0, len(volume.slices), size):
        chosen = volume.slices[start : start + size]
        for number, judged in enumerate(detector.predict_arrays([one.decode(max_pixels) for one in chosen]), start):
            scores.append(float(judged.score))
            if grid is not None and result is not None:
                grid.view(result, number)[:] = _sized(judged.anomaly_map, grid.slice_shape)
                continue
            if result is None:
                result = np.zeros((len(volume.slices), *judged.anomaly_map.shape), np.float32)
            if judged.anomaly_map.shape == result.shape[1:]:
                result[number] = judged.anomaly_map
    assert result is not None  # a volume has a slice
    affine = None if grid is None else _affine(grid.header)
    score = volume_score(scores, options.top_share)[0]
    return VolumePrediction(score, np.asarray(scores), result, affine, volume.notes)


def _sized(anomaly_map: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    if anomaly_map.shape == shape:
        return anomaly_map
    resized = Image.fromarray(anomaly_map).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(resized), 0.0, 1.0)


def _affine(header: bytes) -> NDArray[np.float64]:
    from headclip.data.volumes.nifti import require_nibabel

    nibabel = require_nibabel()
    kind = nibabel.Nifti1Header if len(header) == 348 else nibabel.Nifti2Header
    return np.asarray(kind(header, check=False).get_best_affine(), dtype=np.float64)
