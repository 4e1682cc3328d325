"""Body slices and the eye's ground: abdominal CT-like sections, fundus photographs."""

from __future__ import annotations

import math

import torch

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.noise import fractal_noise, smooth_noise, spectral_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import over, pixel_grid, ramp, smoothstep, turned
from headclip.data.synthetic.tissue_base import random_hue, tissue_scene


@scene("body_slice", weight=0.9)
def body_slice(rng: Rng, height: int, width: int) -> Scene:
    """Oval body section: fat rim, organs of slightly different grey, spine, gas."""
    side = min(height, width)
    x, y = pixel_grid(rng, height, width)
    wander = smooth_noise(rng, height, width, side * rng.uniform(0.12, 0.3))
    wide, tall = side * rng.uniform(0.4, 0.52), side * rng.uniform(0.28, 0.42)
    if rng.chance(0.2):  # a cut-out of one organ only
        wide, tall = 2.0 * side, 2.0 * side
    body = ((x / wide).square() + (y / tall).square()).sqrt() + 0.03 * wander
    fat, muscle = rng.uniform(0.1, 0.35), rng.uniform(0.35, 0.6)
    inside = smoothstep(1.0, 0.97, body)
    wall = smoothstep(0.93, 0.88, body)
    value = fat * inside + (muscle - fat) * wall
    for _ in range(rng.integer(3, 9)):
        u, v = turned(x, y, rng.uniform(0.0, 3.2), rng.normal(0.0, 0.18) * side, rng.normal(0.0, 0.12) * side)
        organ = (
            (u / (side * rng.uniform(0.05, 0.25))).square() + (v / (side * rng.uniform(0.04, 0.16))).square()
        ).sqrt()
        edge = smoothstep(1.05, 0.92, organ + rng.uniform(0.05, 0.25) * wander) * smoothstep(0.9, 0.82, body)
        level = rng.choice([muscle + rng.normal(0.0, 0.12), rng.uniform(0.0, 0.1), fat], [0.75, 0.1, 0.15])
        value = value + (level - value) * edge
    bone = smoothstep(0.05, 0.03, (x.square() + (y - 0.62 * tall).square()).sqrt() / side * rng.uniform(0.5, 0.9))
    value = value + (rng.uniform(0.8, 1.0) - value) * bone * inside
    if rng.chance(0.5):  # ribs
        spots = torch.sin(torch.atan2(y / tall, x / wide) * rng.integer(8, 16)) - 0.6
        value = value + 0.5 * smoothstep(0.0, 0.2, spots) * smoothstep(0.035, 0.015, (body - 0.88).abs())
    value = value + inside * rng.log_uniform(0.01, 0.06) * spectral_noise(rng, height, width, rng.uniform(0.1, 0.8))
    noun = rng.choice(["abdominal CT", "body scan", "liver CT", "CT slice"])
    return tissue_scene(rng, value.clamp(min=0.0)[None], "body_slice", noun, body < 0.9)


@scene("fundus", weight=0.7)
def fundus(rng: Rng, height: int, width: int) -> Scene:
    """The back of the eye: a round orange field, a bright disc, vessels that leave it."""
    side = min(height, width)
    x, y = pixel_grid(rng, height, width)
    field = (x.square() + y.square()).sqrt() - 0.5 * side * rng.uniform(0.9, 1.25)
    hand = rng.choice([-1.0, 1.0])
    disc_x, disc_y = hand * side * rng.uniform(0.1, 0.3), side * rng.normal(0.0, 0.03)
    u, v = (x - disc_x) * hand, y - disc_y
    ground = random_hue(rng, 0.01, 0.1, (0.5, 0.9), (0.4, 0.85))
    image = ramp(1.0 + 0.06 * fractal_noise(rng, height, width, side * 0.3, 4, 0.7), ground * 0.0, ground)
    wander = smooth_noise(rng, height, width, side * rng.uniform(0.06, 0.15))
    radius = (u.square() + v.square()).sqrt()
    vessels = torch.zeros_like(x)
    for _ in range(rng.integer(5, 10)):
        bend, way = rng.normal(0.0, 1.2) / side, rng.uniform(0.0, 2.0 * math.pi)
        along, across = turned(u, v, way)
        path = across - bend * along.square() + wander * side * 0.012 * (along / side * 4.0).clamp(0.0, 1.0)
        thick = side * rng.uniform(0.003, 0.01) * (1.2 - along / side).clamp(0.2, 1.2)
        line = smoothstep(1.0, 0.0, path.abs() - thick) * (along > 0)
        vessels = torch.maximum(vessels, line * rng.uniform(0.4, 1.0))
    image = over(image, ground * rng.uniform(0.3, 0.6), vessels * 0.8)
    spot = smoothstep(1.15, 0.85, radius / (side * rng.uniform(0.05, 0.1)))
    image = over(image, random_hue(rng, 0.08, 0.16, (0.2, 0.5), (0.85, 1.0)), spot * (1.0 - 0.6 * vessels))
    macula = torch.exp(-((u + side * 0.3).square() + v.square()) / (side * rng.uniform(0.06, 0.12)) ** 2)
    image = (
        image
        * (1.0 - rng.uniform(0.2, 0.5) * macula)
        * (1.0 - rng.uniform(0.0, 0.6) * (x.square() + y.square()) / side**2)
    )
    image = image * smoothstep(1.0, -1.0, field)
    if rng.chance(0.2):  # one channel only, as in angiography
        image = image[1:2] * rng.uniform(1.0, 2.0)
    return tissue_scene(rng, image, "fundus", rng.choice(["retina", "fundus photograph", "eye fundus"]), field < 0)
