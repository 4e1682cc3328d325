"""Solar cells by electroluminescence: bright silicon, dark bars, normal clouds, and what kills a cell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.noise import enlarged, fractal_noise, patches, smooth_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import Ink, box, coverage, pixel_grid, ramp, segment, smoothstep, turned
from headclip.data.synthetic.surfaces_grid import grid_scene


@dataclass
class _Cell:
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

    def lane(self) -> tuple[float, float]:
        """From where to where across the bars one strip between two of them, or a bar and the edge, reaches."""
        edges = [-self.half, *self.bars, self.half]
        one = self.rng.integer(0, len(edges) - 2)
        return edges[one], edges[one + 1]


def _clouds(cell: _Cell) -> Tensor:
    """Dislocations of multicrystalline silicon, in [0, 1]: ragged dark flecks, denser in some grains than in others."""
    rng, u, v, side, height, width = cell.rng, cell.u, cell.v, cell.side, cell.height, cell.width
    size = side * rng.log_uniform(0.015, 0.12)
    flecks = fractal_noise(rng, height, width, size, 4, rng.uniform(0.6, 1.0), rng.log_uniform(0.4, 2.5))
    count = rng.integer(4, 30)
    seeds = (rng.rand(count, 2) - 0.5) * 1.1 * torch.tensor([width, height], device=u.device)
    warp = side * 0.04 * smooth_noise(rng, height, width, side * rng.uniform(0.05, 0.2))
    grain, _ = patches(rng, (u + warp)[::2, ::2], (v + warp)[::2, ::2], seeds)
    dense = enlarged(rng.randn(count)[grain], height, width)
    level = rng.uniform(0.2, 1.6) - rng.uniform(0.0, 0.8) * dense
    return smoothstep(0.0, rng.uniform(0.3, 1.5), flecks - level)


def _bars(cell: _Cell) -> Tensor:
    """How much of the light the bars take, (H, W) in [0, 1]: whole lines, dashes or lines with thick places."""
    rng, side = cell.rng, cell.side
    half = side * rng.log_uniform(0.003, 0.015)
    reach = cell.half * rng.choice((1.0, rng.uniform(0.85, 0.98)))
    period, shift = side * rng.uniform(0.1, 0.35), rng.uniform(0.0, 1.0)
    phase = ((cell.u / period + shift) % 1.0 - 0.5).abs()
    dash = coverage((phase - 0.5 * rng.uniform(0.5, 0.9)) * period, 2.0)
    style = rng.choice(("whole", "dashes", "thick"), (0.4, 0.3, 0.3))
    faint, taken = rng.uniform(0.1, 0.6), torch.zeros_like(cell.u)
    for place in cell.bars:
        away = (cell.v - place).abs()
        if style == "thick":
            line = coverage(away - half * (0.5 + dash), 1.5)
        else:
            line = coverage(away - half, 1.5) * ((faint + dash).clamp(max=1.0) if style == "dashes" else 1.0)
        taken = torch.maximum(taken, line)
    return taken * coverage(cell.u.abs() - reach, 3.0) * rng.uniform(0.35, 0.95)


def _silicon(cell: _Cell, poly: bool) -> Tensor:
    """How bright the living cell is without bars and rim, (H, W): one crystal, or many (poly) with their clouds."""
    rng, side, height, width = cell.rng, cell.side, cell.height, cell.width
    gap = 2.0 * cell.half / len(cell.bars)
    glow = torch.cos(2.0 * math.pi * cell.v / gap + math.pi * (len(cell.bars) % 2 + 1))
    value = rng.uniform(0.5, 0.95) + rng.uniform(-0.12, 0.08) * glow
    value = value + rng.log_uniform(0.004, 0.06) * cell.streaks
    value = value - rng.log_uniform(0.01, 0.12) * smooth_noise(rng, height, width, side * rng.uniform(0.2, 0.7))
    if poly:
        value = value * (1.0 - rng.log_uniform(0.05, 0.75) * _clouds(cell))
        value = value + rng.log_uniform(0.005, 0.06) * fractal_noise(rng, height, width, side * 0.02, 3, 0.8)
    return value


@scene("electroluminescence", weight=1.9)
def electroluminescence(rng: Rng, height: int, width: int) -> Scene:
    """A solar cell under current: as bright as it is alive (by daylight: `surfaces_metal.solar_cell`)."""
    side = min(height, width)
    x, y = pixel_grid(rng, height, width)
    upright = rng.chance(0.25)  # bars from top to bottom
    u, v = turned(x, y, 0.5 * math.pi * upright + rng.normal(0.0, 0.006))
    half = 0.5 * side * (rng.uniform(0.92, 1.02) if rng.chance(0.8) else rng.uniform(1.1, 1.8))
    count = rng.integer(2, 5)
    bars = [(k - 0.5 * (count - 1)) * 2.0 * half / count + rng.normal(0.0, 0.004) * side for k in range(count)]
    long, thin = side * rng.uniform(0.15, 0.6), max(1.5, side * rng.log_uniform(0.004, 0.02))
    streaks = smooth_noise(rng, height, width, *((thin, long) if upright else (long, thin)))
    cell = _Cell(rng, u, v, bars, half, streaks)
    poly = rng.chance(0.6)
    value = _silicon(cell, poly)
    rim = (half - torch.maximum(u.abs(), v.abs())).clamp(min=0.0)
    value = value * (1.0 - rng.uniform(0.0, 0.5) * torch.exp(-rim / (side * rng.log_uniform(0.01, 0.06))))
    corner = half * (rng.uniform(0.0, 0.05) if poly else rng.uniform(0.12, 0.35))
    outline = box(u, v, half, half, corner) if abs(height - width) < 0.2 * side else torch.full_like(u, -side)
    alive = coverage(outline, rng.uniform(1.5, 4.0))
    dark = _bars(cell)
    outside = rng.uniform(0.0, 0.4)
    noise = rng.log_uniform(0.004, 0.05) * rng.randn(height, width)
    ink = Ink(rng, 0.0, 0.95)
    black, white = ink.shade(0.0, 0.15), ink.shade(0.45, 1.0)

    def compose(light: Tensor | float) -> Tensor:
        tone = value * (1.0 - dark) * light * alive + outside * (1.0 - alive) + noise
        return ramp(tone.clamp(-0.1, 1.1), black, white)

    changes = {
        "dead area": lambda: compose(_dead_area(cell)),
        "cell crack": lambda: compose(_cracks(cell, poly)),
        "finger interruption": lambda: compose(_dim_fingers(cell)),
        "dark edge": lambda: compose(_dark_edge(cell)),
    }
    noun = rng.choice(["solar cell", "solar cell", "photovoltaic cell", "silicon cell", "solar module"])
    made = grid_scene(rng, compose(1.0), "electroluminescence", noun, ink, changes)
    made.foreground = alive > 0.5
    return made


def _dead_area(cell: _Cell) -> Tensor:
    """A region cut off from the current: between bars and cracks, dark, its ends straight or ragged."""
    rng, side = cell.rng, cell.side
    low, high = cell.lane()
    middle, length = rng.uniform(-0.8, 0.8) * cell.half, side * rng.log_uniform(0.05, 0.5)
    ragged = (
        side * rng.log_uniform(0.002, 0.04) * smooth_noise(rng, cell.height, cell.width, side * rng.uniform(0.03, 0.2))
    )
    inside = torch.minimum(torch.minimum(cell.v - low, high - cell.v), 0.5 * length - (cell.u - middle).abs() + ragged)
    for _ in range(rng.integer(0, 3)):  # cut by a crack
        angle = rng.choice((-1.0, 1.0)) * rng.uniform(0.4, 1.2) + rng.choice((0.0, math.pi))
        across = (cell.u - middle) * math.sin(angle) + (cell.v - 0.5 * (low + high)) * math.cos(angle)
        inside = torch.minimum(inside, across + ragged + rng.uniform(0.0, 0.5) * length)
    depth = rng.log_uniform(0.2, 1.0)
    alpha = coverage(-inside, rng.uniform(1.0, 4.0))
    return 1.0 - depth * alpha * (1.0 - 0.15 * cell.streaks.clamp(-1.0, 1.0))


def _cracks(cell: _Cell, poly: bool) -> Tensor:
    """Thin dark lines: along the crystal's diagonals, crossing, or wandering where there are many crystals."""
    rng, side = cell.rng, cell.side
    bend = (0.04 if poly else 0.008) * side * smooth_noise(rng, cell.height, cell.width, side * rng.uniform(0.08, 0.25))
    x, y = rng.uniform(-0.8, 0.8) * cell.half, rng.uniform(-0.8, 0.8) * cell.half
    light = torch.ones_like(cell.u)
    start = 0.25 * math.pi + rng.normal(0.0, 0.05) if rng.chance(0.6) else rng.uniform(0.0, math.pi)
    for k in range(rng.choice((1, 2, 3), (0.55, 0.35, 0.1))):
        angle = start + k * (0.5 * math.pi if rng.chance(0.7) else rng.uniform(0.3, 2.0))
        ahead, behind = side * rng.log_uniform(0.08, 0.7), side * rng.choice((0.0, rng.log_uniform(0.05, 0.5)))
        cos, sin = math.cos(angle), math.sin(angle)
        far = segment(
            cell.u + bend, cell.v + bend, x - behind * cos, y - behind * sin, x + ahead * cos, y + ahead * sin, 0.0
        )
        width = rng.log_uniform(0.5, 0.006 * side + 0.6)
        light = light * (1.0 - rng.log_uniform(0.12, 0.9) * coverage(far - width, 1.5))
    return light


