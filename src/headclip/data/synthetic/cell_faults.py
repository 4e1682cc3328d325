"""What kills a solar cell, seen by electroluminescence: how much light is left where, (H, W) in [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.noise import patches, smooth_noise
from headclip.data.synthetic.shapes import coverage, segment


@dataclass
class Cell:
    """Coordinates in pixels along (u) and across (v) the bars, (H, W); the bars' places across and the half width of
    the cell; `streaks` (H, W): its fingers' own unevenness, of deviation 1."""

    rng: Rng
    u: Tensor
    v: Tensor
    bars: list[float]
    half: float
    streaks: Tensor

    @property
    def height(self) -> int:
        return self.u.shape[0]

    @property
    def width(self) -> int:
        return self.u.shape[1]

    @property
    def side(self) -> int:
        return min(self.u.shape)

    @property
    def seen(self) -> float:
        """How far from the middle the cell reaches inside the picture."""
        return min(self.half, 0.5 * self.side)

    def lane(self) -> tuple[float, float]:
        """From where to where across the bars one strip between two of them, or a bar and the edge, reaches; at least a
        twentieth of the picture's short side of it is seen."""
        edges = [-self.half, *self.bars, self.half]
        strips = list(pairwise(edges))
        broad = [one for one in strips if min(one[1], self.seen) - max(one[0], -self.seen) > 0.05 * self.side]
        return self.rng.choice(broad or strips)


def dead_area(cell: Cell) -> Tensor:
    """Regions cut off from the current, one to three of them."""
    light = _cut_off(cell)
    for _ in range(cell.rng.choice((0, 1, 2), (0.7, 0.2, 0.1))):
        light = torch.minimum(light, _cut_off(cell))
    return light


def _cut_off(cell: Cell) -> Tensor:
    """One region between bars and cracks, dark, its ends straight or ragged."""
    rng, side = cell.rng, cell.side
    low, high = cell.lane()
    middle, length = rng.uniform(-0.8, 0.8) * cell.seen, side * rng.log_uniform(0.05, 0.5)
    rough = min(side * rng.log_uniform(0.002, 0.04), 0.1 * length)
    ragged = rough * smooth_noise(rng, cell.height, cell.width, side * rng.uniform(0.03, 0.2))
    inside = torch.minimum(torch.minimum(cell.v - low, high - cell.v), 0.5 * length - (cell.u - middle).abs() + ragged)
    for _ in range(rng.integer(0, 3)):  # cut by a crack
        angle = rng.choice((-1.0, 1.0)) * rng.uniform(0.4, 1.2) + rng.choice((0.0, math.pi))
        across = (cell.u - middle) * math.sin(angle) + (cell.v - 0.5 * (low + high)) * math.cos(angle)
        inside = torch.minimum(inside, across + ragged + rng.uniform(0.1, 0.5) * length)
    depth = rng.log_uniform(0.2, 1.0)
    alpha = coverage(-inside, rng.uniform(1.0, 4.0))
    return 1.0 - depth * alpha * (1.0 - 0.15 * cell.streaks.clamp(-1.0, 1.0))


def cracks(cell: Cell, poly: bool) -> Tensor:
    """Thin dark lines: along the crystal's diagonals, crossing, or wandering where there are many crystals; from one
    place, or all over the cell."""
    rng, side = cell.rng, cell.side
    bend = (0.04 if poly else 0.008) * side * smooth_noise(rng, cell.height, cell.width, side * rng.uniform(0.08, 0.25))
    x, y = rng.uniform(-0.8, 0.8) * cell.seen, rng.uniform(-0.8, 0.8) * cell.seen
    light = torch.ones_like(cell.u)
    start = 0.25 * math.pi + rng.normal(0.0, 0.05) if rng.chance(0.6) else rng.uniform(0.0, math.pi)
    scattered = rng.chance(0.3)
    for k in range(rng.choice((1, 2, 3, rng.integer(4, 9)), (0.45, 0.3, 0.1, 0.15))):
        if scattered and k:
            x, y = rng.uniform(-0.9, 0.9) * cell.seen, rng.uniform(-0.9, 0.9) * cell.seen
        angle = start + k * (0.5 * math.pi if rng.chance(0.7) else rng.uniform(0.3, 2.0))
        ahead, behind = side * rng.log_uniform(0.08, 0.7), side * rng.choice((0.0, rng.log_uniform(0.05, 0.5)))
        cos, sin = math.cos(angle), math.sin(angle)
        far = segment(
            cell.u + bend, cell.v + bend, x - behind * cos, y - behind * sin, x + ahead * cos, y + ahead * sin, 0.0
        )
        width = rng.log_uniform(0.5, 0.006 * side + 0.6)
        light = light * (1.0 - rng.log_uniform(0.12, 0.9) * coverage(far - width, 1.5))
    return light


