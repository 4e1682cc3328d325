"""A chest as X-rays see it: what lies in each ray adds up, and the film shows the sum.

Bodies are ellipsoids, of which a ray crosses a chord; ribs are tubes on the surface of the chest. Nothing hides what
lies behind it: a spot in a lung is seen through the rib before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.noise import fractal_noise, smooth_noise
from headclip.data.synthetic.shapes import pixel_grid, segment, smoothstep, turned


@dataclass(frozen=True)
class Chest:
    """shadow: (H, W) what rays lose in sound tissue, flesh of the chest's depth being 1; lungs: (H, W) in [0, 1].

    air: (H, W) how much of a ray's way is lung; tissue: (H, W) what the vessels of the lungs add to the shadow.
    """

    shadow: Tensor
    lungs: Tensor
    air: Tensor
    tissue: Tensor
    x: Tensor
    y: Tensor
    side: float
    floor: Tensor


def chord(u: Tensor, v: Tensor, wide: float, tall: float) -> Tensor:
    """(H, W) in [0, 1]: the share of its depth that a ray crosses of an ellipsoid of these half axes."""
    return (1.0 - (u / wide).square() - (v / tall).square()).clamp(min=0.0).sqrt()


def draw_chest(rng: Rng, height: int, width: int) -> Chest:
    """A sound chest from the front, whole or cut by the picture's border."""
    x, y = pixel_grid(rng, height, width)
    side = float(min(height, width)) * rng.uniform(0.9, 1.25)
    wobble = 0.015 * side * smooth_noise(rng, height, width, side * 0.25)
    x, y = turned(
        x + wobble, y - wobble, rng.normal(0.0, 0.04), rng.normal(0.0, 0.04) * side, rng.normal(0.0, 0.04) * side
    )
    body = chord(x, y - 0.15 * side, side * rng.uniform(0.5, 0.62), side * rng.uniform(0.8, 1.1))
    shoulders = chord(x, y - 0.75 * side, side * 0.9, side * rng.uniform(1.0, 1.2))
    floor = side * (rng.uniform(0.22, 0.4) + 0.25 * (x.abs() / side - rng.uniform(0.15, 0.22)).square() * 4.0)
    floor = floor + side * rng.uniform(0.0, 0.03) * (x > 0)  # one half of the midriff stands lower
    lungs, air = torch.zeros_like(x), torch.zeros_like(x)
    for way in (-1.0, 1.0):
        u, v = turned(way * x - side * rng.uniform(0.19, 0.23), y + 0.02 * side, rng.normal(0.1, 0.03))
        lung = chord(u, v, side * rng.uniform(0.15, 0.19), side * rng.uniform(0.36, 0.46))
        lung = lung * smoothstep(1.0, -0.02 * side, y - floor)
        lungs, air = torch.maximum(lungs, smoothstep(0.05, 0.3, lung)), air + lung
    heart = chord(*turned(x - side * rng.uniform(0.02, 0.07), y - side * rng.uniform(0.1, 0.2), rng.uniform(0.4, 0.8)),
                  side * rng.uniform(0.14, 0.2), side * rng.uniform(0.1, 0.14))  # fmt: skip
    middle = torch.exp(-(x / (side * rng.uniform(0.04, 0.07))).square())
    air = (air * (1.0 - rng.uniform(0.6, 0.9) * smoothstep(0.0, 0.6, heart))).clamp(0.0, 1.0)
    lungs = lungs * smoothstep(0.3, 0.05, heart) * (1.0 - 0.8 * middle)
    hilum = ((x.abs() - 0.09 * side).square() + (y - 0.02 * side).square()).sqrt() / side
    twigs = fractal_noise(rng, height, width, side * rng.uniform(0.02, 0.04), 3, 0.7)
    tissue = (1.0 - twigs.abs() / 0.25).clamp(min=0.0) * torch.exp(-hilum / rng.uniform(0.12, 0.4)) * air
    tissue = tissue * rng.uniform(0.08, 0.35) + 0.1 * torch.exp(-(hilum / 0.06).square())
    shadow = torch.maximum(body, 0.6 * shoulders) + rng.uniform(0.0, 0.12) * heart
    shadow = shadow - rng.uniform(0.5, 0.8) * air * body + _bones(rng, x, y, side, body)
    shadow = shadow + tissue + rng.uniform(0.0, 0.03) * fractal_noise(rng, height, width, side * 0.15, 3)
    return Chest(shadow, lungs, air, tissue, x, y, side, floor)


def _bones(rng: Rng, x: Tensor, y: Tensor, side: float, body: Tensor) -> Tensor:
    """What ribs, spine and collar bones add: tubes whose walls are denser than their middle."""
    pitch, strength = side * rng.uniform(0.085, 0.13), rng.uniform(0.04, 0.16)
    start = rng.uniform(0.0, 1.0) * pitch
    bones = torch.zeros_like(x)
    for steep, curve, share in ((-0.25, 1.6, 1.0), (0.45, 0.9, rng.uniform(0.3, 0.8))):  # behind, before
        line = y + start + steep * x.abs() + curve * x.square() / side
        across = ((line / pitch + 0.5) % 1.0 - 0.5).abs() * pitch / (0.24 * pitch)
        tube = smoothstep(1.1, 0.9, across) * (0.5 + 0.6 * smoothstep(0.4, 0.9, across))
        bones = bones + share * strength * tube * smoothstep(0.02 * side, 0.08 * side, x.abs())
    bones = bones * smoothstep(0.0, 0.35, body) * smoothstep(0.45 * side, 0.35 * side, y)
    spine = torch.exp(-((x / (side * rng.uniform(0.035, 0.055))).square() ** 2))
    discs = 0.75 + 0.25 * torch.sin(2.0 * math.pi * y / (side * rng.uniform(0.06, 0.09)))
    bones = bones + rng.uniform(0.15, 0.4) * spine * discs
    for way in (-1.0, 1.0):
        collar = segment(way * x, y, 0.03 * side, -0.36 * side, 0.36 * side, (-0.42 + rng.normal(0.0, 0.02)) * side,
                         side * rng.uniform(0.012, 0.02))  # fmt: skip
        bones = bones + rng.uniform(0.08, 0.2) * smoothstep(1.5, -1.5, collar)
    return bones
