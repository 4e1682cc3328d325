"""The stage on which parts are shown: background, light, shadow, and repainting one part with a change."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.finishing import illumination
from headclip.data.synthetic.noise import smooth_noise, spectral_noise
from headclip.data.synthetic.registry import FAMILIES
from headclip.data.synthetic.shapes import (
    Ink,
    coverage,
    difference,
    over,
    pixel_grid,
    ramp,
    random_angle,
    random_light,
    relief,
    turned,
)

TURN = 2.0 * math.pi
BACKDROPS = ("fabric", "carpet", "brushed_metal", "steel_strip", "plain", "rough")


@dataclass
class Layer:
    """One piece of a part: signed distance (H, W), height in pixels (H, W), colour (3, 1, 1) or (3, H, W)."""

    distance: Tensor
    height: Tensor
    colour: Tensor
    softness: float = 1.2


class Stage:
    """Every random choice of a picture but its part, so that the part can be drawn again with one change."""

    def __init__(self, rng: Rng, height: int, width: int, ink: Ink | None = None, gloss: float | None = None) -> None:
        self.rng, self.height, self.width = rng, height, width
        self.side = float(min(height, width))
        self.ink = Ink(rng) if ink is None else ink
        self.light = random_light(rng, gloss)
        self.backdrop = self._backdrop()
        self.exposure = illumination(rng, height, width) if rng.chance(0.4) else None
        self.flatten = rng.uniform(0.3, 0.8) if rng.chance(0.25) else 1.0
        self.shadow = rng.choice([0.0, rng.uniform(0.1, 0.7)])
        self.reach = self.side * rng.log_uniform(0.01, 0.06)
        self.grain = spectral_noise(rng, height, width, rng.uniform(0.2, 1.5)) * rng.log_uniform(0.005, 0.1)
        self.relief_strength = rng.log_uniform(0.4, 2.0)

    def _backdrop(self) -> Tensor:
        rng, height, width = self.rng, self.height, self.width
        names = [name for name in BACKDROPS if name in FAMILIES]
        if rng.chance(0.25):
            return FAMILIES[rng.choice(names)].draw(rng, height, width).image
        level = rng.choice([(0.0, 0.15), (0.8, 1.0), (0.0, 1.0)], [0.3, 0.25, 0.45])
        own = self.ink if rng.chance(0.4) else Ink(rng, 0.25)
        image = own.shade(*level) + torch.zeros(1, height, width, device=rng.device)
        if rng.chance(0.5):
            image = image + rng.log_uniform(0.005, 0.06) * rng.randn(height, width)
        if rng.chance(0.3):
            image = image + 0.04 * smooth_noise(rng, height, width, self.side * rng.uniform(0.1, 0.6))
        if rng.chance(0.15):  # a fixture or table edge
            x, y = pixel_grid(rng, height, width)
            along, _ = turned(
                x, y, random_angle(rng, 0.8), rng.normal(0.0, 0.35) * width, rng.normal(0.0, 0.35) * height
            )
            image = over(image, own.shade(0.0, 1.0), coverage(along, rng.log_uniform(1.0, 10.0)))
        return image

    def frame(self, spread: float = 0.06, upright: float = 0.4) -> tuple[Tensor, Tensor]:
        """Coordinates in a randomly placed and turned frame, near the middle of the picture."""
        rng = self.rng
        x, y = pixel_grid(rng, self.height, self.width)
        cx, cy = rng.normal(0.0, spread) * self.width, rng.normal(0.0, spread) * self.height
        return turned(x, y, random_angle(rng, upright), cx, cy)

    def paint(self, layers: list[Layer]) -> Tensor:
        """(3, H, W): the layers in order over the backdrop, lit, with their shadow on what lies below."""
        image = self.backdrop
        for number, layer in enumerate(layers):
            if self.shadow > 0.0 and (number == 0 or len(layers) < 4):
                cast = coverage(self.shifted(layer.distance), 2.0 * self.reach + 1.0)
                image = image * (1.0 - self.shadow * cast)
            diffuse, highlight = relief(layer.height, self.light, self.relief_strength)
            lit = layer.colour * (diffuse + self.grain) + highlight
            image = over(image, lit, coverage(layer.distance, layer.softness))
        return self.exposed(image)

    def exposed(self, image: Tensor) -> Tensor:
        """(3, H, W) in [0, 1]: the picture in the light and with the contrast of the stage."""
        if self.exposure is not None:
            image = image * self.exposure
        if self.flatten < 1.0:
            image = 0.5 + (image - 0.5) * self.flatten
        return image.clamp(0.0, 1.0)

    def shifted(self, field: Tensor) -> Tensor:
        """The field moved away from the light by the shadow's reach, its edge repeated."""
        dx, dy = round(-self.light.x * self.reach), round(-self.light.y * self.reach)
        padded = F.pad(field[None, None], (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0)), mode="replicate")[0, 0]
        top, left = max(-dy, 0), max(-dx, 0)
        return padded[top : top + self.height, left : left + self.width]

    def scene(self, layers: list[Layer], family: str, noun: str, kind: str = "part") -> Scene:
        foreground = reduce(torch.minimum, [layer.distance for layer in layers]) < 0.0
        if not bool(foreground.any()):  # a part that fell out of view
            foreground = torch.ones_like(foreground)
        return Scene(self.paint(layers), foreground, family, noun, kind)

    def variant(self, scene: Scene, layers: Callable[[], list[Layer]]) -> Callable[[], tuple[Tensor, Tensor]]:
        """A defect that repaints the scene with other layers; what differs is its mask."""

        def changed() -> tuple[Tensor, Tensor]:
            return difference(scene.image, self.paint(layers()))

        return changed

    def cells(self, u: Tensor, v: Tensor, pitch_u: float, pitch_v: float, columns: int, rows: int) -> Cells:
        """Fold coordinates into a centred grid of columns x rows cells."""
        column = torch.round(u / pitch_u + 0.5 * (columns - 1)).clamp(0, columns - 1)
        row = torch.round(v / pitch_v + 0.5 * (rows - 1)).clamp(0, rows - 1)
        local_u = u - (column - 0.5 * (columns - 1)) * pitch_u
        local_v = v - (row - 0.5 * (rows - 1)) * pitch_v
        return Cells(local_u, local_v, (row * columns + column).long(), columns * rows)


