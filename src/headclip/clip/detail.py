"""A second way into a vision tower, for what is finer than a patch.

One linear map of a whole patch, which is how a ViT begins, answers to brightness and shapes; it can hardly tell how
rough a patch is, since grain changes its sign from pixel to pixel. Here small filters look at cells of a quarter of a
patch, and what enters the token is how much each of them answers, whatever the sign.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.clip.config import CELLS


class Detail(nn.Module):
    """Filters on the cells of a patch, rectified and compressed as contrast is by the eye, then one linear map.

    It adds to the patch embedding; a `mix` of zeros adds nothing.
    """

    def __init__(self, width: int, filters: int, patch_size: int) -> None:
        super().__init__()
        cell = patch_size // CELLS
        self.filters = nn.Conv2d(3, filters, cell, stride=cell)
        self.mix = nn.Parameter(torch.zeros(width, filters * CELLS**2))

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W), sides multiples of the patch -> (B, width, rows, columns)."""
        answers = torch.log1p(F.relu(self.filters(pixels)))  # (B, F, 4 * rows, 4 * columns)
        return F.conv2d(answers, self.mix.unflatten(1, (-1, CELLS, CELLS)), stride=CELLS)
