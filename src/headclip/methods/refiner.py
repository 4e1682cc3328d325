"""A map of patches, drawn finer by what is seen in the cells of each patch.

A patch of 16 px says that there is a crack in it, not where. The refiner is a small convolutional network that sees the
map of patches, what the picture looks like in cells of a quarter of a patch, and a few numbers of each patch's tokens;
what it adds are logits, one a cell. It follows decoders of segmentation networks that join deep and early features (Lin
et al., feature pyramid networks, CVPR 2017); nothing that it learns reaches back into the map that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.clip.cells import NUMBERS, cells_a_side

OF_TOKENS = 24  # numbers a patch that are learnt of its tokens
DILATIONS = (1, 2, 4)  # of the convolutions, in cells: together they see 15 x 15
FLOOR = 0.02  # of a number's spread over the picture, in normalised pixels: what differs by less is noise
LOGIT_SCALE = 4.0  # about how far the logits of a map reach


class Refiner(nn.Module):
    """Logits of patches -> logits of cells. Before it has learnt anything, they are those of the patches, upsampled.

    Args:
        width: of the tokens, of all kinds together. patch: side of a patch in pixels. channels: of its convolutions.
    """

    def __init__(self, width: int, patch: int, channels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.cells = cells_a_side(patch)
        self.reduce = nn.Linear(width, OF_TOKENS)
        self.enter = nn.Conv2d(1 + 2 * NUMBERS + 1 + OF_TOKENS, channels, 1)
        self.around = nn.ModuleList(
            [nn.Conv2d(channels, channels, 3, padding=step, dilation=step) for step in DILATIONS]
        )
        self.mix = nn.ModuleList([nn.Conv2d(channels, channels, 1) for _ in DILATIONS])
        self.leave = nn.Conv2d(channels, 1, 1)
        for layer in (self.reduce, self.enter, *self.around):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        for layer in (*self.mix, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, logits: Tensor, cells: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """(B, rows, columns) logits of patches -> (B, n rows, n columns) of cells, n being `cells_a_side`.

        Args:
            cells: (B, NUMBERS, n rows, n columns), from `picture_cells`.
            tokens: of each kind (B, N, W), the patches by rows.
        """
        coarse = self.up(logits[:, None])
        level = [F.layer_norm(kind.float(), kind.shape[-1:]) for kind in tokens]
        few = self.reduce(torch.cat(level, dim=-1))  # (B, N, OF_TOKENS)
        on_grid = few.transpose(1, 2).unflatten(-1, logits.shape[1:])
        x = self.enter(torch.cat([coarse / LOGIT_SCALE, described(cells), self.up(on_grid)], dim=1))
        for around, mix in zip(self.around, self.mix, strict=True):
            x = x + mix(F.gelu(around(F.gelu(x))))
        return (coarse + self.leave(F.gelu(x)))[:, 0]

    def up(self, patches: Tensor) -> Tensor:
        """(B, C, rows, columns) at the resolution of the cells."""
        return F.interpolate(patches, scale_factor=float(self.cells), mode="bilinear", align_corners=False)


def described(cells: Tensor) -> Tensor:
    """Cells as they are, against mean and spread of their picture, and how rough they are on a scale of ratios."""
    mean = cells.mean(dim=(2, 3), keepdim=True)
    spread = (cells - mean).square().mean(dim=(2, 3), keepdim=True).sqrt()
    rough = (cells[:, -1:] + FLOOR).log()
    return torch.cat([cells, (cells - mean) / (3 * (spread + FLOOR)), rough], dim=1)