def _dim_fingers(cell: _Cell) -> Tensor:
    """Fingers that carry no current: a streaked, dim block between two bars, with a sharp or a fading end."""
    rng, side = cell.rng, cell.side
    low, high = cell.lane()
    if rng.chance(0.5):  # from one bar only a part of the way
        share = rng.uniform(0.3, 0.9)
        low, high = (low, low + share * (high - low)) if rng.chance(0.5) else (high - share * (high - low), high)
    middle, half = rng.uniform(-0.95, 0.95) * cell.half, 0.5 * side * rng.log_uniform(0.012, 0.2)
    along = coverage((cell.u - middle).abs() - half, rng.log_uniform(1.0, 0.5 * half + 1.5))
    across = coverage(torch.maximum(low - cell.v, cell.v - high), rng.log_uniform(1.0, 0.1 * side))
    return 1.0 - rng.log_uniform(0.12, 0.8) * along * across * (1.0 + 0.4 * cell.streaks).clamp(0.2, 1.3)


def _dark_edge(cell: _Cell) -> Tensor:
    """A small dead place at the rim or a corner of the cell."""
    rng, side = cell.rng, cell.side
    u, v = (cell.u, cell.v) if rng.chance(0.5) else (cell.v, cell.u)
    at, from_rim = rng.uniform(-1.0, 1.0) * cell.half, cell.half - (v if rng.chance(0.5) else -v)
    reach = side * rng.log_uniform(0.025, 0.18)
    ragged = 0.2 * reach * smooth_noise(rng, cell.height, cell.width, max(2.0, 0.5 * reach))
    away = (u - at).abs() * rng.log_uniform(0.4, 1.5)
    shape = torch.maximum(away, from_rim) if rng.chance(0.5) else away + from_rim
    return 1.0 - rng.log_uniform(0.3, 1.0) * coverage(shape + ragged - reach, rng.uniform(1.0, 4.0))
