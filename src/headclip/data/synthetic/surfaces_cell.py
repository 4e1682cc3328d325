"""Solar cells: by electroluminescence, as bright as they are alive, and by daylight."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.cell_crystals import crystals, rings
from headclip.data.synthetic.cell_currents import corroded, poor_contact, shunts, uneven_lanes
from headclip.data.synthetic.cell_faults import (
    Cell,
    cracks,
    dark_edge,
    dead_area,
    dim_fingers,
    faint_fingers,
    shattered,
)
from headclip.data.synthetic.finishing import finish
from headclip.data.synthetic.noise import enlarged, fractal_noise, patches, smooth_noise, spectral_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import Ink, box, coverage, difference, pixel_grid, ramp, smoothstep, turned
from headclip.data.synthetic.surfaces_grid import grid_scene


def _clouds(cell: Cell) -> Tensor:
    """Dislocations of multicrystalline silicon, in [0, 1]: ragged dark flecks, denser in some grains than in others."""
    rng, u, v, side, height, width = cell.rng, cell.u, cell.v, cell.side, cell.height, cell.width
    if rng.chance(0.6):
        size = side * rng.log_uniform(0.015, 0.12)
        flecks = fractal_noise(rng, height, width, size, 4, rng.uniform(0.6, 1.0), rng.log_uniform(0.4, 2.5))
    else:  # ragged down to single pixels, and drawn out one way
        flecks = spectral_noise(rng, height, width, rng.uniform(0.6, 1.3), rng.log_uniform(1.0, 3.0),
                                rng.uniform(0.0, math.pi), rng.log_uniform(0.5, 8.0) / side)  # fmt: skip
    count = rng.integer(4, 30)
    seeds = (rng.rand(count, 2) - 0.5) * 1.1 * torch.tensor([width, height], device=u.device)
    warp = side * 0.04 * smooth_noise(rng, height, width, side * rng.uniform(0.05, 0.2))
    grain, _ = patches(rng, (u + warp)[::2, ::2], (v + warp)[::2, ::2], seeds)
    dense = enlarged(rng.randn(count)[grain], height, width)
    level = rng.uniform(0.2, 1.6) - rng.uniform(0.0, 0.8) * dense
    return smoothstep(0.0, rng.log_uniform(0.3, 2.5), flecks - level)


def _bars(cell: Cell) -> Tensor:
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


def _silicon(cell: Cell, poly: bool) -> Tensor:
    """How bright the living cell is without bars and rim, (H, W): one crystal, or many (poly) with their clouds."""
    rng, side, height, width = cell.rng, cell.side, cell.height, cell.width
    gap = 2.0 * cell.half / len(cell.bars)
    glow = torch.cos(2.0 * math.pi * cell.v / gap + math.pi * (len(cell.bars) % 2 + 1))
    value = rng.uniform(0.5, 0.95) + rng.uniform(-0.12, 0.08) * glow
    value = value + rng.log_uniform(0.004, 0.06) * cell.streaks
    value = value - rng.log_uniform(0.01, 0.12) * smooth_noise(rng, height, width, side * rng.uniform(0.2, 0.7))
    if poly:
        by_physics = rng.chance(0.7)
        value = value * (crystals(cell) if by_physics else 1.0 - rng.log_uniform(0.05, 0.5) * _clouds(cell))
        value = value + rng.log_uniform(0.005, 0.06) * fractal_noise(rng, height, width, side * 0.02, 3, 0.8)
    elif rng.chance(0.5):
        value = value * (1.0 + rings(cell))
    return value * uneven_lanes(cell) if rng.chance(0.4) else value


def _under_current(rng: Rng, height: int, width: int) -> Cell:
    """Where a cell and its bars lie in the picture, and the unevenness of its fingers."""
    side = min(height, width)
    x, y = pixel_grid(rng, height, width)
    upright = rng.chance(0.25)  # bars from top to bottom
    u, v = turned(x, y, 0.5 * math.pi * upright + rng.normal(0.0, 0.006))
    half = 0.5 * side * (rng.uniform(0.92, 1.02) if rng.chance(0.8) else rng.uniform(1.1, 1.8))
    count = rng.integer(2, 5)
    bars = [(k - 0.5 * (count - 1)) * 2.0 * half / count + rng.normal(0.0, 0.004) * side for k in range(count)]
    long, thin = side * rng.uniform(0.15, 0.6), max(1.5, side * rng.log_uniform(0.004, 0.02))
    streaks = smooth_noise(rng, height, width, *((thin, long) if upright else (long, thin)))
    return Cell(rng, u, v, bars, half, streaks)


def _cut(u: Tensor, v: Tensor, half_u: float, half_v: float, corner: float) -> Tensor:
    """Signed distance of a rectangle whose corners are cut off at 45 degrees, `corner` pixels along each side."""
    return torch.maximum(box(u, v, half_u, half_v), (u.abs() + v.abs() - half_u - half_v + corner) * math.sqrt(0.5))


@scene("electroluminescence", weight=2.0)
def electroluminescence(rng: Rng, height: int, width: int) -> Scene:
    """A solar cell under current: as bright as it is alive (by daylight: `solar_cell`)."""
    side = min(height, width)
    cell = _under_current(rng, height, width)
    u, v, half = cell.u, cell.v, cell.half
    poly = rng.chance(0.5)
    value = _silicon(cell, poly)
    rim = (half - torch.maximum(u.abs(), v.abs())).clamp(min=0.0)
    value = value * (1.0 - rng.uniform(0.0, 0.5) * torch.exp(-rim / (side * rng.log_uniform(0.01, 0.06))))
    if rng.chance(0.35):
        value = value * faint_fingers(cell)
    corner = half * (rng.uniform(0.0, 0.05) if poly else rng.uniform(0.12, 0.35))
    outline = box(u, v, half, half, corner) if abs(height - width) < 0.2 * side else torch.full_like(u, -side)
    if rng.chance(0.6):  # cut corners instead of round ones
        outline = _cut(u, v, half, half, corner) if float(outline.amax()) > 0.0 else outline
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
        "dead area": lambda: compose(dead_area(cell)),
        "cell crack": lambda: compose(cracks(cell, poly)),
        "shattered cell": lambda: compose(shattered(cell)),
        "finger interruption": lambda: compose(dim_fingers(cell)),
        "dark edge": lambda: compose(dark_edge(cell)),
        "poor contact": lambda: compose(poor_contact(cell)),
        "shunt": lambda: compose(shunts(cell)),
        "corroded contact": lambda: compose(corroded(cell)),
    }
    noun = rng.choice(["solar cell", "solar cell", "photovoltaic cell", "silicon cell", "solar module"])
    made = grid_scene(rng, compose(1.0), "electroluminescence", noun, ink, changes)
    made.foreground = alive > 0.5
    return made


def _grains(rng: Rng, x: Tensor, y: Tensor, side: float) -> Tensor:
    """Tone of multicrystalline silicon: flat patches, dark clouds along their borders."""
    height, width = x.shape
    count = rng.integer(8, 60)
    spread = torch.tensor([width, height], device=x.device)
    seeds = (rng.rand(count, 2) - 0.5) * 1.1 * spread
    warp = side * 0.03 * smooth_noise(rng, height, width, side * rng.uniform(0.05, 0.2))
    patch, border = patches(rng, (x + warp)[::2, ::2], (y + warp)[::2, ::2], seeds)
    tone = rng.log_uniform(0.02, 0.2) * rng.randn(count)[patch]
    tone = tone - rng.uniform(0.0, 0.25) * torch.exp(-border / (side * rng.log_uniform(0.003, 0.03)))
    return enlarged(tone, height, width)


def _by_daylight(rng: Rng, x: Tensor, y: Tensor, v: Tensor, poly: bool) -> Tensor:
    """Tone of a cell without bars, (H, W): its crystals, clouds and fingers (across v)."""
    height, width = x.shape
    side = min(height, width)
    value = torch.full_like(v, 0.55)
    if poly:
        value = value + _grains(rng, x, y, side)
    if rng.chance(0.8):
        cloud = fractal_noise(rng, height, width, side * rng.log_uniform(0.08, 0.6), 3, rng.uniform(0.4, 0.8))
        value = value - rng.log_uniform(0.02, 0.15) * (cloud.abs() if rng.chance(0.5) else cloud)
    pitch = max(2.5, side * rng.log_uniform(0.008, 0.03))
    value = value + rng.log_uniform(0.01, 0.15) * torch.sin(v * 2.0 * math.pi / pitch)
    return value


def _outlined(rng: Rng, u: Tensor, v: Tensor, poly: bool) -> tuple[float, Tensor]:
    """Half of a cell's side in pixels, and the cell, (H, W) in [0, 1]: round corners or cut ones."""
    height, width = u.shape
    side = min(height, width)
    half = 0.5 * side * (rng.uniform(0.9, 1.0) if rng.chance(0.7) else rng.uniform(1.1, 2.0))
    half_u, half_v = half * width / side, half * height / side
    if abs(height - width) > 0.2 * side:
        half_u = half_v = 10.0 * side
    corner = half * (rng.uniform(0.15, 0.35) if not poly else rng.uniform(0.0, 0.05))
    outline = box(u, v, half_u, half_v, corner)
    if rng.chance(0.5):  # cut corners instead of round ones
        outline = _cut(u, v, half_u, half_v, corner)
    return half, coverage(outline, 2.0)


