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
from headclip.clip.rarity import Rarity


class Detail(nn.Module):
    """Filters on the cells of a patch, rectified and compressed as contrast is by the eye, then one linear map.

    It adds to the patch embedding; a `mix` of zeros adds nothing. With `rarity`, how unlike the answers of each patch
    are to those of the others is added too (`clip.rarity`).
    """

    def __init__(self, width: int, filters: int, patch_size: int, rarity: bool = False) -> None:
        super().__init__()
        cell = patch_size // CELLS
        self.filters = nn.Conv2d(3, filters, cell, stride=cell)
        self.mix = nn.Parameter(torch.zeros(width, filters * CELLS**2))
        self.rarity = Rarity(width, filters) if rarity else None

    def answers(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, H, W), sides multiples of the patch -> (B, N, filters, cells), N patches by rows."""
        answers = torch.log1p(F.relu(self.filters(pixels)))  # (B, F, 4 * rows, 4 * columns)
        cells = answers.unflatten(-1, (-1, CELLS)).unflatten(-3, (-1, CELLS))  # (B, F, rows, 4, columns, 4)
        return cells.permute(0, 2, 4, 1, 3, 5).flatten(-2).flatten(1, 2)

    def forward(self, answers: Tensor) -> Tensor:
        """(B, N, filters, cells) -> (B, N, width)."""
        tokens = F.linear(answers.flatten(2), self.mix)
        return tokens if self.rarity is None else tokens + self.rarity(answers)
