"""Wood, stone and coated surfaces: granular, knotted, veined, plain and rough."""

from __future__ import annotations

import math

import torch

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.finishing import surface
from headclip.data.synthetic.noise import cell_noise, enlarged, fractal_noise, smooth_noise, spectral_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import (
    Ink,
    coverage,
    over,
    pixel_grid,
    ramp,
    random_angle,
    random_light,
    relief,
    smoothstep,
    textile_frame,
    turned,
)


@scene("granular", weight=1.4)
def granular(rng: Rng, height: int, width: int) -> Scene:
    """Concrete, sand, granite: speckles of a few mineral colours over a cloudy ground."""
    side = min(height, width)
    ink = Ink(rng, 0.35)
    dark, bright = ink.pair()
    ground = spectral_noise(rng, height, width, rng.uniform(0.3, 1.6))
    if rng.chance(0.4):
        diffuse, _ = relief(ground * rng.uniform(0.3, 2.0), random_light(rng, 0.0))
        image = ramp(0.7 * diffuse - 0.1, dark, bright)
    else:
        image = ramp(0.5 + rng.log_uniform(0.05, 0.3) * ground, dark, bright)
    for _ in range(rng.integer(0, 4)):  # one mineral each
        size = max(1.6, side * rng.log_uniform(0.006, 0.08))
        grain = smooth_noise(rng, height, width, size) + rng.uniform(0.0, 0.5) * ground
        level = rng.uniform(0.3, 2.2)
        soft = rng.log_uniform(0.1, 0.8)
        image = over(image, ink.shade(0.0, 1.0), smoothstep(level, level + soft, grain) * rng.uniform(0.2, 0.95))
    if rng.chance(0.4):
        image = image + rng.uniform(0.02, 0.1) * smooth_noise(rng, height, width, side * rng.uniform(0.2, 0.7))
    noun = rng.choice(["concrete", "granite", "sandpaper", "asphalt", "stone", "cast iron", "sand", "plaster"])
    return surface(rng, image, "granular", noun, ink)


@scene("wood", weight=1.1)
def wood(rng: Rng, height: int, width: int) -> Scene:
    side = min(height, width)
    u, v = textile_frame(rng, height, width, 0.8, 2.0)
    ring = side * rng.log_uniform(0.02, 0.15)
    stretch = rng.log_uniform(4.0, 20.0)
    wander = smooth_noise(rng, height, width, side * rng.uniform(0.2, 0.5))
    flow = v + 0.04 * side * wander * rng.uniform(0.2, 2.0)
    dark_knot = torch.zeros_like(u)
    for _ in range(rng.choice([0, 1, 2, 3], [0.5, 0.25, 0.15, 0.1])):
        ku, kv = rng.uniform(-0.5, 0.5) * width, rng.uniform(-0.5, 0.5) * height
        size = side * rng.log_uniform(0.02, 0.12)
        dist = ((u - ku) / rng.uniform(1.0, 3.0)).square() + (v - kv).square()
        bump = torch.exp(-dist / (2.0 * size) ** 2)
        flow = flow + torch.sign(v - kv) * bump * size * rng.uniform(1.0, 3.0)
        dark_knot = torch.maximum(dark_knot, smoothstep(size * 1.2, size * 0.6, dist.sqrt() + 0.1 * size * wander))
    phase = (flow * (2.0 * math.pi / ring)) * (1.0 + 0.15 * torch.sin(flow * (1.7 / ring))) + wander
    rings = 0.5 + 0.5 * torch.sin(phase)
    rings = rings ** rng.uniform(0.5, 4.0) + 0.3 * torch.sin(phase * 2.7 + wander)
    fibre = smooth_noise(rng, height, width, max(1.5, side * 0.008), side * 0.008 * stretch)
    if abs(float(u[0, -1] - u[0, 0])) < 0.5 * width:  # the grain runs down the picture
        fibre = smooth_noise(rng, height, width, side * 0.008 * stretch, max(1.5, side * 0.008))
    value = 0.4 + rng.uniform(0.05, 0.35) * (rings - 0.5) + rng.log_uniform(0.03, 0.15) * fibre
    if rng.chance(0.3):  # planks
        plank = side * rng.uniform(0.15, 0.6)
        number = (v / plank + 64.0).floor()
        value = value + rng.uniform(0.02, 0.2) * rng.randn(128)[number.long().clamp(0, 127)]
        gap = (v / plank - torch.round(v / plank)).abs() * plank
        value = value - rng.uniform(0.2, 0.8) * coverage(gap - rng.uniform(0.5, 0.008 * side + 0.6))
    ink = Ink(rng, 0.65)
    dark, bright = ink.pair(0.1, 0.95)
    image = over(
        ramp(value, dark, bright),
        dark * rng.uniform(0.3, 0.9),
        dark_knot * (0.6 + 0.3 * rings).clamp(0, 1),
    )
    return surface(rng, image, "wood", rng.choice(["wood", "wooden board", "timber", "veneer", "wood panel"]), ink)


@scene("marble", weight=0.8)
def marble(rng: Rng, height: int, width: int) -> Scene:
    side = min(height, width)
    ink = Ink(rng, 0.4)
    dark, bright = ink.pair()
    cloud = spectral_noise(rng, height, width, rng.uniform(1.2, 2.2), rng.log_uniform(1.0, 4.0), rng.uniform(0.0, 3.2))
    value = 0.6 + rng.log_uniform(0.03, 0.25) * cloud
    for _ in range(rng.integer(1, 3)):
        size = side * rng.log_uniform(0.1, 0.7)
        field = fractal_noise(rng, height, width, size, 3, rng.uniform(0.3, 0.6)) + rng.uniform(0.0, 0.5) * cloud
        vein = (1.0 - field.abs() / rng.log_uniform(0.03, 0.4)).clamp(min=0.0)
        value = value + rng.uniform(-0.6, 0.3) * vein ** rng.uniform(0.7, 3.0)
    return surface(
        rng,
        ramp(value, dark, bright),
        "marble",
        rng.choice(["marble", "stone slab", "polished stone", "ceramic"]),
        ink,
    )


