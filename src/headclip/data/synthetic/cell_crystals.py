"""Silicon under current: the light that a sound wafer's own growth leaves.

Many crystals, from an ingot: what dims them is where carriers recombine, at dislocations, which multiply in some grains
along their slip planes and gather in regions of the ingot, at borders of grains that impurities have decorated, and at
the ingot's own rim. One crystal, drawn from a melt: rings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.cell_faults import Cell
from headclip.data.synthetic.noise import fractal_noise, patches, smooth_noise, spectral_noise
from headclip.data.synthetic.shapes import smoothstep, turned

SLIPS = 3  # directions of slip that the grains of one picture share


@dataclass
class Grains:
    """number (H, W): which grain a pixel lies in, below `count`; border (H, W): pixels to the nearest other one."""

    number: Tensor
    border: Tensor
    count: int

    def each(self, values: Tensor) -> Tensor:
        """(H, W): a value for each grain, where the grain is."""
        return values[self.number]


def grains_of(cell: Cell) -> Grains:
    """Few large ones or many small ones, drawn out one way by the ingot's growth, with uneven borders."""
    rng, side = cell.rng, cell.side
    count = round(rng.log_uniform(12, 79))
    stretch, angle = rng.log_uniform(1.0, 3.0), rng.uniform(0.0, math.pi)
    rough = side * rng.log_uniform(0.004, 0.03)
    x, y = turned(cell.u, cell.v, angle)
    x = x / stretch + rough * fractal_noise(rng, cell.height, cell.width, side * rng.uniform(0.03, 0.15), 3, 0.6)
    y = y + rough * smooth_noise(rng, cell.height, cell.width, side * rng.uniform(0.03, 0.15))
    reach = 0.75 * torch.tensor([max(cell.u.shape) / stretch, max(cell.u.shape)], device=x.device)
    number, border = patches(rng, x, y, (2.0 * rng.rand(count, 2) - 1.0) * reach)
    return Grains(number, border, count)


def _network(rng: Rng, height: int, width: int, mesh: float, angle: float) -> Tensor:
    """Walls of dislocations, about [0, 1.5]: broken, wandering dark lines `mesh` pixels apart, along one direction."""
    stretch = rng.log_uniform(1.0, 4.0)
    walls = torch.zeros(height, width, device=rng.device)
    for scale, weight in ((1.0, 1.0), (0.5, 0.5)):
        field = spectral_noise(rng, height, width, rng.uniform(1.0, 2.0), stretch, angle, scale * 0.7 / mesh)
        walls = walls + weight * torch.exp(-(field / rng.log_uniform(0.08, 0.4)).square())
    whole = smooth_noise(rng, height, width, mesh * rng.uniform(0.4, 1.0))
    return walls * smoothstep(-0.6, 1.0, whole)


def dislocations(cell: Cell, grains: Grains) -> Tensor:
    """Their density, (H, W) from 0 to about 1: nothing in most grains, walls and dense cores in others."""
    rng, side, height, width = cell.rng, cell.side, cell.height, cell.width
    mesh = side * rng.log_uniform(0.015, 0.12)
    start = rng.uniform(0.0, math.pi)
    slips = [_network(rng, height, width, mesh, start + k * rng.uniform(0.5, 1.6)) for k in range(SLIPS)]
    slip = grains.each((rng.rand(grains.count) * SLIPS).long().clamp(max=SLIPS - 1))
    walls = torch.stack(slips).gather(0, slip[None])[0]
    size = side * rng.log_uniform(0.02, 0.15)
    flecks = fractal_noise(rng, height, width, size, 4, rng.uniform(0.6, 0.95), rng.log_uniform(0.5, 2.0))
    level = rng.uniform(-0.4, 1.2)
    cores = smoothstep(level, level + rng.log_uniform(0.3, 2.0), flecks)
    share = rng.uniform(0.2, 1.0)
    ill = grains.each((rng.rand(grains.count) < share).float() * (0.2 + 0.8 * rng.rand(grains.count)))
    region = smoothstep(-1.8, 0.9, smooth_noise(rng, height, width, side * rng.uniform(0.25, 0.8)))
    mixed = rng.uniform(0.0, 1.0)
    return (mixed * walls + (1.0 - mixed) * cores + 0.5 * walls * cores) * ill * region


