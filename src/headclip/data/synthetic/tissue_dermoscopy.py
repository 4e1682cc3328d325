"""Skin under a dermatoscope: pigment that takes light from it, and lesions as its own defects.

What colours skin is drawn as what absorbs light in it (Beer and Lambert): an amount per pixel of melanin, of blood and
of melanin that lies deep and looks blue. Freckles are normal; a lesion is more of the same with an outline and a
structure of its own. Hairs, bubbles of gel, a scale and pen marks lie above both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.lettering import glyph_rows
from headclip.data.synthetic.noise import cell_noise, enlarged, fractal_noise, smooth_noise, spectral_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import (
    colour_of,
    coverage,
    disc,
    over,
    pixel_grid,
    random_light,
    relief,
    segment,
    smoothstep,
    turned,
)
from headclip.data.synthetic.tissue_base import random_hue, tissue_scene
from headclip.data.synthetic.tissue_view import hairs

NOUNS = ["skin", "skin under a dermatoscope", "dermoscopy image of skin", "human skin"]


@dataclass
class _Pigment:
    """How much of each absorber lies in each pixel, (H, W), and how high the skin stands, in pixels."""

    melanin: Tensor
    blood: Tensor
    deep: Tensor
    height: Tensor

    def __add__(self, other: _Pigment) -> _Pigment:
        return _Pigment(self.melanin + other.melanin, self.blood + other.blood, self.deep + other.deep,
                        self.height + other.height)  # fmt: skip


@dataclass
class _Skin:
    """One place of skin: its own pigment and relief, and the absorbers' and the lamp's colours."""

    rng: Rng
    x: Tensor
    y: Tensor
    own: _Pigment
    absorbed: list[Tensor]  # by melanin, blood and deep melanin: (3, 1, 1) each
    white: Tensor  # (3, 1, 1): what skin without any of them looks like
    shade: Tensor  # (H, W): the lamp

    @property
    def side(self) -> int:
        return min(self.x.shape)

    def seen(self, pigment: _Pigment, light: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """(3, H, W) of this amount of pigment, before anything that lies above the skin."""
        amounts = (pigment.melanin, pigment.blood, pigment.deep)
        taken = [amount.clamp(min=0.0) * colour for amount, colour in zip(amounts, self.absorbed, strict=True)]
        diffuse, gleam = light(pigment.height)
        return self.white * torch.exp(-torch.stack(taken).sum(0)) * diffuse * self.shade + gleam


def _furrows(rng: Rng, x: Tensor, y: Tensor) -> Tensor:
    """The fine net of lines of healthy skin, (H, W), in pixels of height."""
    height, width = x.shape
    period = max(3.0, min(height, width) * rng.log_uniform(0.015, 0.06))
    u, v = turned(x, y, rng.uniform(0.0, 3.2))
    bend = 0.4 * smooth_noise(rng, height, width, period * 2.5)
    v = v / rng.uniform(0.5, 1.0)
    first, second, _ = cell_noise(rng, (u / period + bend + 32.0)[::2, ::2], (v / period + bend + 32.0)[::2, ::2], 0.9)
    return enlarged((second - first).clamp(max=0.3), height, width) * period


def _spots(rng: Rng, x: Tensor, y: Tensor, period: float, share: float, size: float) -> Tensor:
    """Round spots in [0, 1], one at most in each cell of `period` pixels, there in `share` of the cells."""
    first, _, cell = cell_noise(rng, x / period + 32.0, y / period + 32.0, 0.9)
    there = (rng.rand(4096) < share).float() * (0.4 + 0.6 * rng.rand(4096))
    radius = size * (0.5 + 0.8 * rng.rand(4096))
    return smoothstep(1.0, 0.3, first / radius[cell]) * there[cell]


def _skin(rng: Rng, height: int, width: int) -> _Skin:
    """Healthy skin: pale to brown, even or mottled, with freckles, follicles or vessels perhaps."""
    side = min(height, width)
    x, y = pixel_grid(rng, height, width)
    mottle = fractal_noise(rng, height, width, side * rng.uniform(0.05, 0.4), 4, 0.6)
    melanin = rng.choice((rng.uniform(0.0, 0.3), rng.uniform(0.2, 1.0)), (0.6, 0.4)) + rng.uniform(0.0, 0.06) * mottle
    flush = smooth_noise(rng, height, width, side * rng.uniform(0.1, 0.6))
    blood = rng.uniform(0.05, 0.5) + rng.log_uniform(0.01, 0.1) * flush
    if rng.chance(0.4):  # freckles
        period = side * rng.log_uniform(0.06, 0.25)
        warp = 0.15 * period * smooth_noise(rng, height, width, 0.3 * period)
        freckles = _spots(rng, x + warp, y - warp, period, rng.uniform(0.1, 0.8), rng.uniform(0.1, 0.35))
        melanin = melanin + rng.log_uniform(0.03, 0.3) * freckles
    if rng.chance(0.3):  # follicles
        period = side * rng.log_uniform(0.03, 0.1)
        melanin = melanin + rng.choice((-0.2, 0.4)) * _spots(rng, x, y, period, 0.7, rng.uniform(0.08, 0.2))
    if rng.chance(0.4):  # vessels
        field = fractal_noise(rng, height, width, side * rng.uniform(0.08, 0.3), 2, 0.4)
        gate = smoothstep(0.0, 1.0, smooth_noise(rng, height, width, side * 0.3))
        blood = blood + rng.log_uniform(0.05, 0.4) * (1.0 - field.abs() / rng.uniform(0.03, 0.1)).clamp(min=0.0) * gate
    grain = rng.log_uniform(0.005, 0.03) * spectral_noise(rng, height, width, rng.uniform(0.3, 1.2))
    own = _Pigment(melanin + grain, blood, torch.zeros_like(x), _furrows(rng, x, y) * rng.log_uniform(0.01, 0.3))
    absorbed = [
        colour_of(rng, (rng.uniform(0.25, 0.5), rng.uniform(0.6, 0.9), rng.uniform(0.9, 1.4))),
        colour_of(rng, (rng.uniform(0.02, 0.2), rng.uniform(0.7, 1.0), rng.uniform(0.5, 0.9))),
        colour_of(rng, (rng.uniform(0.8, 1.1), rng.uniform(0.6, 0.9), rng.uniform(0.3, 0.7))),
    ]
    at = (x - 0.2 * width * rng.normal(0.0, 1.0)).square() + (y - 0.2 * height * rng.normal(0.0, 1.0)).square()
    shade = 1.0 / (1.0 + at / (side * rng.uniform(0.8, 4.0)) ** 2)
    white = random_hue(rng, 0.02, 0.12, (0.0, 0.2), (0.75, 1.1))
    return _Skin(rng, x, y, own, absorbed, white, shade * rng.uniform(0.7, 1.1))


def _outline(skin: _Skin, row: float, column: float, size: float) -> tuple[Tensor, Tensor, Tensor]:
    """Signed distance of a lesion's outline in its radii, (H, W), below 0 inside; and the frame it was drawn in."""
    rng = skin.rng
    height, width = skin.x.shape
    u, v = turned(skin.x - column, skin.y - row, rng.uniform(0.0, 2.0 * math.pi))
    radius, ratio = 0.5 * size, rng.uniform(0.55, 1.0)
    lump = disc(u / math.sqrt(ratio), v * math.sqrt(ratio), radius)
    for _ in range(rng.choice((0, 1, 2), (0.5, 0.3, 0.2))):
        lump = torch.minimum(lump, disc(u - rng.normal(0.0, 0.5) * radius, v - rng.normal(0.0, 0.5) * radius,
                                        radius * rng.uniform(0.35, 0.8)))  # fmt: skip
    wide = fractal_noise(rng, height, width, max(3.0, radius * rng.uniform(0.3, 1.0)), 3, rng.uniform(0.4, 0.8))
    lump = lump + rng.uniform(0.02, 0.25) * radius * wide
    if rng.chance(0.35):  # streaks that run outwards
        around = torch.atan2(v, u) * rng.integer(6, 25) + 2.0 * smooth_noise(rng, height, width, radius)
        lump = lump + rng.uniform(0.02, 0.12) * radius * torch.sin(around)
    return lump / radius, u / radius, v / radius


