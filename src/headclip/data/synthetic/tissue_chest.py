"""Radiographs of chests, with what clouds, fills or empties a lung."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.chest_shadow import Chest, chord, draw_chest
from headclip.data.synthetic.lettering import glyph_rows
from headclip.data.synthetic.noise import fractal_noise, spectral_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import coverage, pixel_grid, smoothstep, turned
from headclip.data.synthetic.tissue_base import random_place, tissue_scene

NOUNS = ("chest x-ray", "chest radiograph", "x-ray image", "x-ray of a chest", "radiograph")
Ill = tuple[Tensor, Tensor]
"""What a sickness adds to the shadow, and how much of each place is sick, both (H, W)."""


def _place(rng: Rng, chest: Chest) -> tuple[float, float]:
    """x and y of a random place in a lung."""
    place = random_place(rng, chest.lungs > 0.7)
    return (0.0, 0.0) if place is None else (float(chest.x[place]), float(chest.y[place]))


def _nodules(rng: Rng, chest: Chest) -> Ill:
    """Round spots, one or several."""
    added, there = torch.zeros_like(chest.x), torch.zeros_like(chest.x)
    size, (height, width) = chest.side * rng.log_uniform(0.025, 0.12), chest.x.shape
    for _ in range(rng.choice((1, 2, rng.integer(3, 8)), (0.65, 0.2, 0.15))):
        at_x, at_y = _place(rng, chest)
        u, v = turned(chest.x - at_x, chest.y - at_y, rng.uniform(0.0, math.pi))
        lumps = 0.15 * fractal_noise(rng, height, width, max(2.0, 0.5 * size), 2, 0.6)
        half = 0.5 * size * rng.uniform(0.7, 1.3)
        body = chord(u * (1.0 + lumps), v * (1.0 + lumps), half * rng.uniform(0.8, 1.25), half)
        added = torch.maximum(added, body * rng.uniform(0.12, 0.4))
        there = torch.maximum(there, smoothstep(0.0, 0.35, body))
    return added, there


def _cloud(rng: Rng, chest: Chest) -> Ill:
    """Part of a lung is full of fluid: a cloud with soft borders."""
    at_x, at_y = _place(rng, chest)
    size, (height, width) = chest.side * rng.uniform(0.1, 0.4), chest.x.shape
    u, v = turned(chest.x - at_x, chest.y - at_y, rng.uniform(0.0, math.pi))
    reach = ((u / rng.uniform(0.8, 1.4)).square() + v.square()).sqrt() / (0.5 * size)
    fluffy = fractal_noise(rng, height, width, size * rng.uniform(0.15, 0.4), 4, 0.65)
    cloud = smoothstep(1.25, 0.5, reach + rng.uniform(0.1, 0.35) * fluffy) * chest.lungs
    return cloud * rng.uniform(0.12, 0.5) * (0.4 + 0.6 * chest.air) * (1.0 + 0.2 * fluffy), cloud


def _effusion(rng: Rng, chest: Chest) -> Ill:
    """Fluid stands in one lung, higher at its outer wall."""
    way = rng.choice((-1.0, 1.0))
    level = chest.floor - chest.side * rng.uniform(0.06, 0.3) - 0.35 * (way * chest.x - 0.2 * chest.side).clamp(min=0.0)
    pool = smoothstep(-0.02 * chest.side, 0.02 * chest.side, chest.y - level) * chest.lungs * (way * chest.x > 0)
    return pool * rng.uniform(0.25, 0.6) * (0.5 + 0.5 * chest.air), pool


def _collapse(rng: Rng, chest: Chest) -> Ill:
    """Air around a lung that has shrunk: no vessels, and a thin line."""
    way, shift = rng.choice((-1.0, 1.0)), chest.side * rng.uniform(0.02, 0.1)
    u = way * chest.x - 0.21 * chest.side + shift
    reach = (
        (u / (0.17 * chest.side)).square() + ((chest.y + 0.02 * chest.side - shift) / (0.4 * chest.side)).square()
    ).sqrt()
    empty = smoothstep(0.97, 1.03, reach) * chest.lungs * (way * chest.x > 0) * (u > 0)
    line = torch.exp(-((reach - 1.0) * 0.17 * chest.side / 1.2).square()) * chest.lungs * (u > 0)
    return line * rng.uniform(0.03, 0.1) - empty * (chest.tissue + rng.uniform(0.05, 0.2)), torch.maximum(empty, line)


SICK: dict[str, Callable[[Rng, Chest], Ill]] = {
    "nodule": _nodules,
    "opacity": _cloud,
    "effusion": _effusion,
    "collapsed lung": _collapse,
}


def _overlay(rng: Rng, height: int, width: int) -> Tensor:
    """Letters, electrodes and tubes that are no sickness, (H, W): what they add to the shadow."""
    x, y = pixel_grid(rng, height, width)
    side, total = min(height, width), torch.zeros(height, width, device=rng.device)
    if rng.chance(0.5):
        size, at = max(6.0, side * rng.uniform(0.03, 0.07)), rng.choice((-1.0, 1.0))
        letters, _ = glyph_rows(rng, x - at * 0.4 * width, y + 0.42 * height, size, rng.integer(1, 4), 1)
        total = total + letters
    if rng.chance(0.3):
        for _ in range(rng.integer(1, 3)):
            u, v = turned(x, y, rng.uniform(0.0, math.pi), rng.normal(0.0, 0.2) * width, rng.normal(0.0, 0.2) * height)
            tube = coverage((u + rng.normal(0.0, 0.8) * v.square() / side).abs() - side * 0.003, 1.5)
            total = total + 0.25 * tube
    if rng.chance(0.2):
        for _ in range(rng.integer(1, 4)):
            spot = (x - rng.normal(0.0, 0.25) * width).square() + (y - rng.normal(0.0, 0.25) * height).square()
            total = total + 0.4 * coverage(spot.sqrt() - side * 0.015, 1.5)
    return total


@scene("chest", weight=1.6)
def chest(rng: Rng, height: int, width: int) -> Scene:
    """A chest from the front with sick lungs as its own defects."""
    body, extra = draw_chest(rng, height, width), _overlay(rng, height, width)
    low, high = rng.uniform(-0.15, 0.1), rng.uniform(1.0, 1.5)
    gamma, negative = rng.uniform(0.7, 1.4), rng.chance(0.12)
    noise = rng.log_uniform(0.004, 0.03) * spectral_noise(rng, height, width, rng.uniform(0.0, 0.8))

    def seen(shadow: Tensor) -> Tensor:
        value = ((shadow + extra - low) / (high - low)).clamp(0.0, 1.0) ** gamma
        return ((1.0 - value if negative else value) + noise)[None]

    before = seen(body.shadow)
    drawn = tissue_scene(rng, before, "chest", rng.choice(NOUNS), body.lungs > 0.5)

    def ill(kind: Callable[[Rng, Chest], Ill]) -> Callable[[], tuple[Tensor, Tensor]]:
        def draw() -> tuple[Tensor, Tensor]:
            added, there = kind(rng, body)
            changed = drawn.image + seen(body.shadow + added) - before
            mask = there > 0.3
            return torch.where(mask, changed, drawn.image).clamp(0.0, 1.0), mask

        return draw

    drawn.variants = {name: ill(kind) for name, kind in SICK.items()}
    return drawn