@scene("plain", weight=1.2)
def plain(rng: Rng, height: int, width: int) -> Scene:
    """Paint, plastic, glass, paper: nearly nothing, so that light and marks are all the structure."""
    side = min(height, width)
    ink = Ink(rng, 0.4)
    image = ink.shade(0.05, 0.95) + torch.zeros(1, height, width, device=rng.device)
    style = rng.choice(["smooth", "peel", "paper", "zones"])
    if style == "peel":
        bumps = smooth_noise(rng, height, width, max(2.0, side * rng.log_uniform(0.01, 0.06)))
        diffuse, highlight = relief(bumps * rng.uniform(0.2, 1.5), random_light(rng))
        image = image * diffuse + highlight * rng.uniform(0.1, 0.6)
    elif style == "paper":
        image = image + rng.log_uniform(0.01, 0.06) * spectral_noise(rng, height, width, rng.uniform(0.2, 1.2))
    elif style == "zones":  # painted areas that meet at straight or curved edges
        x, y = pixel_grid(rng, height, width)
        for _ in range(rng.integer(1, 3)):
            u, v = turned(x, y, random_angle(rng), rng.normal(0.0, 0.3) * width, rng.normal(0.0, 0.3) * height)
            bend = u + rng.choice([0.0, rng.normal(0.0, 1.0)]) * v.square() / side
            image = over(image, ink.shade(0.0, 1.0), coverage(bend, rng.log_uniform(1.0, 0.1 * side)))
    if rng.chance(0.5):
        image = image + rng.log_uniform(0.004, 0.04) * rng.randn(height, width)
    noun = rng.choice(
        ["painted surface", "plastic surface", "glass", "paper", "coated sheet", "ceramic surface", "film"]
    )
    return surface(rng, image, "plain", noun, ink)


@scene("rough", weight=1.2)
def rough(rng: Rng, height: int, width: int) -> Scene:
    """Power-law noise of any slope and direction, plain, lit as relief, ridged or quantised."""
    stretch = rng.choice([1.0, rng.log_uniform(1.5, 10.0)])
    low = rng.choice([0.0, rng.log_uniform(0.01, 0.15)])
    field = spectral_noise(rng, height, width, rng.uniform(0.2, 2.4), stretch, random_angle(rng), low)
    style = rng.choice(["flat", "relief", "ridged", "levels", "two"])
    ink = Ink(rng, 0.45)
    dark, bright = ink.pair()
    if style == "relief":
        diffuse, highlight = relief(field * rng.log_uniform(0.3, 4.0), random_light(rng))
        image = ramp(diffuse * 0.6, dark, bright) + 0.5 * highlight
    elif style == "ridged":
        image = ramp(field.abs() * rng.uniform(0.3, 0.6), dark, bright)
    elif style == "levels":
        steps = rng.integer(2, 5)
        image = ramp(torch.round((0.5 + 0.25 * field) * steps) / steps + 0.03 * field, dark, bright)
    else:
        image = ramp(0.5 + rng.uniform(0.1, 0.3) * field, dark, bright)
    if style == "two":
        other = smooth_noise(rng, height, width, min(height, width) * rng.log_uniform(0.05, 0.5)) + 0.3 * field
        image = over(image, ink.shade(), smoothstep(-0.3, 0.3, other) * rng.uniform(0.1, 0.7))
    noun = rng.choice(["rough surface", "textured surface", "casting", "foam", "coating", "rubber", "cardboard"])
    return surface(rng, image, "rough", noun, ink)


@scene("foam", weight=0.7)
def foam(rng: Rng, height: int, width: int) -> Scene:
    """Bubbles, gravel or cell-like packings."""
    side = min(height, width)
    period = max(4.0, side * rng.log_uniform(0.025, 0.2))
    u, v = textile_frame(rng, height, width, 0.2, 2.0)
    coarse = 2 if period > 7.0 else 1
    u, v = (u / period + 32.0)[::coarse, ::coarse], (v / period + 32.0)[::coarse, ::coarse]
    first, second, cell = cell_noise(rng, u, v, rng.uniform(0.4, 1.0))
    tone = rng.randn(4096)[cell] * rng.log_uniform(0.02, 0.3)
    gap = second - first
    ink = Ink(rng, 0.45)
    style = rng.choice(["bubbles", "pebbles", "network"])
    if style == "network":
        field = smoothstep(0.0, rng.uniform(0.1, 0.6), gap)
        value = enlarged(0.2 + 0.6 * field + tone, height, width)
    else:
        profile = gap.clamp(max=rng.uniform(0.3, 0.9)) if style == "pebbles" else -first.square()
        bumps = enlarged(profile * period * rng.uniform(0.3, 1.2), height, width)
        diffuse, highlight = relief(bumps, random_light(rng))
        value = 0.6 * diffuse + 0.5 * highlight + enlarged(tone, height, width)
    value = value + rng.log_uniform(0.01, 0.1) * spectral_noise(rng, height, width, rng.uniform(0.3, 1.5))
    dark, bright = ink.pair()
    return surface(
        rng,
        ramp(value, dark, bright),
        "foam",
        rng.choice(["foam", "gravel", "sponge", "pebbles", "pellets"]),
        ink,
    )