def _texture(skin: _Skin, size: float, u: Tensor, v: Tensor) -> Tensor:
    """What is drawn within a lesion, (H, W), about 1: even, clouded, netted, or in globules."""
    rng = skin.rng
    height, width = skin.x.shape
    clouds = fractal_noise(rng, height, width, max(2.0, size * rng.uniform(0.08, 0.5)), 4, rng.uniform(0.4, 0.8))
    texture = 1.0 + rng.uniform(0.05, 0.5) * clouds
    if rng.chance(0.5):
        texture = texture + rng.uniform(-0.8, 0.8) * (u * rng.uniform(-1.0, 1.0) + v * rng.uniform(-1.0, 1.0))
    style = rng.choice(("none", "net", "globules"), (0.4, 0.35, 0.25))
    period = max(3.0, skin.side * rng.log_uniform(0.008, 0.03))
    warp = 0.6 * period * smooth_noise(rng, height, width, 2.0 * period)
    if style == "net":
        first, second, _ = cell_noise(rng, (skin.x + warp) / period + 32.0, (skin.y - warp) / period + 32.0, 0.8)
        lines = smoothstep(rng.uniform(0.25, 0.5), 0.0, second - first)
        texture = texture * (1.0 - rng.uniform(0.2, 0.6)) + texture * lines * rng.uniform(0.3, 1.2)
    elif style == "globules":
        spots = _spots(rng, skin.x + warp, skin.y - warp, 1.5 * period, 0.6, rng.uniform(0.2, 0.4))
        texture = texture + rng.uniform(-0.5, 1.5) * spots
    return texture.clamp(min=0.05)


