"""Area-like defects on any object: holes, stains, dents, dirt, blisters, rust, broken areas."""

from __future__ import annotations

import math

import torch

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.defects_base import (
    Canvas,
    Change,
    blob,
    cover,
    defect,
    ellipse,
    shade,
    soft_noise,
    stroke,
    tone,
    wide,
)
from headclip.data.synthetic.shapes import smoothstep


@defect("hole", weight=1.3)
def hole(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A hole or pit: dark inside with a sharp edge, sometimes with a lit rim."""
    size = canvas.extent(rng, share=0.25)
    row, column = canvas.spot(rng)
    distance, box = ellipse(rng, canvas, row, column, size, margin=1.35, flat=1.8)
    if size > 8:
        distance = distance + rng.uniform(0, 0.2) * soft_noise(rng, box.height, box.width, rng.integer(3, 6))
    crop = canvas.crop(box)
    inside = smoothstep(0, 1, (1 - distance) * max(size / 2, 1) / 1.2 + 0.5)
    change = tone(rng, crop, contrast, dark=0.93, floor=1.5)
    depth = inside * (1 - 0.3 * rng.uniform(0, 1) * distance.clamp(0, 1))
    pixels = shade(crop, depth, change)
    if size > 7 and rng.chance(0.4):
        rim = (1 - ((distance - 1.12) * 9).abs()).clamp(0, 1)
        pixels = shade(pixels, rim, -0.5 * change)
    return Change(box, pixels)


@defect("stain", weight=1.5)
def stain(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """Soft-edged and multiplicative: the texture goes on below; sometimes with a darker ring as of a dried
    drop."""
    size = canvas.extent(rng, low=4, share=wide(rng))
    box, alpha = blob(rng, canvas, size, ragged=rng.uniform(0.1, 0.5), soft=rng.uniform(0.1, 0.9))
    crop = canvas.crop(box)
    change = tone(rng, crop, contrast, dark=0.72, floor=1.0)
    if size > 10 and rng.chance(0.25):
        alpha = alpha * (0.35 + 0.65 * (1 - (2 * alpha - 1).abs()))
    if size > 12 and rng.chance(0.4):
        alpha = alpha * (0.75 + 0.25 * soft_noise(rng, box.height, box.width, rng.integer(3, 8)))
    pixels = shade(crop, alpha, change)
    if canvas.channels == 3 and rng.chance(0.5):
        tint = 1 - abs(change) * canvas.random_colour(rng, 0.0, 0.8)
        pixels = pixels * (1 - alpha * (1 - tint))
    return Change(box, pixels)


@defect("spot", weight=1.0)
def spot(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A lesion-like smooth rise or fall of brightness, strongest in the middle."""
    size = canvas.extent(rng, low=4, share=wide(rng))
    row, column = canvas.spot(rng)
    distance, box = ellipse(rng, canvas, row, column, size, margin=1.3)
    if size > 10:
        distance = distance + 0.25 * soft_noise(rng, box.height, box.width, rng.integer(2, 4))
    alpha = smoothstep(0, 1, (1 - distance) * rng.uniform(1.0, 2.0))
    crop = canvas.crop(box)
    return Change(box, shade(crop, alpha, tone(rng, crop, contrast, dark=0.65, floor=1.0)))


@defect("dent", weight=0.9)
def dent(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """Shading of a hollow or bump under slanting light: one side darker, the other brighter."""
    size = canvas.extent(rng, low=6)
    row, column = canvas.spot(rng)
    distance, box = ellipse(rng, canvas, row, column, size, flat=2.0)
    rows, columns = canvas.offsets(box, row, column)
    angle = rng.uniform(0, 2 * math.pi)
    slope = (rows * math.sin(angle) + columns * math.cos(angle)) / (size / 2)
    window = (1 - distance * distance).clamp(min=0)
    crop = canvas.crop(box)
    change = abs(tone(rng, crop, contrast, floor=1.5))
    relief = (slope * window * 2.6).clamp(-1, 1) - 0.25 * window
    return Change(box, crop * (1 + relief * change / max(float(crop.mean()), 0.1)), support=(window * 4).clamp(0, 1))


@defect("contamination", weight=1.2)
def contamination(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A cluster of foreign grains, dark or bright or coloured, covering what is below."""
    reach = canvas.extent(rng, low=5, share=0.3) / 2
    row, column = canvas.spot(rng)
    count = rng.integer(1, 4) if rng.chance(0.5) else rng.integer(5, 30)
    biggest = min(rng.log_uniform(0.8, 5.0), reach)
    centre = torch.tensor([row, column], device=rng.device)
    points = centre + rng.randn(count, 2) * (0.6 * reach if count > 1 else 0.0)
    radius = biggest * (0.35 + 0.65 * rng.rand(count))
    drawn = stroke(canvas, points, radius, 0.6 + 0.4 * rng.rand(count))
    if drawn is None:
        return None
    box, alpha = drawn
    crop = canvas.crop(box)
    change = tone(rng, crop, contrast, dark=0.65, floor=2.0)
    if rng.chance(0.5):
        return Change(box, shade(crop, alpha, change))
    colour = crop.mean((1, 2), keepdim=True) + change + 0.5 * abs(change) * canvas.random_colour(rng, -1, 1)
    return Change(box, cover(crop, alpha, colour.clamp(0, 1)), anywhere=rng.chance(0.3))


@defect("blister", weight=0.7)
def blister(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A bubble: a dark ring, a lit side, a small highlight."""
    size = canvas.extent(rng, low=5, share=0.22)
    row, column = canvas.spot(rng)
    distance, box = ellipse(rng, canvas, row, column, size, margin=1.15, flat=1.4)
    crop = canvas.crop(box)
    change = abs(tone(rng, crop, max(contrast, 0.1), floor=2.5))
    ring = (1 - ((distance - 0.92) * max(3.0, size / 4)).abs()).clamp(0, 1)
    rows, columns = canvas.offsets(box, row, column)
    angle = rng.uniform(0, 2 * math.pi)
    lit = (rows * math.sin(angle) + columns * math.cos(angle)) / (size / 2)
    inside = smoothstep(0, 1, (1 - distance) * 4)
    relief = change * (0.6 * inside * lit.clamp(-1, 1) - ring)
    gleam = smoothstep(0, 1, 1 - ((lit - 0.45).abs() + 0.7 * distance) * 1.6)
    # Light and shade cross at zero inside; the bubble is one thing all the same.
    return Change(box, crop + relief + change * gleam * inside, support=smoothstep(0, 1, (1.15 - distance) * 8))


@defect("rust", weight=0.6, kinds=("surface", "grid", "part"))
def rust(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A grainy brown spot that eats unevenly into the surface."""
    size = canvas.extent(rng, low=5)
    box, alpha = blob(rng, canvas, size, ragged=0.5, soft=rng.uniform(0.3, 0.9))
    crop = canvas.crop(box)
    coarse = soft_noise(rng, box.height, box.width, rng.integer(3, 6))
    grain = rng.rand(box.height, box.width)
    alpha = (alpha * (0.75 + 0.5 * coarse) + 0.35 * (grain - 0.5) * alpha).clamp(0, 1)
    share = min(1.0, max(contrast * 1.5, 0.2))
    brown = canvas.colour(rng.uniform(0.3, 0.55), rng.uniform(0.15, 0.28), rng.uniform(0.03, 0.14))
    return Change(box, cover(crop, alpha * share, brown))


@defect("broken area", weight=1.3, few=True)
def broken_area(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A dark polygon with sharp edges, as a dead region of a solar cell; evenly dark or shaded towards one
    side."""
    size = canvas.extent(rng, low=8, share=0.5)
    row, column = canvas.spot(rng)
    box = canvas.box(row, column, size * 0.75, size * 0.75)
    rows, columns = canvas.offsets(box, row, column)
    inside = torch.full((box.height, box.width), 2.0, device=canvas.device)
    sides, turn = rng.integer(3, 6), rng.uniform(0, 2 * math.pi)
    upright = rng.chance(0.35)  # cells break along their own axes
    for side in range(sides):
        angle = (side * math.pi / 2) if upright else turn + 2 * math.pi * (side + rng.uniform(-0.3, 0.3)) / sides
        away = rng.uniform(0.3, 1.0) * size / 2
        inside = torch.minimum(inside, away - (rows * math.sin(angle) + columns * math.cos(angle)))
    if size > 14 and rng.chance(0.6):
        inside = inside + rng.uniform(0.5, 2.5) * soft_noise(rng, box.height, box.width, rng.integer(4, 9)).abs()
    alpha = (inside + 0.5).clamp(0, 1)
    if rng.chance(0.4):
        alpha = alpha * (0.7 + 0.3 * soft_noise(rng, box.height, box.width, 1))
    crop = canvas.crop(box)
    return Change(box, shade(crop, alpha, tone(rng, crop, contrast, dark=0.93, floor=1.0)))
