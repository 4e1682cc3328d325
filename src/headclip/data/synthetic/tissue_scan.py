"""Grey medical scans: axial head slices and bones by X-ray."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.noise import fractal_noise, smooth_noise, spectral_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import (
    coverage,
    pixel_grid,
    smoothstep,
    turned,
)  # fmt: skip
from headclip.data.synthetic.tissue_base import tissue_scene


@scene("head", weight=0.6)
def head(rng: Rng, height: int, width: int) -> Scene:
    """Axial slice of a head: skull, folded cortex, ventricles, left-right symmetric but for slow noise."""
    side = min(height, width)
    x, y = pixel_grid(rng, height, width)
    tilt = rng.normal(0.0, 0.06) + rng.choice([0.0, 0.5 * math.pi], [0.9, 0.1])
    x, y = turned(x, y, tilt, rng.normal(0.0, 0.015) * side, rng.normal(0.0, 0.015) * side)
    size = 0.5 * side * rng.uniform(0.72, 0.98)
    narrow = rng.uniform(0.72, 0.92)
    egg = 1.0 + rng.uniform(-0.08, 0.08) * y / size
    wobble = 0.02 * smooth_noise(rng, height, width, side * 0.4)
    radius = ((x / (narrow * egg)).square() + y.square()).sqrt() / size + wobble

    def mirrored(cell: float, octaves: int = 2) -> Tensor:
        field = fractal_noise(rng, height, width, cell, octaves, 0.6)
        return (0.85 * (field + field.flip(1)) + 0.4 * field) / 1.4

    skull = rng.uniform(0.8, 0.94)
    thick = rng.uniform(0.02, 0.07)
    folds = mirrored(side * rng.uniform(0.04, 0.1))
    sharp = rng.uniform(2.0, 8.0)
    depth = (skull - thick - radius).clamp(min=0.0)
    cortex = torch.sigmoid(sharp * (folds + 1.2 - depth * rng.uniform(5.0, 12.0)))
    grey, white, fluid = (
        rng.uniform(0.25, 0.6),
        rng.uniform(0.4, 0.75),
        rng.choice([rng.uniform(0.0, 0.2), rng.uniform(0.75, 1.0)]),
    )
    brain = white + (grey - white) * cortex
    gap = torch.sigmoid(sharp * (folds.abs() * -4.0 + 0.6)) * smoothstep(rng.uniform(0.08, 0.2), 0.0, depth)
    brain = brain + (fluid - brain) * gap * rng.uniform(0.3, 1.0)
    fissure = coverage(x.abs() - size * 0.008 + 0.3 * (y.abs() < 0.25 * size), 2.0) * rng.uniform(0.2, 0.8)
    brain = brain + (fluid - brain) * fissure
    wide, tall = size * rng.uniform(0.03, 0.14), size * rng.uniform(0.12, 0.35)
    if rng.chance(0.85):  # two horns that lean apart at both ends
        lean = x.abs() - size * rng.uniform(0.05, 0.1) - (y - size * 0.02).square() / size * rng.uniform(0.1, 0.7)
        horn = ((lean / wide).square() + ((y + 0.02 * size) / tall).square()).sqrt() + 0.06 * folds
        brain = brain + (fluid - brain) * smoothstep(1.15, 0.85, horn)
    deep = ((x.abs() - size * 0.22) / (0.13 * size)).square() + ((y - 0.02 * size) / (0.2 * size)).square()
    brain = brain + rng.uniform(-0.12, 0.12) * smoothstep(1.3, 0.7, deep + 0.1 * folds)
    brain = brain + rng.uniform(0.005, 0.05) * mirrored(side * 0.03, 1)
    bone, scalp = (
        rng.choice([rng.uniform(0.75, 1.0), rng.uniform(0.0, 0.3)], [0.6, 0.4]),
        rng.uniform(0.3, 0.9),
    )
    inside = smoothstep(skull - thick, skull - thick - 0.02, radius)
    ring = smoothstep(skull, skull - 0.015, radius) * (1.0 - inside)
    skin_ = smoothstep(1.0, 0.98, radius) - smoothstep(skull + 0.005, skull - 0.01, radius)
    value = brain * inside + bone * ring
    if rng.chance(0.75):
        value = value + scalp * skin_.clamp(min=0.0) * (1.0 + 0.2 * folds)
    if rng.chance(0.2):  # skull-stripped
        value = brain * inside
    blur = rng.uniform(0.0, 0.03)
    value = value * (1.0 + rng.uniform(0.0, 0.15) * smooth_noise(rng, height, width, side * 0.7))
    value = value * rng.uniform(0.6, 1.1) + (blur + 0.005) * rng.randn(height, width) * (0.3 + inside)
    noun = rng.choice(["brain", "brain MRI", "head scan", "brain slice", "brain CT"])
    return tissue_scene(rng, value.clamp(min=0.0)[None], "head", noun, radius < skull - thick)


@scene("xray", weight=0.6)
def xray(rng: Rng, height: int, width: int) -> Scene:
    """A bone in its flesh, as a smooth field of what absorbs."""
    side = min(height, width)
    x, y = pixel_grid(rng, height, width)
    wander = smooth_noise(rng, height, width, side * rng.uniform(0.2, 0.5))
    value = 0.5 + rng.uniform(0.02, 0.1) * fractal_noise(rng, height, width, side * 0.3, 4, 0.6)
    u, v = turned(x, y, rng.uniform(0.0, 3.2), rng.normal(0.0, 0.1) * width, rng.normal(0.0, 0.1) * height)
    half = side * rng.uniform(0.06, 0.2) * (1.0 + 0.8 * (v / side).square() * rng.uniform(0.0, 4.0))
    across = ((u + 0.02 * side * wander) / half).abs()
    wall = smoothstep(1.05, 0.95, across) * (0.5 + 0.5 * smoothstep(0.5, 0.85, across))
    flesh = smoothstep(1.1, 0.8, (u.abs() / (side * rng.uniform(0.3, 0.7))))
    value = rng.uniform(0.02, 0.15) + 0.3 * flesh * value + rng.uniform(0.3, 0.6) * wall
    value = value + 0.04 * wall * spectral_noise(rng, height, width, rng.uniform(0.5, 1.2))
    noun = rng.choice(["bone x-ray", "x-ray image", "radiograph"])
    if rng.chance(0.3):
        value = 1.0 - value
    value = value + rng.log_uniform(0.004, 0.03) * rng.randn(height, width)
    return tissue_scene(rng, value[None], "xray", noun)
