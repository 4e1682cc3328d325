"""Mucosa as an endoscope shows it: folds, the dark of the tube, wet gleams, and polyps that the same lamp lights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.noise import fractal_noise, smooth_noise, spectral_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import (
    Light,
    coverage,
    difference,
    disc,
    over,
    pixel_grid,
    ramp,
    random_light,
    relief,
    smoothstep,
    turned,
)
from headclip.data.synthetic.tissue_base import random_hue, tissue_scene


def vessels(rng: Rng, height: int, width: int, size: float, thin: float) -> Tensor:
    """Branching thin lines in [0, 1]: zero crossings of smooth noise, gated by another."""
    field = fractal_noise(rng, height, width, size, 2, 0.4)
    gate = smoothstep(-0.5, 1.0, smooth_noise(rng, height, width, size * 1.3))
    return (1.0 - field.abs() / thin).clamp(min=0.0) * gate


def endoscope_window(rng: Rng, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance of the black mask of an endoscope's picture."""
    height, width = x.shape
    shape = torch.maximum(x.abs() / width, y.abs() / height) * 2.0 - rng.uniform(0.85, 1.0)
    if rng.chance(0.5):
        beyond = (x.square() + y.square()).sqrt() - 0.5 * max(height, width) * rng.uniform(0.9, 1.25)
    else:
        beyond = (x.abs() + y.abs()) - 0.5 * (height + width) * rng.uniform(0.65, 0.9)
    window = torch.maximum(shape * 0.5 * min(height, width), beyond)
    if rng.chance(0.4):  # the little picture of how the tube lies, in a lower corner
        wide, tall = width * rng.uniform(0.15, 0.35), height * rng.uniform(0.15, 0.35)
        left = rng.choice((-1.0, 1.0), (0.8, 0.2))
        window = torch.maximum(window, torch.minimum(wide - (0.5 * width + left * x), tall - (0.5 * height - y)))
    return window


@dataclass
class _Gut:
    """One view: its light, colours and fine structure, for the wall and for what grows on it."""

    rng: Rng
    x: Tensor
    y: Tensor
    light: Light
    deep: Tensor
    pale: Tensor
    fine: Tensor  # (H, W) pixels of height: the wall's own roughness

    @property
    def side(self) -> int:
        return min(self.x.shape)

    def lit(self, heights: Tensor, tone: Tensor, strength: float) -> Tensor:
        """(3, H, W): a wall of these heights, from deep to pale by tone in [0, 1]."""
        diffuse, highlight = relief(heights + self.fine, self.light, strength)
        return ramp(tone.clamp(0.0, 1.0), self.deep, self.pale) * diffuse + (1.6 * highlight - 0.5).clamp(0.0, 0.8)


def _gut(rng: Rng, x: Tensor, y: Tensor) -> _Gut:
    """A lamp beside the lens or anywhere, two colours, and how rough the wall is."""
    light = Light(0.0, 0.0, 1.0, rng.uniform(0.1, 0.5), rng.uniform(0.3, 1.3), rng.log_uniform(40.0, 400.0))
    if rng.chance(0.5):
        light = random_light(rng, rng.uniform(0.3, 1.3))
    deep = random_hue(rng, -0.04, 0.06, (0.5, 0.85), (0.3, 0.7))
    pale = random_hue(rng, -0.02, 0.1, (0.2, 0.6), (0.65, 1.0))
    fine = rng.log_uniform(0.1, 1.2) * spectral_noise(rng, x.shape[0], x.shape[1], rng.uniform(1.2, 2.0))
    return _Gut(rng, x, y, light, deep, pale, fine)


@scene("mucosa", weight=1.0)
def mucosa(rng: Rng, height: int, width: int) -> Scene:
    side = min(height, width)
    x, y = pixel_grid(rng, height, width)
    gut = _gut(rng, x, y)
    wander = smooth_noise(rng, height, width, side * rng.uniform(0.15, 0.5))
    cx, cy = rng.normal(0.0, 0.25) * width, rng.normal(0.0, 0.25) * height
    sectors = torch.atan2(y - cy, x - cx) * rng.choice((2.0, 3.0)) + rng.uniform(0.0, 6.3)
    radius = ((x - cx).square() + (y - cy).square()).sqrt() + side * rng.uniform(0.02, 0.12) * wander
    shaped = radius * (1.0 + rng.uniform(0.0, 0.25) * torch.cos(sectors))
    tube = rng.choice(("ripples", "folds", "wall"), (0.25, 0.45, 0.3))
    heights = 0.15 * side * smooth_noise(rng, height, width, side * rng.uniform(0.2, 0.6)) * rng.uniform(0.2, 1.0)
    if tube == "ripples":
        rings = torch.sin(radius * 2.0 * math.pi / (side * rng.uniform(0.15, 0.5)) + rng.uniform(0.0, 6.3))
        heights = heights + side * rng.uniform(0.01, 0.05) * (1.0 - rings.abs()).square()
    image = gut.lit(heights, 0.5 + 0.25 * wander, rng.uniform(0.3, 1.4))
    if rng.chance(0.75):
        web = vessels(rng, height, width, side * rng.uniform(0.15, 0.4), rng.uniform(0.04, 0.15))
        image = over(image, gut.deep * rng.uniform(0.5, 0.9), web * rng.uniform(0.1, 0.6))
    if tube == "folds":
        image = image * _folds(gut, shaped)
    shade = _lamplight(gut, radius, shaped)
    wall = image * shade
    window = endoscope_window(rng, x, y) if rng.chance(0.6) else torch.full_like(x, -9.0)

    def seen(picture: Tensor) -> Tensor:
        return (picture * coverage(window, 2.0)).clamp(0.0, 1.0)

    before = seen(wall)
    noun = rng.choice(["mucosa", "colon mucosa", "bowel wall", "endoscopy image of the colon"])
    drawn = tissue_scene(rng, before, "mucosa", noun, window < 0)

    def grown(large: float) -> Callable[[], tuple[Tensor, Tensor]]:
        def draw() -> tuple[Tensor, Tensor]:
            change = seen(_with_polyp(gut, wall, shade, heights, window, large)) - before
            return difference(drawn.image, (drawn.image + change).clamp(0.0, 1.0))

        return draw

    drawn.variants = {"polyp": grown(0.3), "large polyp": grown(0.75)}
    return drawn


