"""Technical grey surfaces: brushed metal, rolled strip, banded plates, solar cells."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.finishing import finish, surface
from headclip.data.synthetic.noise import enlarged, fractal_noise, patches, smooth_noise, spectral_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import (
    Ink,
    box,
    coverage,
    difference,
    pixel_grid,
    ramp,
    random_angle,
    smoothstep,
    turned,
)


@scene("brushed_metal", weight=1.2)
def brushed_metal(rng: Rng, height: int, width: int) -> Scene:
    side = min(height, width)
    ink = Ink(rng, 0.15)
    if rng.chance(0.25):  # turned on a lathe: rings and the bow-tie highlight of a lathed face
        x, y = pixel_grid(rng, height, width)
        x, y = turned(x, y, 0.0, rng.normal(0.0, 0.4) * width, rng.normal(0.0, 0.4) * height)
        radius, around = (x.square() + y.square()).sqrt(), torch.atan2(y, x)
        track = rng.randn(2048).cumsum(0) * 0.2 + rng.randn(2048)
        value = 0.12 * track[(radius * rng.uniform(0.5, 2.0)).long().clamp(max=2047)] * rng.uniform(0.3, 1.5)
        value = value + rng.uniform(0.1, 0.4) * torch.cos(2.0 * around + rng.uniform(0.0, 6.3))
        value = 0.5 + value + 0.04 * rng.randn(height, width)
    else:
        angle = random_angle(rng, 0.7)
        grain = spectral_noise(rng, height, width, rng.uniform(0.3, 1.0), rng.log_uniform(8.0, 120.0), angle)
        value = 0.5 + rng.log_uniform(0.04, 0.25) * grain
        if rng.chance(0.4):
            value = value + 0.1 * smooth_noise(rng, height, width, side * rng.uniform(0.2, 0.7))
    if rng.chance(0.3):
        value = value + rng.uniform(0.01, 0.08) * rng.randn(height, width)
    dark, bright = ink.pair()
    noun = rng.choice(["brushed metal", "metal surface", "aluminium sheet", "steel plate"])
    return surface(rng, ramp(value, dark, bright), "brushed_metal", noun, ink)


@scene("steel_strip", weight=1.3)
def steel_strip(rng: Rng, height: int, width: int) -> Scene:
    side = min(height, width)
    upright = rng.chance(0.6)
    angle = (0.5 * math.pi if upright else 0.0) + rng.normal(0.0, 0.02)
    x, y = pixel_grid(rng, height, width)
    _, across = turned(x, y, angle)
    fine = spectral_noise(rng, height, width, rng.uniform(0.4, 1.6), rng.log_uniform(1.0, 20.0), angle)
    size = side * rng.log_uniform(0.02, 0.2)
    marks = rng.randn(256)[(across / size + 128.0).long().clamp(0, 255)]
    bands = torch.sin(across * 2.0 * math.pi / (side * rng.log_uniform(0.1, 2.0)) + rng.uniform(0.0, 6.3))
    value = 0.5 + rng.log_uniform(0.03, 0.2) * fine + rng.uniform(0.0, 0.15) * bands
    value = value + rng.choice([0.0, 0.05, 0.12]) * marks
    if rng.chance(0.3):  # scale-like mottling that is normal for hot strip
        value = value + rng.uniform(0.05, 0.2) * fractal_noise(rng, height, width, side * rng.log_uniform(0.04, 0.3))
    if rng.chance(0.3):  # the strip's own edge
        edge = coverage(across.abs() - 0.5 * side * rng.uniform(0.6, 0.95), rng.log_uniform(1.0, 8.0))
        value = value * (edge + (1.0 - edge) * rng.uniform(0.0, 0.6))
    ink = Ink(rng, 0.06, 0.75)
    dark, bright = ink.pair()
    noun = rng.choice(["steel strip", "hot-rolled steel", "rolled metal", "steel sheet", "metal strip"])
    return surface(rng, ramp(value, dark, bright), "steel_strip", noun, ink)


@scene("banded_plate", weight=1.5)
def banded_plate(rng: Rng, height: int, width: int) -> Scene:
    """Grey plates in horizontal bands, as a commutator's copper and plastic seen from the side."""
    side = min(height, width)
    x, y = pixel_grid(rng, height, width)
    along, across = turned(x, y, (0.5 * math.pi if rng.chance(0.2) else 0.0) + rng.normal(0.0, 0.015))
    count = rng.integer(1, 6)
    reach = 0.5 * side * rng.uniform(0.5, 1.3)
    edges = (rng.rand(count) * 2.0 - 1.0).sort().values * reach
    edges = edges + rng.uniform(0.0, 0.01) * side
    wobble = 0.004 * side * smooth_noise(rng, height, width, side * 0.2) * rng.choice([0.0, 1.0])
    softness = rng.log_uniform(1.0, 0.04 * side + 1.0)
    levels = 0.5 + rng.randn(count + 1) * rng.log_uniform(0.04, 0.25)
    value = levels[0] + torch.zeros_like(across)
    rough = torch.full_like(across, rng.log_uniform(0.01, 0.12))
    for k in range(count):
        step = coverage(edges[k] - across - wobble, softness)
        value = value + (levels[k + 1] - levels[k]) * step
        rough = rough * (1.0 - step) + rng.log_uniform(0.01, 0.15) * step
        if rng.chance(0.4):  # a groove or a lit edge along the step
            value = value + rng.uniform(-0.4, 0.3) * coverage((across - edges[k]).abs() - side * 0.005, softness)
    stretch = rng.log_uniform(0.3, 12.0)
    value = value + rough * spectral_noise(rng, height, width, rng.uniform(0.3, 1.3), stretch, 0.0)
    if rng.chance(0.35):  # slots between the segments
        pitch = side * rng.uniform(0.3, 1.2)
        slot = along - pitch * torch.round(along / pitch)
        value = value - rng.uniform(0.1, 0.5) * coverage(slot.abs() - side * rng.log_uniform(0.004, 0.03), 1.5)
    if rng.chance(0.5):
        value = value + rng.uniform(0.02, 0.1) * smooth_noise(rng, height, width, side * rng.uniform(0.15, 0.6))
    ink = Ink(rng, 0.05, 0.8)
    dark, bright = ink.pair()
    noun = rng.choice(["commutator", "grey metal part", "metal commutator", "machined plate", "electrical commutator"])
    return surface(rng, ramp(value.clamp(-0.2, 1.2), dark, bright), "banded_plate", noun, ink)


