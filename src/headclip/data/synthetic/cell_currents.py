"""Where a solar cell's current goes astray, seen by electroluminescence: the light that is left, (H, W) in [0, 1].

Current comes in by the bars and thins out with the way along the fingers, so what lies far from a working bar is dim;
it is lost where a short circuit drains it, and where moisture eats the contacts, from the rim and the bars inwards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headclip.data.synthetic.cell_faults import Cell
from headclip.data.synthetic.noise import fractal_noise, smooth_noise
from headclip.data.synthetic.shapes import coverage, smoothstep


def _from_bars(cell: Cell) -> Tensor:
    """Pixels to each bar, (bars, H, W)."""
    return torch.stack([(cell.v - place).abs() for place in cell.bars])


def poor_contact(cell: Cell) -> Tensor:
    """One bar without contact, all along or on a part of the way: what it fed is fed from the bars beside it."""
    rng, side = cell.rng, cell.side
    bars = range(len(cell.bars))
    lost = rng.choice([k for k in bars if abs(cell.bars[k]) < cell.seen] or bars)
    away = _from_bars(cell)
    further = away[[k for k in bars if k != lost]].amin(0) - away.amin(0)
    light = torch.exp(-further / (side * rng.log_uniform(0.05, 0.6)) * (1.0 + 0.2 * cell.streaks.clamp(-2.0, 2.0)))
    if rng.chance(0.5):
        middle, half = rng.uniform(-0.9, 0.9) * cell.seen, side * rng.log_uniform(0.06, 0.4)
        part = coverage((cell.u - middle).abs() - half, rng.log_uniform(2.0, 0.15 * side))
        light = 1.0 - part * (1.0 - light)
    return light.clamp(0.0, 1.0)


def shunts(cell: Cell) -> Tensor:
    """One short circuit or a few: dark points whose surroundings are dim, further along the fingers than across."""
    rng, side = cell.rng, cell.side
    light = torch.ones_like(cell.u)
    for _ in range(rng.choice((1, 2, rng.integer(3, 7)), (0.6, 0.2, 0.2))):
        x, y = rng.uniform(-0.9, 0.9) * cell.seen, rng.uniform(-0.9, 0.9) * cell.seen
        reach, stretch = side * rng.log_uniform(0.008, 0.12), rng.log_uniform(1.0, 3.0)
        away = ((cell.u - x).square() + ((cell.v - y) / stretch).square()) / reach**2
        spot = (1.0 + away).pow(-2) if rng.chance(0.5) else torch.exp(-0.5 * away)
        light = light * (1.0 - rng.log_uniform(0.25, 1.0) * spot)
    return light


def corroded(cell: Cell) -> Tensor:
    """Dim places with soft, uneven outlines that grow along one bar or one side, in a part of it or all along."""
    rng, side = cell.rng, cell.side
    if rng.chance(0.5):
        from_there = (cell.v - rng.choice(cell.bars)).abs()
    else:
        one = cell.u if rng.chance(0.5) else cell.v
        from_there = cell.seen - (one if rng.chance(0.5) else -one)
    uneven = fractal_noise(rng, cell.height, cell.width, side * rng.uniform(0.06, 0.3), 3, rng.uniform(0.4, 0.8))
    depth = side * rng.log_uniform(0.03, 0.15)
    inside = uneven - 1.0 - from_there.clamp(min=0.0) / depth + rng.uniform(1.0, 2.2)
    area = smoothstep(0.0, rng.log_uniform(0.15, 2.0), inside)
    thinner = 1.0 + 0.2 * smooth_noise(rng, cell.height, cell.width, side * rng.uniform(0.02, 0.1))
    return (1.0 - rng.log_uniform(0.25, 0.95) * area * thinner.clamp(0.5, 1.5)).clamp(0.0, 1.0)


def uneven_lanes(cell: Cell) -> Tensor:
    """Light of a sound cell whose bars do not carry quite alike: each bar's strip has a tone of its own, about 1."""
    rng = cell.rng
    share = torch.softmax(-_from_bars(cell) / (0.03 * cell.side + 1.0), 0)
    tones = 1.0 + rng.log_uniform(0.005, 0.06) * rng.randn(len(cell.bars))
    return (share * tones[:, None, None]).sum(0)
