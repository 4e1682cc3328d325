"""How unlike each patch of a picture is to the rest of that picture, told to a vision tower with its tokens.

On a surface that is alike everywhere, what is rare is what is wrong; a tower would need attention over all patches to
find that out, and much training to learn to. Here it is computed: each patch is described by what the detail filters
answer in its cells, the descriptions are measured against their mean and spread over the picture, and Gaussian kernels
(Parzen, 1962) estimate how many other patches are like each. What to make of it, the tower learns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BANDWIDTHS = (0.1, 0.3, 1.0, 3.0)
"""Squared widths of the kernels, for mean squared distances between descriptions of spread 1."""

FLOOR = 0.05  # of a description's spread: what differs by less than that is noise
MOST = 6.0  # spreads from the mean: what lies beyond counts as this far
SPREAD = 1.25  # standard deviations a mean absolute deviation, of a normal distribution


def signals(filters: int) -> int:
    """How many numbers describe a patch."""
    return 2 * filters + 2 * len(BANDWIDTHS)


def describe(answers: Tensor) -> Tensor:
    """How each patch deviates from the others of its picture.

    Args:
        answers: (B, N, filters, cells), what detail filters answer in the cells of each patch.

    Returns:
        (B, N, signals(filters)) float32: mean and deviation of each filter over the cells, in spreads from the
        picture's mean and at most MOST; then the negative log of the share of patches that are alike, at each of
        BANDWIDTHS, from 0 to log N, and the same less its mean over the picture.
    """
    found = standardised(torch.cat(mean_and_deviation(answers.detach().float()), dim=-1), FLOOR)  # (B, N, 2F)
    distance = mean_squared_distances(found)
    rare = torch.stack([-torch.exp(distance / -width).mean(dim=-1).log() for width in BANDWIDTHS], dim=-1)
    return torch.cat([found, rare, rare - rare.mean(dim=1, keepdim=True)], dim=-1)


def mean_and_deviation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Over the last axis; `Tensor.std` takes three times as long."""
    mean = values.mean(dim=-1, keepdim=True)
    return mean[..., 0], (values - mean).square().mean(dim=-1).sqrt()


def standardised(found: Tensor, floor: float) -> Tensor:
    """Each number of descriptions (B, N, C) in spreads from its mean over the picture, at most MOST."""
    found = found - found.mean(dim=1, keepdim=True)
    return (found / (SPREAD * found.abs().mean(dim=1, keepdim=True) + floor)).clamp(-MOST, MOST)


def mean_squared_distances(found: Tensor) -> Tensor:
    """Mean squared differences between descriptions (B, N, C) -> (B, N, N)."""
    square = found.square().mean(dim=-1)
    products = found @ found.transpose(1, 2) / found.shape[-1]
    return (square[:, :, None] + square[:, None, :] - 2 * products).clamp(min=0)


class Rarity(nn.Module):
    """A linear map from what `describe` says to tokens, to be added to the patch embedding; zeros add nothing."""

    def __init__(self, width: int, filters: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(width, signals(filters)))

    def forward(self, answers: Tensor) -> Tensor:
        """(B, N, filters, cells) -> (B, N, width)."""
        with torch.autocast(answers.device.type, enabled=False):
            described = describe(answers)
        return F.linear(described.to(self.mix.dtype), self.mix)