@scene("cast_face", weight=1.7)
def cast_face(rng: Rng, height: int, width: int) -> Scene:
    """A cast, sintered or ground face seen close: coarse grain, faint lines of a tool, pores, cloudy tone."""
    side = min(height, width)
    grain = spectral_noise(rng, height, width, rng.uniform(0.0, 1.1), low=rng.log_uniform(0.01, 0.15))
    value = 0.5 + rng.log_uniform(0.05, 0.22) * grain
    if rng.chance(0.5):
        pores = smooth_noise(rng, height, width, max(1.5, side * rng.log_uniform(0.005, 0.025)))
        level = rng.uniform(1.0, 2.4)
        value = value - rng.log_uniform(0.08, 0.5) * smoothstep(level, level + rng.uniform(0.2, 0.8), pores)
    if rng.chance(0.5):
        x, y = pixel_grid(rng, height, width)
        _, across = turned(x, y, random_angle(rng, 0.9))
        lines = rng.randn(2048)[(across * rng.log_uniform(0.15, 1.0) + 1024.0).long().clamp(0, 2047)]
        value = value + rng.log_uniform(0.01, 0.08) * lines
    if rng.chance(0.6):
        value = value + rng.log_uniform(0.02, 0.12) * smooth_noise(rng, height, width, side * rng.uniform(0.1, 0.6))
    ink = Ink(rng, 0.08, 0.75)
    dark, bright = ink.pair()
    noun = rng.choice(["cast surface", "sintered metal", "ground metal", "graphite", "casting", "ceramic face"])
    return surface(rng, ramp(value, dark, bright), "cast_face", noun, ink)


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
    value = torch.full_like(u, 0.55)
    if poly:
        value = value + _grains(rng, x, y, side)
    if rng.chance(0.8):
        cloud = fractal_noise(rng, height, width, side * rng.log_uniform(0.08, 0.6), 3, rng.uniform(0.4, 0.8))
        value = value - rng.log_uniform(0.02, 0.15) * (cloud.abs() if rng.chance(0.5) else cloud)
    pitch = max(2.5, side * rng.log_uniform(0.008, 0.03))
    value = value + rng.log_uniform(0.01, 0.15) * torch.sin(v * 2.0 * math.pi / pitch)
    half = 0.5 * side * (rng.uniform(0.9, 1.0) if rng.chance(0.7) else rng.uniform(1.1, 2.0))
    half_u, half_v = half * width / side, half * height / side
    if abs(height - width) > 0.2 * side:
        half_u = half_v = 10.0 * side
    corner = half * (rng.uniform(0.15, 0.35) if not poly else rng.uniform(0.0, 0.05))
    outline = box(u, v, half_u, half_v, corner)
    if rng.chance(0.5):  # cut corners instead of round ones
        outline = torch.maximum(box(u, v, half_u, half_v), (u.abs() + v.abs()) - (half_u + half_v) + corner)
    cell = coverage(outline, 2.0)
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