def _lesion(skin: _Skin, size: float, pull: float) -> tuple[_Pigment, Tensor]:
    """One lesion `size` pixels across, `pull` of the way to the middle: its pigment, and where it is, (H, W) bool."""
    rng = skin.rng
    height, width = skin.x.shape
    row, column = rng.uniform(-0.5, 0.5) * height * (1.0 - pull), rng.uniform(-0.5, 0.5) * width * (1.0 - pull)
    away, u, v = _outline(skin, row, column, size)
    soft = rng.log_uniform(0.05, 0.8)
    inside = smoothstep(0.5 * soft, -soft, away)
    amount = inside * _texture(skin, size, u, v)
    kind = rng.choice(("brown", "dark", "red", "faint", "mixed"), (0.35, 0.2, 0.15, 0.1, 0.2))
    low, high = {"brown": (0.35, 1.1), "dark": (1.0, 3.5), "red": (0.0, 0.25), "faint": (0.12, 0.4),
                 "mixed": (0.4, 2.0)}[kind]  # fmt: skip
    melanin = rng.uniform(low, high) * amount
    blood = inside * rng.uniform(*((0.3, 1.2) if kind == "red" else (0.0, 0.4)))
    if kind == "red":
        blood = blood * _texture(skin, size, u, v)
    deep = torch.zeros_like(melanin)
    if kind == "mixed" or rng.chance(0.15):  # blue veils, and places where the pigment is gone
        cell = max(3.0, size * rng.uniform(0.2, 0.6))
        veil = smoothstep(0.0, 1.0, fractal_noise(rng, height, width, cell, 3, 0.6) - rng.uniform(-0.5, 0.8)) * inside
        deep = veil * rng.uniform(0.2, 1.5)
        gone = smoothstep(0.0, 1.0, fractal_noise(rng, height, width, cell, 3, 0.6) - rng.uniform(0.0, 1.2))
        melanin = melanin * (1.0 - rng.uniform(0.3, 1.0) * gone)
    rise = torch.zeros_like(melanin)
    if rng.chance(0.3):  # raised
        rise = size * rng.uniform(0.03, 0.3) * (-away).clamp(0.0, 1.0).sqrt()
        rise = rise + rng.uniform(0.0, 1.0) * inside * fractal_noise(rng, height, width, max(3.0, 0.1 * size))
    return _Pigment(melanin, blood, deep, rise), inside > 0.35


def _ring(distance: Tensor, thin: float) -> Tensor:
    return coverage(distance.abs() - thin, 1.5)