def _lamplight(gut: _Gut, radius: Tensor, shaped: Tensor) -> Tensor:
    """How much of the lamp's light arrives, (H, W): less away from where it points, and perhaps none in the tube."""
    rng, side = gut.rng, gut.side
    shade = 1.0 / (1.0 + (radius / (side * rng.uniform(0.4, 1.2))).square())
    if rng.chance(0.5):  # the dark far from the lamp
        shade = shade * smoothstep(0.0, side * rng.uniform(0.1, 0.45), shaped)
    return rng.uniform(0.2, 0.5) + shade


def _folds(gut: _Gut, radius: Tensor) -> Tensor:
    """A factor (H, W): folds one behind the other towards the far end, each bright at its rim, dark behind it."""
    rng, side = gut.rng, gut.side
    depth = torch.log1p(radius.clamp(min=0.0) / (side * rng.uniform(0.05, 0.2))) * rng.uniform(1.0, 2.6)
    waves = smooth_noise(rng, radius.shape[0], radius.shape[1], side * rng.uniform(0.2, 0.5))
    behind = (depth + 0.25 * waves + rng.uniform(0.0, 1.0)) % 1.0
    rim = smoothstep(0.0, rng.uniform(0.03, 0.15), behind)  # behind is 0 just outside a rim and 1 just inside
    return 1.0 - rng.uniform(0.3, 0.85) * rim * (0.25 + 0.75 * behind)


def _with_polyp(gut: _Gut, wall: Tensor, shade: Tensor, heights: Tensor, window: Tensor, large: float) -> Tensor:
    """The wall with one lump on it: one to three lobes, lit by the same lamp, its skin much like the wall's."""
    rng, side, x, y = gut.rng, gut.side, gut.x, gut.y
    height, width = x.shape
    room = (window < -0.03 * side).nonzero()
    row, column = room[rng.integer(0, len(room) - 1)].tolist() if len(room) else (side // 2, side // 2)
    size = side * (rng.uniform(0.1, 0.35) if rng.chance(large) else rng.log_uniform(0.03, 0.15))  # its radius
    u, v = turned(x - x[row, column], y - y[row, column], rng.uniform(0.0, 6.3))
    lump = torch.full_like(u, 9e3)
    for k in range(rng.choice((1, 2, 3), (0.6, 0.25, 0.15))):
        ratio, part = rng.log_uniform(0.6, 1.0), size * (1.0 if k == 0 else rng.uniform(0.4, 0.9))
        at_u, at_v = (0.0, 0.0) if k == 0 else (rng.normal(0.0, 0.6) * size, rng.normal(0.0, 0.6) * size)
        lump = torch.minimum(lump, disc(u - at_u, (v - at_v) / ratio, part))
    lump = lump + rng.uniform(0.02, 0.15) * size * smooth_noise(rng, height, width, size * rng.uniform(0.4, 1.0))
    rise = (-lump / size).clamp(0.0, 1.0)  # 0 at the outline, 1 in the middle
    dome = size * rng.uniform(0.3, 1.0) * (1.0 - (1.0 - rise).square()).clamp(min=0.0).sqrt()
    own = rng.log_uniform(0.1, 1.0) * spectral_noise(rng, height, width, rng.uniform(0.8, 1.8))
    tone = 0.5 + rng.uniform(-0.4, 0.4) + rng.uniform(0.02, 0.2) * own
    skin = gut.lit(heights * rng.uniform(0.0, 0.5) + dome + own, tone, rng.uniform(0.4, 1.2))
    tint = random_hue(rng, -0.05, 0.12, (0.0, 0.5), (0.85, 1.0))
    skin = skin * (tint if rng.chance(0.6) else 1.0) * (0.6 + 0.4 * rise) * rng.uniform(0.8, 1.7)
    inside = (lump < 0).float()
    near = (wall.mean(0) * inside).sum() / (skin.mean(0) * inside).sum().clamp(min=1e-3)
    skin = skin * (0.3 * shade.mean() + 0.7 * near)  # it stands in the light of the place, a little nearer to the lamp
    alpha = coverage(lump, rng.log_uniform(1.5, 0.4 * size + 2.0))
    under = (1.0 - lump.clamp(min=0.0) / (size * rng.uniform(0.1, 0.4))).clamp(min=0.0)  # its shadow on the wall
    return over(wall * (1.0 - rng.uniform(0.0, 0.5) * under), skin, alpha * rng.uniform(0.75, 1.0))