def _ingot_rim(cell: Cell) -> Tensor:
    """Darkness in [0, 1] along one or two neighbouring sides, for wafers cut from the ingot's edge or corner."""
    rng, side = cell.rng, cell.side
    dark = torch.zeros_like(cell.u)
    for one in (cell.u, cell.v)[: rng.choice((1, 2), (0.7, 0.3))]:
        inwards = cell.seen + (one if rng.chance(0.5) else -one)
        uneven = 0.3 * smooth_noise(rng, cell.height, cell.width, side * rng.uniform(0.1, 0.4))
        depth = side * rng.log_uniform(0.02, 0.2)
        dark = torch.maximum(dark, torch.exp(-(inwards / depth + uneven).clamp(min=0.0)))
    return dark


def _twins(cell: Cell, grains: Grains) -> Tensor:
    """Brightness about 0: some grains are striped by straight twin bands."""
    rng, side = cell.rng, cell.side
    along, _ = turned(cell.u, cell.v, rng.uniform(0.0, math.pi))
    pitch = side * rng.log_uniform(0.01, 0.08)
    edges = rng.rand(4096).cumsum(0) * 2.0 * pitch
    band = torch.bucketize((along - along.amin()).contiguous(), edges)
    striped = grains.each((rng.rand(grains.count) < rng.uniform(0.1, 0.5)).float())
    return striped * rng.randn(4097)[band]


def _precipitates(cell: Cell) -> Tensor:
    """Darkness in [0, 1] of many small round specks."""
    rng, side = cell.rng, cell.side
    dark = torch.zeros_like(cell.u)
    reach = side * rng.log_uniform(0.004, 0.012)
    for _ in range(rng.integer(8, 40)):
        x, y = rng.uniform(-1.0, 1.0) * cell.seen, rng.uniform(-1.0, 1.0) * cell.seen
        away = ((cell.u - x).square() + (cell.v - y).square()) / (reach * rng.uniform(0.5, 1.5)) ** 2
        dark = torch.maximum(dark, rng.uniform(0.2, 1.0) * torch.exp(-away))
    return dark


def crystals(cell: Cell) -> Tensor:
    """The share of its light that a sound multicrystalline wafer gives, (H, W) in (0, 1.2]."""
    rng = cell.rng
    grains = grains_of(cell)
    taken = rng.log_uniform(0.2, 2.5) * dislocations(cell, grains)
    decorated = grains.each((rng.rand(grains.count) < rng.uniform(0.0, 0.8)).float() * rng.rand(grains.count))
    decorated = decorated * smoothstep(-1.0, 1.0, smooth_noise(rng, cell.height, cell.width, 0.1 * cell.side))
    thin = rng.log_uniform(0.4, 2.0) * max(1.0, cell.side / 300)
    taken = taken + rng.log_uniform(0.1, 0.7) * decorated * torch.exp(-grains.border / thin)
    if rng.chance(0.4):
        taken = taken + rng.log_uniform(0.2, 1.5) * _ingot_rim(cell)
    if rng.chance(0.2):
        taken = taken + rng.log_uniform(0.2, 2.0) * _precipitates(cell)
    light = 1.0 / (1.0 + taken)
    tone = rng.log_uniform(0.005, 0.08) * grains.each(rng.randn(grains.count))
    if rng.chance(0.3):
        tone = tone + rng.log_uniform(0.005, 0.05) * _twins(cell, grains)
    return (light * (1.0 + tone)).clamp(0.02, 1.2)


def rings(cell: Cell) -> Tensor:
    """Tone about 0 of one crystal drawn from a melt: rings about the middle of the wafer, and a middle of its own."""
    rng, side = cell.rng, cell.side
    reach = rng.choice((0.02, rng.uniform(0.0, 0.5))) * side
    angle = rng.uniform(0.0, 2.0 * math.pi)
    away = torch.hypot(cell.u - reach * math.cos(angle), cell.v - reach * math.sin(angle))
    line = smooth_noise(rng, 1, 512, 1, rng.log_uniform(4.0, 60.0))[0]
    place = (away / (1.2 * side) * 511.0).clamp(0.0, 511.0).long()
    middle = torch.exp(-0.5 * (away / (side * rng.uniform(0.12, 0.5))).square())
    return rng.log_uniform(0.004, 0.04) * line[place] + rng.uniform(-0.12, 0.08) * middle