def shattered(cell: Cell) -> Tensor:
    """Broken all over: cracks that meet, and some of the pieces between them dim or dead."""
    rng, side = cell.rng, cell.side
    count = rng.integer(4, 24)
    seeds = (rng.rand(count, 2) - 0.5) * 2.2 * cell.half
    bend = side * rng.uniform(0.01, 0.05) * smooth_noise(rng, cell.height, cell.width, side * rng.uniform(0.06, 0.25))
    piece, border = patches(rng, cell.u + bend, cell.v + bend, seeds)
    width, depth = rng.log_uniform(0.5, 0.006 * side + 0.6), rng.uniform(0.3, 0.9)
    light = 1.0 - depth * coverage(border - width, 1.5)
    dim = rng.uniform(0.1, 1.0) * (rng.rand(count) < rng.uniform(0.1, 0.45)).float() * (0.4 + 0.6 * rng.rand(count))
    return light * (1.0 - dim[piece])


def dim_fingers(cell: Cell) -> Tensor:
    """Fingers that carry no current: streaked blocks between two bars, clearly darker than the cell."""
    light = 1.0 - cell.rng.log_uniform(0.3, 0.9) * _block(cell)
    for _ in range(cell.rng.choice((0, cell.rng.integer(1, 5)), (0.6, 0.4))):
        light = torch.minimum(light, 1.0 - cell.rng.log_uniform(0.2, 0.9) * _block(cell))
    return light


def faint_fingers(cell: Cell) -> Tensor:
    """The same, hardly darker than the cell: sound cells have them too."""
    light = torch.ones_like(cell.u)
    for _ in range(cell.rng.integer(1, 10)):
        light = light * (1.0 - cell.rng.log_uniform(0.02, 0.2) * _block(cell, narrow=0.003))
    return light


def _block(cell: Cell, narrow: float = 0.012) -> Tensor:
    """A streaked block of fingers between two bars or from one bar, with sharp or fading ends, about [0, 1.3]; the
    narrowest has a share `narrow` of the picture's short side."""
    rng, side = cell.rng, cell.side
    low, high = cell.lane()
    if rng.chance(0.5):  # from one bar only a part of the way
        share = rng.uniform(0.3, 0.9)
        low, high = (low, low + share * (high - low)) if rng.chance(0.5) else (high - share * (high - low), high)
    middle, half = rng.uniform(-0.95, 0.95) * cell.seen, 0.5 * side * rng.log_uniform(narrow, 0.2)
    along = coverage((cell.u - middle).abs() - half, rng.log_uniform(1.0, 0.5 * half + 1.5))
    across = coverage(torch.maximum(low - cell.v, cell.v - high), rng.log_uniform(1.0, 0.1 * side))
    return along * across * (1.0 + 0.4 * cell.streaks).clamp(0.2, 1.3)


def dark_edge(cell: Cell) -> Tensor:
    """A small dead place at the rim or a corner of the cell."""
    rng, side = cell.rng, cell.side
    u, v = (cell.u, cell.v) if rng.chance(0.5) else (cell.v, cell.u)
    along, rim = (min(cell.half, float(one.abs().amax())) for one in (u, v))  # as far as the picture shows the cell
    at, from_rim = rng.uniform(-1.0, 1.0) * along, rim - (v if rng.chance(0.5) else -v)
    reach = side * rng.log_uniform(0.025, 0.18)
    ragged = 0.2 * reach * smooth_noise(rng, cell.height, cell.width, max(2.0, 0.5 * reach))
    away = (u - at).abs() * rng.log_uniform(0.4, 1.5)
    shape = torch.maximum(away, from_rim) if rng.chance(0.5) else away + from_rim
    return 1.0 - rng.log_uniform(0.3, 1.0) * coverage(shape + ragged - reach, rng.uniform(1.0, 4.0))
