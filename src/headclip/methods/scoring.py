"""From token similarities to an anomaly map and an image score: equations 7, 8, 9 and 12, shared by the methods.

Upsampling and Gaussian smoothing are both linear and separable, so a map is two small matrix products with
operators that are built once per size: up(S) = U_rows S U_columns^T. Smoothing and a final resize to the image's
own resolution fold into the same operators.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

TopLevel = Literal["pixels", "patches"]
LARGEST_KEPT = 2**20  # values of an operator that is kept: 4 MiB


def cosines(features: Tensor, text: Tensor) -> Tensor:
    """Cosine of each feature with the two text vectors, (..., 2), order normal, abnormal.

    Args:
        features: (..., D), any length.
        text: (2, D) unit vectors, order normal, abnormal; or (B, 2, D) with features (B, N, D) or (B, D).
    """
    unit = F.normalize(features.float(), dim=-1)
    text = text.float()
    if text.dim() == 3 and unit.dim() == 2:
        return torch.einsum("bd,bcd->bc", unit, text)
    return unit @ text.transpose(-1, -2)


def similarity(features: Tensor, text: Tensor, temperature: float = 0.07) -> Tensor:
    """Equation 9: softmax over (normal, abnormal) of the cosine divided by the temperature.

    Arguments as for `cosines`.

    Returns:
        (..., 2) probabilities in the order normal, abnormal.
    """
    return (cosines(features, text) / temperature).softmax(dim=-1)


def scaled_odds(probability: Tensor, factor: Tensor) -> Tensor:
    """Probabilities in [0, 1] whose odds p / (1 - p) are multiplied by a factor greater than 0."""
    raised = probability * factor
    return raised / (raised + 1 - probability)


def upsampling_operator(size: int, grid: int) -> Tensor:
    """(size, grid) matrix of 1-D bilinear interpolation with align_corners=False, as in torch; rows sum to 1."""
    identity = torch.eye(grid, dtype=torch.float64).unsqueeze(0)  # (1, grid, grid): one impulse a channel
    return F.interpolate(identity, size=size, mode="linear", align_corners=False)[0].T.contiguous()


def gaussian_operator(size: int, sigma: float, truncate: float = 4.0) -> Tensor:
    """(size, size) matrix of 1-D Gaussian smoothing as in scipy.ndimage.gaussian_filter: mirrored edges that repeat
    the border sample, kernel cut at `truncate` sigmas and normalised to sum to 1."""
    if sigma <= 0:
        return torch.eye(size, dtype=torch.float64)
    radius = int(truncate * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    kernel /= kernel.sum()
    source = torch.arange(size)[:, None] + offsets  # (size, taps), may lie outside
    folded = source.remainder(2 * size)
    folded = torch.where(folded >= size, 2 * size - 1 - folded, folded)
    operator = torch.zeros(size, size, dtype=torch.float64)
    return operator.scatter_add_(1, folded, kernel.expand(size, -1))


def map_operator(grid: int, size: int, sigma: float, output: int | None) -> Tensor:
    """(output or size, grid) float32: upsample to `size`, smooth there, then resize to `output`.

    Those of up to LARGEST_KEPT values are kept for later images of that size: the many sizes of a mixed folder, or
    the large operators of maps that are drawn at the tower's resolution, would fill the memory.
    """
    make = _kept_operator if grid * (output or size) <= LARGEST_KEPT else _make_operator
    return make(grid, size, sigma, output)


@torch.inference_mode(False)  # kept for training too, which cannot use inference tensors
def _make_operator(grid: int, size: int, sigma: float, output: int | None) -> Tensor:
    operator = gaussian_operator(size, sigma) @ upsampling_operator(size, grid)
    if output is not None and output != size:
        operator = upsampling_operator(output, size) @ operator
    return operator.float()


_kept_operator = lru_cache(maxsize=64)(_make_operator)


def grid_to_map(
    values: Tensor, size: tuple[int, int], sigma: float = 0.0, output: tuple[int, int] | None = None
) -> Tensor:
    """Patch values (B, rows, columns) -> smoothed map (B, H, W), equation 12.

    Args:
        size: (H, W) in pixels of the tower's input, at which sigma (in pixels) is meant.
        output: final resolution, the image's own for example; None keeps `size`.
    """
    height, width = output or (None, None)
    rows = map_operator(values.shape[-2], size[0], sigma, height).to(values.device)
    columns = map_operator(values.shape[-1], size[1], sigma, width).to(values.device)
    return rows @ values.float() @ columns.T


def top_share_mean(values: Tensor, share: float) -> Tensor:
    """Equation 7: the mean of the highest `share` (0 to 1] of the values of each map, at least one of them.

    (B, ...) -> (B,).
    """
    flat = values.flatten(1)
    count = max(1, math.floor(flat.shape[1] * share))
    return flat.topk(count, dim=1).values.mean(dim=1)


def joint_score(global_score: Tensor, local_score: Tensor, alpha: float) -> Tensor:
    """Equation 8, the joint anomaly score: (1 - alpha) * global + alpha * local; alpha 0 is the CLS score alone."""
    return (1.0 - alpha) * global_score + alpha * local_score
