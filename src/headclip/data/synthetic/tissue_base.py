"""What every medical-like picture shares: finishing, a random colour in a range of hues, a random place in an organ."""

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


def random_place(rng: Rng, where: Tensor) -> tuple[int, int] | None:
    """Row and column of a random place at which `where` (H, W) is true; None if it is so nowhere."""
    places = where.nonzero()
    if not len(places):
        return None
    row, column = places[rng.integer(0, len(places) - 1)].tolist()
    return row, column


def random_hue(
    rng: Rng, low: float, high: float, saturation: tuple[float, float], value: tuple[float, float]
) -> Tensor:
    """A colour (3, 1, 1) with hue (turns), saturation and value in the given ranges."""
    rgb = colorsys.hsv_to_rgb(rng.uniform(low, high) % 1.0, rng.uniform(*saturation), rng.uniform(*value))
    return colour_of(rng, rgb)
