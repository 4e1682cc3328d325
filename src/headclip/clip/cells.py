"""A picture in cells of a few pixels, finer than its patches: by what an anomaly map of patches is drawn finer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NUMBERS = 4
"""Of each cell: the means of red, green and blue, and the deviation of grey."""

_LEAST = 1e-6  # of a variance, so that its root has a slope


def cells_a_side(patch: int) -> int:
    """How many cells lie along one side of a patch of so many pixels: at most 4, and in whole pixels.

    >>> [cells_a_side(patch) for patch in (14, 16, 32)]
    [2, 4, 4]
    """
    return next(count for count in (4, 3, 2, 1) if patch % count == 0)


@torch.no_grad()
def picture_cells(pixels: Tensor, patch: int) -> Tensor:
    """Normalised pixels (B, 3, H, W), both sides multiples of `patch` -> (B, NUMBERS, rows, columns) float32 cells."""
    side = patch // cells_a_side(patch)
    with torch.autocast(pixels.device.type, enabled=False):
        pixels = pixels.float()
        grey = pixels.mean(dim=1, keepdim=True)
        variance = F.avg_pool2d(grey.square(), side) - F.avg_pool2d(grey, side).square()
        return torch.cat([F.avg_pool2d(pixels, side), variance.clamp(min=_LEAST).sqrt()], dim=1)
