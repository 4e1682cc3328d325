"""How unlike each patch of a picture is to those of the same picture that are most like it; nothing is learnt.

What has no likeness anywhere in its picture stands out, whatever the picture shows: the oldest idea of visual
saliency (Goferman, Zelnik-Manor and Tal, CVPR 2010; Boiman and Irani, ICCV 2005). It reads pixels rather than
tokens, and so it errs where a tower does not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.clip.rarity import mean_and_deviation, mean_squared_distances, standardised

NEAREST = 3
TYPICAL = 0.4
"""The usual distance, about its geometric mean over patches of rendered pictures."""

SCALES = (1, 2)  # pixels a side of the cells between which differences are taken
FLOOR = 0.04  # of a number's spread, in normalised pixels: what differs by less is noise
LEAST = 0.01  # a distance, where it multiplies odds: an even picture is not certain to be normal


@torch.no_grad()
def neighbour_distance(pixels: Tensor, patch: int) -> Tensor:
    """Mean distance of each patch's description to the NEAREST ones among those of the other patches.

    Args:
        pixels: (B, 3, H, W), normalised; both sides multiples of `patch`.

    Returns:
        (B, rows, columns) float32, at least 0. Where there are fewer others than NEAREST, TYPICAL stands for the rest.
    """
    grid = (pixels.shape[-2] // patch, pixels.shape[-1] // patch)
    with torch.autocast(pixels.device.type, enabled=False):
        found = standardised(describe(pixels.float(), patch), FLOOR)
        distance = found.shape[-1] * mean_squared_distances(found)
        distance = F.pad(distance, (0, NEAREST), value=torch.inf)  # no branch for few patches: a graph has none
        nearest = distance.topk(NEAREST + 1, dim=-1, largest=False).values[..., 1:]  # the first is the patch itself
        nearest = torch.where(nearest.isinf(), TYPICAL**2, nearest)
        return nearest.sqrt().mean(dim=-1).unflatten(1, grid)


def odds_factor(distance: Tensor, power: float) -> Tensor:
    """What a distance multiplies the odds of a patch by: its ratio to the usual one, to a power."""
    return (distance.clamp(min=LEAST) / TYPICAL) ** power


def describe(pixels: Tensor, patch: int) -> Tensor:
    """Mean and deviation over each patch of brightness, two colour differences, and gradient and Laplacian between
    cells of each of SCALES: (B, 3, H, W) -> (B, N, numbers), patches by rows."""
    rows, columns = pixels.shape[-2] // patch, pixels.shape[-1] // patch
    cut = pixels.unflatten(-1, (columns, patch)).unflatten(-3, (rows, patch))  # (B, 3, rows, p, columns, p)
    red, green, blue = cut.permute(1, 0, 2, 4, 3, 5).flatten(2, 3)  # (B, N, p, p) each
    grey = (red + green + blue) / 3
    signals = [grey, red - green, blue - green]
    for scale in SCALES:
        if patch % scale == 0 and patch // scale >= 3:
            cells = _cells(grey, scale)
            signals += [_gradient(cells), _laplacian(cells)]
    return torch.stack([part for signal in signals for part in mean_and_deviation(signal.flatten(2))], dim=-1)


def _cells(grey: Tensor, side: int) -> Tensor:
    """Means over squares of `side` px: sums of slices, which take a third of the time of `mean` over two axes."""
    parts = [grey[..., row::side, column::side] for row in range(side) for column in range(side)]
    return sum(parts[1:], parts[0]) / len(parts)


def _gradient(cells: Tensor) -> Tensor:
    """Magnitude of the differences to the next cell below and to the right."""
    here = cells[..., :-1, :-1]
    return ((cells[..., 1:, :-1] - here).square() + (cells[..., :-1, 1:] - here).square()).sqrt()


def _laplacian(cells: Tensor) -> Tensor:
    """Four times each inner cell less its four neighbours."""
    beside = cells[..., :-2, 1:-1] + cells[..., 2:, 1:-1] + cells[..., 1:-1, :-2] + cells[..., 1:-1, 2:]
    return 4 * cells[..., 1:-1, 1:-1] - beside
