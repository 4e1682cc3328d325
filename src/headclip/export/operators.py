"""Resizing and smoothing as products with small matrices that are computed inside a graph, for any image size.

No exchange format promises the resize that our preprocessing does (bicubic, antialiased, rounded to whole levels),
and engines differ in what they offer. Products with matrices are the same everywhere. Positions are kept as whole
numbers for as long as possible, so that float32 suffices for images of any size; sizes may be symbols of
`torch.export`, hence no branch and no cache here.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

SizeLike = int  # or torch.SymInt, while a graph is being captured
_MOST_BITS = 22
_CUBIC = -0.5  # Keys' coefficient, as in Pillow and in torch with antialiasing


def as_tensor(size: SizeLike) -> Tensor:
    """A size, symbolic or not, as an int64 tensor without axes: engines compute with those."""
    return torch.ones((), dtype=torch.int64) * size


def bilinear_operator(size: SizeLike, grid: SizeLike) -> Tensor:
    """(size, grid) float32 matrix of 1-D bilinear interpolation with align_corners=False; rows sum to 1.

    Equal to `headclip.methods.scoring.upsampling_operator` but for rounding to float32.
    """
    source = ((2 * torch.arange(size) + 1) * grid - size).clamp(min=0)  # in units of 1 / (2 * size) grid steps
    source = torch.minimum(source, 2 * size * (as_tensor(grid) - 1))
    distance = (source[:, None] - 2 * size * torch.arange(grid)).abs()  # (size, grid)
    return (1 - distance.float() / (2 * size)).clamp(min=0)


def smoothed(operator: Tensor, size: SizeLike, sigma: float, truncate: float = 4.0) -> Tensor:
    """An operator (size, grid) followed by Gaussian smoothing as in `headclip.methods.scoring.gaussian_operator`."""
    if sigma <= 0:
        return operator
    radius = int(truncate * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).float()
    period = 2 * as_tensor(size)
    source = (torch.arange(size + 2 * radius) - radius).remainder(period)
    source = torch.minimum(source, period - 1 - source)  # mirrored edges that repeat the border sample
    columns = operator[source].T[:, None]  # (grid, 1, size + 2 * radius)
    return F.conv1d(columns, kernel[None, None])[:, 0].T  # (size, grid)


def resample_levels(levels: Tensor, patches: SizeLike, patch: int) -> Tensor:
    """The first axis of 8-bit levels, bicubic with antialiasing, rounded to whole levels.

    The very arithmetic of torch on uint8: weights in whole numbers of 2**-bits, sums that float32 holds exactly
    (but for images reduced more than sixteenfold), one rounding. The axis is worked off in blocks of one patch, each
    of which reads a short stretch of the source: a matrix of (target, source) would be mostly zero.

    Args:
        levels: (L, ...), whole numbers 0 to 255 of any type.

    Returns:
        (patches * patch, ...) float32, whole numbers 0 to 255.
    """
    length, size = levels.shape[0], patches * patch
    larger = torch.sym_max(length, size)
    span = (patch - 1) * length // size + 4 * larger // size + 3  # source samples that one patch can read
    first = (torch.arange(patches) * patch * 2 + 1) * length - 4 * larger  # in units of 1 / (2 * size) samples
    start = torch.div(first, 2 * as_tensor(size), rounding_mode="floor")
    source = start[:, None] + torch.arange(span)  # (patches, span), may lie outside
    target = torch.arange(size).reshape(patches, patch)
    distance = (2 * source[:, None] + 1) * size - (2 * target[:, :, None] + 1) * length  # (patches, patch, span)
    inside = ((source >= 0) & (source < length))[:, None]
    weights = cubic(distance.double() / (2 * larger)) * inside
    weights = weights / weights.sum(dim=-1, keepdim=True)
    bits = torch.arange(1, _MOST_BITS + 1, dtype=torch.float32)
    unit = torch.exp2((0.5 + weights.max() * torch.exp2(bits) < 2.0**15).float().sum())
    whole = torch.sign(weights) * torch.floor(weights.abs() * unit + 0.5)
    nearest = torch.minimum(source.clamp(min=0), as_tensor(length) - 1)
    blocks = levels[nearest].flatten(2).float()  # (patches, span, lines)
    sums = whole.float() @ blocks  # (patches, patch, lines)
    return torch.floor(sums / unit.float() + 0.5).clamp(0, 255).reshape(size, *levels.shape[1:])


def top_mean(flat: Tensor, share: float, *, fixed: bool) -> Tensor:
    """`headclip.methods.scoring.top_share_mean` of (B, n), with the number of values that count found in the graph.

    fixed: n is always the same.
    """
    if fixed:
        return flat.topk(max(1, math.floor(flat.shape[1] * share)), dim=1).values.mean(dim=1)
    exact = as_tensor(flat.shape[1]).double() * torch.tensor(share, dtype=torch.float64)
    count = cast(int, torch.floor(exact).clamp(min=1).long().item())
    torch._check(count >= 1)
    torch._check(count <= flat.shape[1])
    return flat.topk(count, dim=1).values.mean(dim=1)


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel."""
    x = x.abs()
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _CUBIC
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
