"""What lies over every surface: uneven light, and normal marks (seams, borders, stripes, shadows)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.noise import smooth_noise
from headclip.data.synthetic.shapes import Ink, coverage, over, pixel_grid, random_angle, smoothstep, turned


def illumination(rng: Rng, height: int, width: int) -> Tensor:
    """Multiplicative light (H, W) around 1: a slope, a vignette, a spot or soft blotches."""
    x, y = pixel_grid(rng, height, width)
    reach = 0.5 * math.hypot(height, width)
    style = rng.choice(["slope", "vignette", "spot", "blotch"])
    amount = rng.log_uniform(0.05, 0.7)
    if style == "slope":
        along, _ = turned(x, y, rng.uniform(0.0, 2.0 * math.pi))
        return 1.0 + amount * along / reach
    if style == "blotch":
        return 1.0 + 0.3 * amount * smooth_noise(rng, height, width, min(height, width) * rng.uniform(0.25, 0.8))
    spot = style == "spot"
    cx, cy = (rng.normal(0.0, 0.4 if spot else 0.1) * size for size in (width, height))
    radius = ((x - cx).square() + (y - cy).square()) / (reach * rng.uniform(0.5, 1.2)) ** 2
    if spot:
        return 1.0 - 0.4 * amount + amount * torch.exp(-radius)
    return 1.0 - amount * (0.6 * radius).clamp(max=1.2)


def soft_shadow(rng: Rng, height: int, width: int) -> Tensor:
    """A cast shadow or a bright streak (H, W), multiplicative: a band with sharp or soft edges."""
    x, y = pixel_grid(rng, height, width)
    side = min(height, width)
    along, _ = turned(x, y, random_angle(rng, 0.3), rng.normal(0.0, 0.25) * width, rng.normal(0.0, 0.25) * height)
    blur = side * rng.log_uniform(0.005, 0.3)
    strength = rng.uniform(0.1, 0.6) * rng.choice([-1.0, 1.0], [0.6, 0.4])
    band = smoothstep(-blur, blur, along)
    if rng.chance(0.6):
        thick = side * rng.log_uniform(0.03, 0.5)
        band = band * (1.0 - smoothstep(thick - blur, thick + blur, along))
    return 1.0 + strength * band


def normal_marks(rng: Rng, image: Tensor, ink: Ink) -> Tensor:
    """Lines and bands that belong to the product: frames, seams, printed stripes, ridges."""
    height, width = image.shape[1:]
    x, y = pixel_grid(rng, height, width)
    side = min(height, width)
    style = rng.choice(["border", "seam", "stripes", "stitch", "band"], [0.3, 0.25, 0.2, 0.1, 0.15])
    if style == "border":
        along, _ = turned(x, y, 0.5 * math.pi * rng.integer(0, 3) + rng.normal(0.0, 0.03))
        distance = 0.5 * side * rng.uniform(0.7, 0.97) - along
        return over(image, ink.shade(0.0, 1.0), coverage(distance, rng.log_uniform(1.0, 0.05 * side)))
    angle = random_angle(rng, 0.7)
    along, across = turned(x, y, angle, rng.normal(0.0, 0.25) * width, rng.normal(0.0, 0.25) * height)
    thick = side * rng.log_uniform(0.004, 0.06)
    if style == "stripes":
        pitch = thick * rng.uniform(2.5, 8.0)
        along = along - pitch * torch.round(along / pitch).clamp(0, rng.integer(1, 5))
    if style == "band":
        thick *= 5.0
    alpha = coverage(along.abs() - thick, rng.log_uniform(1.0, thick + 2.0))
    if style == "stitch":
        pitch = side * rng.log_uniform(0.02, 0.1)
        alpha = alpha * coverage((across / pitch - torch.round(across / pitch)).abs() * pitch - 0.35 * pitch)
    alpha = alpha * rng.uniform(0.3, 1.0)
    if style == "seam" and rng.chance(0.5):  # a groove: dark line with a bright lip
        lip = coverage((along - 1.5 * thick).abs() - thick) * 0.3
        return over(over(image, ink.shade(0.0, 0.3), alpha), ink.shade(0.7, 1.0), lip)
    return over(image, ink.shade(0.0, 1.0), alpha)


def finish(rng: Rng, image: Tensor, ink: Ink | None = None, marks: float = 0.25, contrast: float = 0.35) -> Tensor:
    """Light an image, perhaps mark it, perhaps flatten its contrast; `marks`, `contrast`: how often."""
    height, width = image.shape[1:]
    if ink is not None and rng.chance(marks):
        image = normal_marks(rng, image, ink)
    if rng.chance(0.55):
        image = image * illumination(rng, height, width)
    if rng.chance(0.15):
        image = image * soft_shadow(rng, height, width)
    if rng.chance(contrast):
        middle = image.mean()
        image = middle + (image - middle) * rng.uniform(0.3, 0.85) + rng.normal(0.0, 0.08)
    return image.clamp(0.0, 1.0)


def surface(rng: Rng, image: Tensor, family: str, noun: str, ink: Ink | None = None, kind: str = "surface") -> Scene:
    """Finish an image that is all foreground."""
    image = finish(rng, image, ink)
    everywhere = torch.ones(image.shape[1:], dtype=torch.bool, device=image.device)
    return Scene(image, everywhere, family, noun, kind)