@scene("solar_cell", weight=0.8)
def solar_cell(rng: Rng, height: int, width: int) -> Scene:
    """Electroluminescence-like or visible-light cell: grains, fingers, busbars, cell borders."""
    side = min(height, width)
    x, y = pixel_grid(rng, height, width)
    u, v = turned(
        x,
        y,
        0.5 * math.pi * rng.integer(0, 1) + rng.normal(0.0, 0.01),
        rng.normal(0.0, 4.0),
        rng.normal(0.0, 4.0),
    )
    poly = rng.chance(0.65)
    value = _by_daylight(rng, x, y, v, poly)
    half, cell = _outlined(rng, u, v, poly)
    bars = rng.integer(0, 6)
    gap = 2.0 * half / max(bars, 1)
    order = torch.round(u / gap + 0.5 * (bars - 1)).clamp(0, max(bars - 1, 0))
    offset = u - (order - 0.5 * (bars - 1)) * gap
    thick = side * rng.log_uniform(0.004, 0.022)
    bar = coverage(offset.abs() - thick, 1.5) * (bars > 0)
    glow = rng.uniform(0.0, 0.25) * torch.exp(-offset.abs() / (gap * 0.2)) * (bars > 0)
    level = rng.choice([rng.uniform(-0.1, 0.15), rng.uniform(0.8, 1.1)], [0.7, 0.3])
    outside = rng.uniform(-0.1, 0.1) if rng.chance(0.8) else rng.uniform(0.7, 1.0)
    noise = rng.log_uniform(0.005, 0.08) * rng.randn(height, width)
    colour = rng.chance(0.12)
    ink = Ink(rng, 1.0 if colour else 0.0, 0.9)
    dark, bright = ink.pair(0.0, 0.95)

    def compose(barred: Tensor) -> Tensor:
        tone = (value + glow) * (1.0 - barred) + level * barred + noise
        return ramp((tone * cell + outside * (1.0 - cell)).clamp(-0.2, 1.2), dark, bright)

    base = compose(bar)
    state = finish(rng, base, ink, marks=0.05)
    scene_ = Scene(
        state,
        cell > 0.5,
        "solar_cell",
        rng.choice(["solar cell", "solar panel", "photovoltaic cell", "silicon wafer"]),
    )
    if bars > 0:

        def interrupted() -> tuple[Tensor, Tensor]:
            middle, length = rng.uniform(-0.3, 0.3) * side, side * rng.log_uniform(0.06, 0.4)
            chosen = float(order[height // 2, width // 2])
            cut = bar * coverage((v - middle).abs() - length, 2.0) * (order == chosen)
            if not bool((cut > 0.5).any()):  # that bar lies outside the picture: cut them all
                cut = bar * coverage((v - middle).abs() - length, 2.0)
            change = compose(bar - cut) - base
            seen = ((state + change).clamp(0.0, 1.0) - state).abs().amax()
            if float(seen) < 0.05:  # lost in black or white
                change = cut * torch.where(state > 0.5, -0.3, 0.3)
            return difference(state, (state + change).clamp(0.0, 1.0))

        scene_.variants["interrupted busbar"] = interrupted
    return scene_