def _above(skin: _Skin) -> Callable[[Tensor], Tensor]:
    """What lies above the skin in this picture: a change for this and every other painting of it."""
    rng, side, x, y = skin.rng, skin.side, skin.x, skin.y
    height, width = x.shape
    layers: list[tuple[Tensor, Tensor]] = []
    dark = colour_of(rng, (0.08, 0.06, 0.06))
    if rng.chance(0.45):
        layers.append((dark * rng.uniform(0.5, 4.0), hairs(rng, height, width) * rng.uniform(0.4, 1.0)))
    if rng.chance(0.35):  # bubbles of gel
        bubbles = torch.zeros_like(x)
        for _ in range(rng.integer(1, 12)):
            at = disc(x - rng.uniform(-0.5, 0.5) * width, y - rng.uniform(-0.5, 0.5) * height,
                      side * rng.log_uniform(0.005, 0.06))  # fmt: skip
            bubbles = torch.maximum(bubbles, _ring(at, 0.8) * rng.uniform(0.2, 0.8))
        layers.append((colour_of(rng, (1.0, 1.0, 1.0)) * rng.uniform(0.7, 1.0), bubbles))
    if rng.chance(0.3):
        layers.append((dark * rng.uniform(1.0, 5.0), _scale(rng, x, y) * rng.uniform(0.4, 1.0)))
    if rng.chance(0.15):  # pen
        scribble = fractal_noise(rng, height, width, side * rng.uniform(0.05, 0.15), 2, 0.4)
        place = disc(x - rng.uniform(-0.5, 0.5) * width, y - rng.uniform(-0.5, 0.5) * height, 0.12 * side)
        pen = (1.0 - scribble.abs() / 0.15).clamp(min=0.0) * coverage(place, 4.0) * rng.uniform(0.2, 0.7)
        layers.append((random_hue(rng, 0.65, 0.8, (0.4, 0.9), (0.3, 0.7)), pen))
    if rng.chance(0.2):  # the rim of the glass
        rim = disc(x - rng.normal(0.0, 0.1) * width, y - rng.normal(0.0, 0.1) * height, side * rng.uniform(0.35, 0.7))
        layers.append((colour_of(rng, (1.0,) * 3) * rng.uniform(0.2, 1.0), _ring(rim, 1.5) * rng.uniform(0.1, 0.5)))
    lens = None
    if rng.chance(0.25):  # the round field, or its corners only
        middle = (x.square() + y.square()).sqrt()
        lens = coverage(middle - 0.5 * side * rng.uniform(0.9, 1.5), rng.log_uniform(2.0, 60.0))

    def change(picture: Tensor) -> Tensor:
        for colour, alpha in layers:
            picture = over(picture, colour, alpha)
        return picture if lens is None else picture * lens

    return change


def _scale(rng: Rng, x: Tensor, y: Tensor) -> Tensor:
    """A printed scale: a line with short and long ticks, and letters beside it, (H, W) in [0, 1]."""
    height, width = x.shape
    side = min(height, width)
    where = rng.choice((-1.0, 1.0), (0.2, 0.8)) * rng.uniform(0.3, 0.46) * height
    u, v = turned(x, y, rng.normal(0.0, 0.2), 0.0, where)
    half, pitch, tall = side * rng.uniform(0.2, 0.5), side * rng.uniform(0.012, 0.06), side * rng.uniform(0.01, 0.03)
    thin = side * rng.uniform(0.001, 0.003)
    line = coverage(segment(u, v, -half, 0.0, half, 0.0, thin), 1.2)
    order = torch.round(u / pitch)
    long = tall * (1.0 + (order % 5 == 0).float())
    ticks = coverage((u - order * pitch).abs() - thin, 1.2) * coverage((v + 0.5 * long).abs() - 0.5 * long, 1.0)
    marks = torch.maximum(line, ticks * (u.abs() <= half))
    letters, _ = glyph_rows(rng, u + half - 2.0 * tall, v - 2.0 * tall, max(4.0, 1.5 * tall), 2, 1)
    return torch.maximum(marks, letters) if rng.chance(0.6) else marks


@scene("dermoscopy", weight=3.5)
def dermoscopy(rng: Rng, height: int, width: int) -> Scene:
    """Skin through a dermatoscope, with lesions as its own defects."""
    skin = _skin(rng, height, width)
    lamp, strength = random_light(rng), rng.uniform(0.2, 1.0)
    gloss = rng.uniform(0.0, 0.4)

    def light(heights: Tensor) -> tuple[Tensor, Tensor]:
        diffuse, gleam = relief(heights, lamp, strength)
        return diffuse, gloss * gleam

    above, noise = _above(skin), rng.log_uniform(0.002, 0.02) * rng.randn(height, width)

    def seen(pigment: _Pigment) -> Tensor:
        return (above(skin.seen(pigment, light)) + noise).clamp(0.0, 1.0)

    before = seen(skin.own)
    drawn = tissue_scene(rng, before, "dermoscopy", rng.choice(NOUNS))

    def lesions(sizes: tuple[float, float], most: int) -> Callable[[], tuple[Tensor, Tensor]]:
        def draw() -> tuple[Tensor, Tensor]:
            grown, there = skin.own, torch.zeros(height, width, dtype=torch.bool, device=rng.device)
            for _ in range(rng.integer(1, most)):
                size = skin.side * rng.log_uniform(*sizes)
                one, where = _lesion(skin, size, rng.uniform(0.0, 0.9) if rng.chance(0.8) else 0.0)
                grown, there = grown + one, there | where
            return torch.where(there, (drawn.image + seen(grown) - before).clamp(0.0, 1.0), drawn.image), there

        return draw

    drawn.variants = {"lesion": lesions((0.1, 0.4), 1), "large lesion": lesions((0.3, 0.85), 1),
                      "lesions": lesions((0.05, 0.2), 4)}  # fmt: skip
    return drawn
