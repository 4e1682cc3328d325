"""Medical pictures by camera or microscope: skin, stained tissue."""

from __future__ import annotations

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.finishing import illumination
from headclip.data.synthetic.noise import cell_noise, enlarged, fractal_noise, smooth_noise, spectral_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import (
    coverage,
    over,
    pixel_grid,
    ramp,
    random_light,
    relief,
    smoothstep,
    turned,
)  # fmt: skip
from headclip.data.synthetic.tissue_base import random_hue, tissue_scene


@scene("skin", weight=1.2)
def skin(rng: Rng, height: int, width: int) -> Scene:
    side = min(height, width)
    tone = random_hue(rng, 0.0, 0.1, (0.12, 0.6), (0.3, 1.0))
    image = tone * (1.0 + rng.log_uniform(0.02, 0.1) * fractal_noise(rng, height, width, side * rng.uniform(0.1, 0.5)))
    image = image + random_hue(rng, -0.03, 0.03, (0.6, 0.9), (0.1, 0.25)) * 0.4 * smooth_noise(
        rng, height, width, side * 0.3
    )
    if rng.chance(0.8):
        period = side * rng.log_uniform(0.015, 0.06)
        x, y = pixel_grid(rng, height, width)
        u, v = turned(x, y, rng.uniform(0.0, 3.2))
        bend = 0.4 * smooth_noise(rng, height, width, period * 2.5)
        u, v = (
            (u / period + bend + 32.0)[::2, ::2],
            (v / (period * rng.uniform(0.5, 1.0)) + bend + 32.0)[::2, ::2],
        )
        first, second, _ = cell_noise(rng, u, v, 0.9)
        furrow = enlarged((second - first).clamp(max=0.35), height, width)
        diffuse, highlight = relief(furrow * period * rng.uniform(0.1, 0.8), random_light(rng))
        image = image * diffuse + 0.2 * highlight
    image = image + rng.log_uniform(0.005, 0.03) * spectral_noise(rng, height, width, rng.uniform(0.3, 1.0))
    if rng.chance(0.5):
        image = over(image, tone * rng.uniform(0.05, 0.5), hairs(rng, height, width) * rng.uniform(0.4, 1.0))
    if rng.chance(0.6):
        image = image * illumination(rng, height, width)
    if rng.chance(0.2):  # dermatoscope's round field
        x, y = pixel_grid(rng, height, width)
        lens = (x.square() + y.square()).sqrt() - 0.5 * max(height, width) * rng.uniform(0.9, 1.2)
        image = image * coverage(lens, rng.uniform(2.0, 20.0))
        return tissue_scene(rng, image, "skin", "skin", lens < 0)
    return tissue_scene(rng, image, "skin", rng.choice(["skin", "human skin", "dermatoscopic skin"]))


def hairs(rng: Rng, height: int, width: int) -> Tensor:
    """Curved strands (H, W) in [0, 1], each an arc of a large circle."""
    x, y = pixel_grid(rng, height, width)
    side = min(height, width)
    total = torch.zeros_like(x)
    main = rng.uniform(0.0, 3.2)
    for _ in range(rng.integer(1, 8)):
        u, v = turned(x, y, main + rng.normal(0.0, 0.4), rng.normal(0.0, 0.35) * width, rng.normal(0.0, 0.35) * height)
        bow = rng.normal(0.0, 0.6) / side
        line = coverage((u + bow * v.square()).abs() - rng.uniform(0.2, 0.008 * side), 1.2)
        total = torch.maximum(total, line * coverage(v.abs() - side * rng.uniform(0.1, 0.8), 8.0))
    return total


@scene("stained_tissue", weight=0.8)
def stained_tissue(rng: Rng, height: int, width: int) -> Scene:
    """Histology-like: pink ground, fibres and dark nuclei."""
    side = min(height, width)
    period = max(5.0, side * rng.log_uniform(0.03, 0.1))
    x, y = pixel_grid(rng, height, width)
    bend = 0.5 * smooth_noise(rng, height, width, period * 3.0)
    first, second, cell = cell_noise(
        rng, (x / period + bend + 32.0)[::2, ::2], (y / period - bend + 32.0)[::2, ::2], 1.0
    )
    near, gap = enlarged(first, height, width), enlarged(second - first, height, width)
    pink, pale = (
        random_hue(rng, 0.82, 0.97, (0.2, 0.6), (0.6, 0.95)),
        random_hue(rng, 0.8, 1.0, (0.02, 0.2), (0.85, 1.0)),
    )
    cloud = fractal_noise(rng, height, width, side * rng.uniform(0.1, 0.3), 4, 0.7)
    image = ramp((0.5 + 0.4 * cloud).clamp(0.0, 1.0), pink, pale)
    image = over(image, pale, smoothstep(0.12, 0.0, gap) * rng.uniform(0.0, 0.8))
    sizes = 0.12 + 0.25 * rng.rand(4096) * rng.uniform(0.6, 1.3)
    nucleus = smoothstep(0.06, -0.02, near - enlarged(sizes[cell], height, width))
    dark = random_hue(rng, 0.68, 0.82, (0.3, 0.7), (0.25, 0.6))
    grain = spectral_noise(rng, height, width, rng.uniform(0.3, 1.0))
    image = over(image, dark * (1.0 + 0.15 * grain), nucleus * rng.uniform(0.5, 0.95)) + 0.02 * grain
    if rng.chance(0.3):
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    return tissue_scene(
        rng, image, "stained_tissue", rng.choice(["stained tissue", "histology slide", "tissue section"])
    )
