"""Technical grey surfaces: brushed metal, rolled strip, banded plates, cast faces."""

from __future__ import annotations

import math

import torch

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.finishing import surface
from headclip.data.synthetic.noise import fractal_noise, smooth_noise, spectral_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import (
    Ink,
    coverage,
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


@scene("cast_face", weight=2.4)
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