@dataclass
class Cells:
    """Coordinates from each pixel's own cell centre, the cell's number, and how many cells there are.

    One evaluation of a signed distance over `u`, `v` draws all repeated objects; tables of length `count`,
    looked up by `index`, move, turn, recolour or remove each.
    """

    u: Tensor
    v: Tensor
    index: Tensor
    count: int

    def moved(self, shift_u: Tensor, shift_v: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Local coordinates after each cell's own shift and turn (tables of length count)."""
        cos, sin = angle.cos()[self.index], angle.sin()[self.index]
        du, dv = self.u - shift_u[self.index], self.v - shift_v[self.index]
        return du * cos + dv * sin, dv * cos - du * sin


def jittered(rng: Rng, cells: Cells, shift: float, turn: float) -> tuple[Tensor, Tensor, Tensor]:
    """Tables of each cell's shift in u and v (pixels) and turn (radians)."""
    return (rng.randn(cells.count) * shift, rng.randn(cells.count) * shift, rng.randn(cells.count) * turn)


def seen_cell(rng: Rng, cells: Cells) -> int:
    """A cell that covers a pixel of the picture's middle."""
    height, width = cells.index.shape
    return int(cells.index[int(height * rng.uniform(0.3, 0.7)), int(width * rng.uniform(0.3, 0.7))])


def one_cell(count: int, cell: int, value: float, like: Tensor) -> Tensor:
    """Zeros but `value` at one cell."""
    table = torch.zeros(count, device=like.device)
    table[cell] = value
    return table


def two_tone(rng: Rng, ink: Ink, height: int, width: int, cell: float) -> Tensor:
    """A mottled colour field (3, H, W) for natural parts."""
    dark, bright = ink.pair(0.1, 0.95)
    return ramp(0.5 + rng.uniform(0.08, 0.35) * smooth_noise(rng, height, width, cell), dark, bright)
