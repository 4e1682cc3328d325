"""Soft surfaces: woven cloth, knit, nonwoven cloth, carpet, felt, leather."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.finishing import surface
from headclip.data.synthetic.noise import cell_noise, enlarged, smooth_noise, spectral_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import Ink, over, ramp, random_light, relief, textile_frame


def _weave(rng: Rng, i: Tensor, j: Tensor) -> Tensor:
    """True where the warp thread i lies over the weft thread j: plain, basket, twill, satin or patterned."""
    style = rng.choice(["plain", "basket", "twill", "satin", "herringbone", "pattern"])
    if style == "plain":
        return (i + j) % 2 == 0
    if style == "basket":
        n = rng.integer(2, 3)
        return (i // n + j // n) % 2 == 0
    if style == "twill":
        n = rng.integer(3, 6)
        return (i + j) % n < rng.integer(1, n - 1)
    if style == "satin":
        n, step = rng.choice([(5, 2), (7, 3), (8, 3)])
        return (i * step + j) % n == 0
    if style == "herringbone":
        half = rng.integer(4, 12)
        return (torch.where((i // half) % 2 == 0, i, -i) + j) % 4 < 2
    n = rng.integer(3, 8)
    return (rng.rand(n, n) < 0.5)[i % n, j % n]


@scene("fabric", weight=1.6)
def fabric(rng: Rng, height: int, width: int) -> Scene:
    side = min(height, width)
    period = max(3.0, side * rng.log_uniform(0.012, 0.12))
    u, v = textile_frame(rng, height, width)
    u, v = u / period, v / (period * rng.choice([1.0, rng.uniform(0.6, 1.6)])) + 100.0
    i, j = u.floor(), v.floor()
    fu, fv = u - i - 0.5, v - j - 0.5
    i, j = i.long(), j.long()
    up = _weave(rng, i, j)
    roundness = rng.uniform(1.5, 4.0)
    # A thread is a cylinder across its width that dips at both ends where it goes under.
    warp_height = (1.0 - roundness * fu.square()) * (1.0 - rng.uniform(0.2, 1.2) * fv.square())
    weft_height = (1.0 - roundness * fv.square()) * (1.0 - rng.uniform(0.2, 1.2) * fu.square())
    height_field = torch.where(up, warp_height, weft_height)
    uneven = rng.log_uniform(0.01, 0.2)
    threads = rng.randn(2, 512) * uneven
    tone = torch.where(up, threads[0][i & 511], threads[1][j & 511])
    tone = tone + spectral_noise(rng, height, width, rng.uniform(0.2, 1.0)) * rng.log_uniform(0.02, 0.12)
    if rng.chance(0.5):
        diffuse, _ = relief(height_field * period * rng.uniform(0.1, 0.4), random_light(rng, 0.0))
        value = 0.6 * diffuse - 0.1 + 0.2 * height_field
    else:
        value = height_field * rng.uniform(0.4, 0.9)
    ink = Ink(rng)
    dark, bright = ink.pair()
    image = ramp(value + tone, dark, bright)
    if rng.chance(0.5):
        strength = rng.uniform(0.1, 0.9)
        other = ink.pair()[1]
        select = up.float()
        if rng.chance(0.5):  # dyed thread groups: checks and stripes
            group = (rng.rand(2, 16) < 0.4).float()
            k = rng.integer(2, 10)
            select = torch.where(up, group[0][(i // k) & 15], group[1][(j // k) & 15] * rng.choice([0.0, 1.0]))
        image = over(image, other * (0.4 + 0.6 * value), select * strength)
    noun = rng.choice(["woven fabric", "fabric", "textile", "cloth", "canvas", "linen"])
    return surface(rng, image, "fabric", noun, ink)


@scene("knit", weight=0.8)
def knit(rng: Rng, height: int, width: int) -> Scene:
    side = min(height, width)
    period = max(4.0, side * rng.log_uniform(0.025, 0.14))
    u, v = textile_frame(rng, height, width, 0.7, 1.5)
    slant = rng.uniform(0.4, 1.6)
    u, v = u / period, v / (period * rng.uniform(0.5, 1.1))
    column = u.floor()
    fu = (u - column - 0.5).abs()  # each stitch is a V: mirror at the column's middle
    turn = v + slant * fu
    row = turn.floor()
    fv = turn - row - 0.5
    value = (1.0 - 3.5 * fv.square()) * (1.0 - (4.0 * fu - 1.0).square() * rng.uniform(0.3, 0.9))
    strands = torch.sin((fv * math.cos(0.6) + (fu - 0.25) * math.sin(0.6)) * 2.0 * math.pi * rng.integer(2, 5))
    value = value + rng.uniform(0.0, 0.15) * strands
    value = value + spectral_noise(rng, height, width, rng.uniform(0.1, 0.8)) * rng.log_uniform(0.03, 0.15)
    ink = Ink(rng, 0.4)
    dark, bright = ink.pair()
    image = ramp(value, dark, bright)
    if rng.chance(0.35):
        bands = (rng.rand(32) < 0.35).float()[(row.long() // rng.integer(1, 6)) & 31]
        image = over(image, ink.pair()[1] * (0.3 + 0.7 * value), bands * rng.uniform(0.3, 0.9))
    return surface(rng, image, "knit", rng.choice(["knitted fabric", "knitwear", "wool fabric"]), ink)


@scene("nonwoven", weight=1.2)
def nonwoven(rng: Rng, height: int, width: int) -> Scene:
    """Fibres without a weave: one grain all over, fine or cloudy, often drawn out along a direction."""
    angle = rng.uniform(0.0, math.pi)
    fibres = spectral_noise(rng, height, width, rng.uniform(0.2, 1.7), rng.log_uniform(1.0, 8.0), angle)
    value = 0.5 + rng.log_uniform(0.04, 0.3) * fibres
    if rng.chance(0.3):
        value = value + rng.uniform(0.03, 0.12) * smooth_noise(rng, height, width, min(height, width) * 0.3)
    ink = Ink(rng)
    dark, bright = ink.pair()
    nouns = ["nonwoven fabric", "felt", "fibre board", "fleece", "filter paper"]
    return surface(rng, ramp(value, dark, bright), "nonwoven", rng.choice(nouns), ink)


@scene("carpet", weight=0.9)
def carpet(rng: Rng, height: int, width: int) -> Scene:
    side = min(height, width)
    scale = max(2.0, side * rng.log_uniform(0.008, 0.05))
    tufts = spectral_noise(rng, height, width, rng.uniform(0.8, 1.8), rng.uniform(1.0, 4.0),
                           rng.uniform(0.0, math.pi), low=1.0 / (3.0 * scale))  # fmt: skip
    value = 0.5 + rng.uniform(0.12, 0.3) * tufts
    if rng.chance(0.6):  # rows or loops of tufts
        u, v = textile_frame(rng, height, width)
        rate = 2.0 * math.pi / (scale * rng.uniform(2.0, 5.0))
        rows = (u * rate + 0.5 * tufts).sin()
        if rng.chance(0.6):
            rows = rows * (v * rate * rng.uniform(0.5, 1.0) + 0.5 * tufts).sin()
        value = value + rng.uniform(0.05, 0.3) * rows
    if rng.chance(0.4):
        value = value + rng.uniform(0.05, 0.15) * smooth_noise(rng, height, width, side * rng.log_uniform(0.05, 0.4))
    ink = Ink(rng)
    dark, bright = ink.pair()
    image = ramp(value, dark, bright)
    if rng.chance(0.3):  # mottled yarns
        yarn = smooth_noise(rng, height, width, 2.0 * scale) > rng.uniform(0.5, 1.5)
        image = over(image, ink.pair()[1] * (0.4 + 0.6 * value), yarn.float() * rng.uniform(0.2, 0.8))
    return surface(rng, image, "carpet", rng.choice(["carpet", "felt", "fleece", "towel", "velvet"]), ink)


@scene("leather", weight=1.0)
def leather(rng: Rng, height: int, width: int) -> Scene:
    side = min(height, width)
    period = max(4.0, side * rng.log_uniform(0.015, 0.12))
    u, v = textile_frame(rng, height, width, 0.3)
    bend = 0.35 * smooth_noise(rng, height, width, period * 1.5)
    u, v = u / period + bend + 32.0, v / (period * rng.uniform(0.7, 1.4)) - bend + 32.0
    coarse = period > 7.0
    if coarse:
        u, v = u[::2, ::2], v[::2, ::2]
    first, second, cell = cell_noise(rng, u, v, rng.uniform(0.6, 1.0))
    crease = (second - first).clamp(max=rng.uniform(0.2, 0.6))
    field = crease * rng.uniform(0.8, 2.0) - rng.uniform(0.0, 0.4) * first
    tone = (rng.rand(4096) - 0.5)[cell] * rng.log_uniform(0.02, 0.3)
    if coarse:
        field, tone = enlarged(field, height, width), enlarged(tone, height, width)
    field = field + 0.06 * spectral_noise(rng, height, width, rng.uniform(0.5, 1.5))
    diffuse, highlight = relief(field * period * rng.uniform(0.15, 0.6), random_light(rng))
    ink = Ink(rng, 0.4)
    dark, bright = ink.pair()
    image = ramp((0.75 * diffuse + tone).clamp(0.0, 1.2), dark, bright) + 0.4 * highlight
    return surface(rng, image, "leather", rng.choice(["leather", "rubber sheet", "vinyl", "artificial leather"]), ink)
