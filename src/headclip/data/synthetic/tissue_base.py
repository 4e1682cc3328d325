"""What every medical-like picture shares: finishing and a random colour in a range of hues."""

from __future__ import annotations

import colorsys

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.shapes import (
    colour_of,
)


def tissue_scene(rng: Rng, image: Tensor, family: str, noun: str, foreground: Tensor | None = None) -> Scene:
    """Perhaps change the contrast; `image` is (3, H, W) or grey (1, H, W)."""
    if rng.chance(0.3):
        middle = image.mean()
        image = middle + (image - middle) * rng.uniform(0.5, 1.2)
    if foreground is None or not bool(foreground.any()):
        foreground = torch.ones_like(image[0], dtype=torch.bool)
    return Scene(image.clamp(0.0, 1.0).expand(3, -1, -1).contiguous(), foreground, family, noun, "tissue")


def random_hue(
    rng: Rng, low: float, high: float, saturation: tuple[float, float], value: tuple[float, float]
) -> Tensor:
    """A colour (3, 1, 1) with hue (turns), saturation and value in the given ranges."""
    rgb = colorsys.hsv_to_rgb(rng.uniform(low, high) % 1.0, rng.uniform(*saturation), rng.uniform(*value))
    return colour_of(rng, rgb)
