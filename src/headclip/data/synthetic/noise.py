"""Random fields, all (H, W) float32 on the generator's device: spline, power-law and cell noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.data.synthetic.base import Rng


def _spline_basis(size: int, cells: int, device: torch.device) -> Tensor:
    """Uniform cubic B-spline weights, (size, cells + 3): row i blends the control points around pixel i."""
    position = (torch.arange(size, device=device) + 0.5) * (cells / size) + 1.0
    distance = (position[:, None] - torch.arange(cells + 3, device=device)[None, :]).abs()
    near = 2.0 / 3.0 - distance.square() * (1.0 - 0.5 * distance)
    far = (2.0 - distance).clamp(min=0.0) ** 3 / 6.0
    return torch.where(distance < 1.0, near, far)


def smooth_noise(rng: Rng, height: int, width: int, cell: float, cell_x: float | None = None) -> Tensor:
    """Noise of mean 0 and deviation about 1 whose bumps are `cell` pixels tall and `cell_x` (or `cell`) wide.

    Two small matrix products interpolate a coarse random grid; that costs a tenth of bicubic resizing.
    """
    rows = max(1, min(height, round(height / cell)))
    columns = max(1, min(width, round(width / (cell if cell_x is None else cell_x))))
    control = rng.randn(rows + 3, columns + 3)
    if rows > 100 and columns > 100:  # fine grain: the products would cost more than a bilinear resize
        return 1.5 * F.interpolate(control[None, None], size=(height, width), mode="bilinear")[0, 0]
    down = _spline_basis(height, rows, rng.device)
    across = _spline_basis(width, columns, rng.device)
    return 2.1 * (down @ control @ across.T)  # (H, rows+3) (rows+3, cols+3) (cols+3, W)


def fractal_noise(
    rng: Rng, height: int, width: int, cell: float, octaves: int = 3, gain: float = 0.5, stretch: float = 1.0
) -> Tensor:
    """Sum of smooth noises at halving cell sizes, unit deviation; `stretch` above 1 lengthens along x."""
    total = torch.zeros(height, width, device=rng.device)
    weight, energy = 1.0, 0.0
    for _ in range(octaves):
        total += weight * smooth_noise(rng, height, width, max(cell, 1.5), max(cell * stretch, 1.5))
        energy += weight * weight
        weight *= gain
        cell *= 0.5
    return total / math.sqrt(energy)


def spectral_noise(
    rng: Rng,
    height: int,
    width: int,
    exponent: float,
    stretch: float = 1.0,
    angle: float = 0.0,
    low: float = 0.0,
) -> Tensor:
    """Noise with amplitude spectrum 1 / f^exponent, unit deviation, `stretch`ed along `angle` (radians).

    `low` (cycles per pixel) removes slower waves, which turns clouds into an even texture.
    """
    fy = torch.fft.fftfreq(height, device=rng.device)[:, None]
    fx = torch.fft.rfftfreq(width, device=rng.device)[None, :]
    if stretch != 1.0:
        cos, sin = math.cos(angle), math.sin(angle)
        radius = ((fx * cos + fy * sin) * stretch).square() + (fy * cos - fx * sin).square()
    else:
        radius = fx.square() + fy.square()
    floor = max(low, 0.5 / max(height, width)) ** 2
    amplitude = (radius + floor) ** (-0.5 * exponent)
    amplitude[0, 0] = 0.0
    field = torch.fft.irfft2(torch.fft.rfft2(rng.randn(height, width)) * amplitude, s=(height, width))
    return standardise(field)


def standardise(field: Tensor) -> Tensor:
    """Zero mean, unit deviation."""
    field = field - field.mean()
    return field / field.square().mean().sqrt().clamp(min=1e-6)


def cell_noise(rng: Rng, u: Tensor, v: Tensor, jitter: float = 0.8) -> tuple[Tensor, Tensor, Tensor]:
    """Worley noise: distances to the nearest and the second seed, and the nearest one's number.

    u, v: (H, W) in cell units, one jittered seed per unit cell. Numbers are int64 below 4096.
    """
    size = 64
    seeds = rng.rand(2, size, size) * jitter + 0.5 * (1.0 - jitter)
    base_u, base_v = u.floor(), v.floor()
    part_u, part_v = u - base_u, v - base_v
    cell = (base_v.long() & (size - 1)) * size + (base_u.long() & (size - 1))
    flat = cell.reshape(-1)
    first = torch.full_like(u, 9.0)
    second = torch.full_like(u, 9.0)
    winner = torch.zeros_like(cell)
    for dv in (-1, 0, 1):
        for du in (-1, 0, 1):
            near = seeds.roll((-dv, -du), (1, 2)).reshape(2, -1)  # the table as that neighbour sees it
            gap_u = near[0].index_select(0, flat).view_as(u).sub_(part_u).add_(du)
            gap_v = near[1].index_select(0, flat).view_as(u).sub_(part_v).add_(dv)
            distance = gap_u.square_().add_(gap_v.square_())
            winner = torch.where(distance < first, dv * size + du, winner)
            second = torch.minimum(second, torch.maximum(first, distance))
            first = torch.minimum(first, distance)
    winner = (cell + winner) & (size * size - 1)
    return first.sqrt(), second.sqrt(), winner


def patches(rng: Rng, x: Tensor, y: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Voronoi patches of few seeds, exact at any scale: patch id and distance to the nearest patch border.

    x, y: (H, W) coordinates; seeds: (K, 2) as (x, y), K below about 80. Returns int64 and float (H, W),
    the distance in the units of x and y.
    """
    height, width = x.shape
    points = torch.stack([x.reshape(-1), y.reshape(-1), torch.ones_like(x).reshape(-1)], dim=1)  # (H*W, 3)
    weights = torch.cat([2.0 * seeds, -seeds.square().sum(1, keepdim=True)], dim=1)  # (K, 3)
    closeness = points @ weights.T  # (H*W, K): |x|^2 - squared distance
    best, winner = closeness.max(dim=1)
    closeness.scatter_(1, winner[:, None], -math.inf)
    next_best, runner = closeness.max(dim=1)
    gap = (seeds[winner] - seeds[runner]).square().sum(1).sqrt().clamp(min=1e-6)
    border = (best - next_best) / (2.0 * gap)
    return winner.reshape(height, width), border.reshape(height, width)


def enlarged(field: Tensor, height: int, width: int) -> Tensor:
    """A field drawn on every second pixel, back at full size; halves cost of dear fields four times."""
    return F.interpolate(field[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0]
