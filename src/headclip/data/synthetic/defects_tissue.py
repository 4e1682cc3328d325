"""Defects of tissue: polyps, moles, tumours and ulcers, as endoscopy, dermoscopy and tomography show them."""

from __future__ import annotations

import math

import torch

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.defects_base import (
    Canvas,
    Change,
    blob_at,
    cover,
    defect,
    ellipse,
    shade,
    soft_noise,
    tone,
)
from headclip.data.synthetic.shapes import smoothstep

TISSUE = ("tissue",)
INNER = ("mucosa", "skin", "stained_tissue")
SCANS = ("head", "brain", "body_slice", "xray", "chest", "ultrasound", "oct", "stained_tissue")


def _size(canvas: Canvas, rng: Rng, low: float = 8, share: float = 0.5) -> float:
    return rng.log_uniform(low, max(low + 2, share * canvas.short))


def _lesion(canvas: Canvas, rng: Rng, large: float) -> tuple[float, float, float]:
    """Row, column and diameter in pixels: small and anywhere, or, `large` of the time, up to three quarters of the
    short side and nearer to the middle, where whoever takes a picture of a lesion puts it."""
    row, column = canvas.spot(rng)
    if not rng.chance(large):
        return row, column, _size(canvas, rng)
    size, pull = rng.uniform(0.2, 0.75) * canvas.short, rng.uniform(0.0, 0.8)
    return row + pull * (canvas.height / 2 - row), column + pull * (canvas.width / 2 - column), size


def _seen(canvas: Canvas, size: float, contrast: float) -> float:
    """A contrast that can be made out: what fills much of the picture at the faintest cannot be told from light."""
    return max(contrast, min(0.2, 0.4 * size / canvas.short))


@defect("polyp", weight=1.5, kinds=TISSUE, families=INNER, few=True)
def polyp(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A raised dome: lit on one side, in shade on the other, redder or paler than around, with a wet
    highlight."""
    row, column, size = _lesion(canvas, rng, large=0.6)
    distance, box = ellipse(rng, canvas, row, column, size, margin=1.3, flat=1.8)
    distance = distance + rng.uniform(0.05, 0.25) * soft_noise(rng, box.height, box.width, rng.integer(2, 4))
    crop = canvas.crop(box)
    inside = smoothstep(0, 1, (1 - distance) * rng.uniform(2.5, 7.0))
    rows, columns = canvas.offsets(box, row, column)
    angle = rng.uniform(0, 2 * math.pi)
    lit = (rows * math.sin(angle) + columns * math.cos(angle)) / (size / 2)
    change = abs(tone(rng, crop, min(1.0, 1.5 * _seen(canvas, size, contrast)), floor=2.0))
    rim = (1 - ((distance - 0.95) * 5).abs()).clamp(0, 1)
    relief = change * (0.9 * lit.clamp(-1, 1) + rng.uniform(-0.4, 0.6)) * inside - 0.6 * change * rim
    pixels = crop * (1 + relief / max(float(crop.mean()), 0.15))
    if canvas.channels == 3 and rng.chance(0.6):
        red = canvas.colour(rng.uniform(0.0, 0.15), rng.uniform(-0.15, 0.05), rng.uniform(-0.12, 0.05))
        pixels = pixels + red * inside
    if rng.chance(0.5):
        gleam = smoothstep(0, 1, 1 - (((lit - 0.4) * 3).abs() + 1.5 * (distance - 0.2).clamp(min=0)))
        pixels = pixels + (1 - pixels) * (gleam * inside * rng.uniform(0.3, 0.9))
    return Change(box, pixels, support=inside)


@defect("mole", weight=1.2, kinds=TISSUE, families=INNER, few=True)
def mole(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A dark brown irregular spot with a soft edge and uneven pigment."""
    row, column, size = _lesion(canvas, rng, large=0.7)
    ragged, soft = rng.uniform(0.1, 0.5), rng.uniform(0.15, 0.7)
    box, alpha = blob_at(rng, canvas, row, column, size, ragged=ragged, soft=soft)
    crop = canvas.crop(box)
    change = tone(rng, crop, max(_seen(canvas, size, contrast), 0.1), dark=0.97, floor=1.5)
    pigment = alpha * (0.8 + 0.3 * soft_noise(rng, box.height, box.width, rng.integer(3, 8))).clamp(0, 1.2)
    pixels = shade(crop, pigment.clamp(0, 1), change)
    if canvas.channels == 3:
        brown = canvas.colour(0.0, -0.25 * abs(change), -0.4 * abs(change))
        pixels = pixels + brown * pigment
    return Change(box, pixels)


@defect("tumour", weight=1.2, kinds=TISSUE, families=SCANS, few=True)
def tumour(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A bright blob, sometimes with a brighter ring, a dark core and a paler swelling around it."""
    size = _size(canvas, rng, share=0.4)
    row, column = canvas.spot(rng)
    distance, box = ellipse(rng, canvas, row, column, size, margin=1.7, flat=1.8)
    distance = distance + rng.uniform(0.05, 0.3) * soft_noise(rng, box.height, box.width, rng.integer(2, 5))
    crop = canvas.crop(box)
    change = tone(rng, crop, max(contrast, 0.1), dark=0.12, floor=1.5)
    inside = support = smoothstep(0, 1, (1 - distance) * rng.uniform(2.0, 6.0))
    if size > 14 and rng.chance(0.4):
        core = smoothstep(0, 1, (rng.uniform(0.3, 0.65) - distance) * 5)
        inside = inside * (1 - rng.uniform(0.4, 1.3) * core)
    pixels = shade(crop, inside.clamp(0, 1), change)
    if rng.chance(0.4):
        swelling = smoothstep(0, 1, (1.5 - distance) * 1.6) * (1 - inside.clamp(0, 1))
        pixels = shade(pixels, swelling, rng.choice((-0.4, 0.4)) * change)
        support = torch.maximum(support, swelling)
    return Change(box, pixels, support=support)


@defect("ulcer", weight=0.7, kinds=TISSUE, families=INNER, few=True)
def ulcer(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A sore: a pale or dark bed inside an inflamed border."""
    size = _size(canvas, rng, share=0.35)
    row, column = canvas.spot(rng)
    distance, box = ellipse(rng, canvas, row, column, size, margin=1.4, flat=2.0)
    distance = distance + 0.25 * soft_noise(rng, box.height, box.width, rng.integer(3, 5))
    crop = canvas.crop(box)
    change = tone(rng, crop, max(contrast, 0.1), dark=0.5, floor=1.5)
    bed, border = smoothstep(0, 1, (0.8 - distance) * 4), (1 - ((distance - 0.9) * 4).abs()).clamp(0, 1)
    pixels = shade(crop, bed, change)
    sore = crop.mean((1, 2), keepdim=True) * canvas.colour(0.95, 0.55, 0.5)
    return Change(box, cover(pixels, border * min(1.0, 2 * abs(change)), sore), support=torch.maximum(bed, border))
