"""Slices of heads, with what may grow, swell or bleed in a brain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.brain_slice import Slice, draw_slice
from headclip.data.synthetic.noise import fractal_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import smoothstep, turned
from headclip.data.synthetic.tissue_base import random_place, tissue_scene

NOUNS = ("brain MRI", "brain scan", "head scan", "brain slice", "brain")


@dataclass(frozen=True)
class _Lesion:
    """body, core, swelling: (H, W) in [0, 1], how much of a pixel is the lesion, its core, or swollen around it.
    push: (2, H, W) pixels down and across by which it moved what lies here."""

    body: Tensor
    core: Tensor
    swelling: Tensor
    push: Tensor

    @classmethod
    def even(cls, body: Tensor) -> _Lesion:
        """One without core that does nothing to what is around it."""
        none = torch.zeros_like(body)
        return cls(body, none, none, torch.stack([none, none]))

    @property
    def mask(self) -> Tensor:
        """(H, W) bool."""
        return (self.body > 0.1) | (self.swelling > 0.15)


def _spot(rng: Rng, inside: Tensor) -> tuple[float, float]:
    """Row and column of a random place inside the skull."""
    height, width = inside.shape
    row, column = random_place(rng, inside > 0.9) or (0.5 * height, 0.5 * width)
    return float(row), float(column)


def _mass(rng: Rng, drawn: Slice, size: float) -> _Lesion:
    """A growth of `size` pixels across, with what it pushes aside and makes swell."""
    height, width = drawn.tissue.level.shape
    row, column = _spot(rng, drawn.tissue.inside)
    y, x = (torch.arange(n, device=rng.device, dtype=torch.float32) for n in (height, width))
    u, v = turned(x[None, :] - column, y[:, None] - row, rng.uniform(0.0, math.pi))
    flat = rng.uniform(1.0, 1.6)
    reach = ((u / flat**0.5).square() + (v * flat**0.5).square()).sqrt() / (0.5 * size)
    lumps = fractal_noise(rng, height, width, max(2.0, size * rng.uniform(0.3, 0.8)), 3, 0.6)
    distance = reach + rng.uniform(0.02, 0.2) * lumps
    soft = rng.uniform(0.06, 0.45)
    inside = drawn.tissue.inside
    body = smoothstep(1.0 + 0.5 * soft, 1.0 - 0.5 * soft, distance) * inside
    core = smoothstep(0.0, 0.3, rng.uniform(0.35, 0.8) - distance + 0.1 * lumps) * float(rng.chance(0.4))
    swelling = torch.zeros_like(body)
    if rng.chance(0.5):
        white = smoothstep(0.3, 0.4, drawn.tissue.level)
        wide = rng.uniform(1.2, 2.2)
        swelling = smoothstep(wide + 0.2, wide - 0.2, reach + 0.25 * lumps) * (0.15 + 0.85 * white) * inside
    around = torch.exp(-2.0 * (reach - 1.0).clamp(min=0.0)) * rng.uniform(0.0, 0.5)
    shift = around * torch.maximum(swelling, body)
    away = torch.stack(torch.broadcast_tensors(y[:, None] - row, x[None, :] - column))
    return _Lesion(body, core, swelling, away * shift)


def _with(rng: Rng, drawn: Slice, lesion: _Lesion) -> Tensor:
    """(1, H, W): the slice with a lesion in a random tone."""
    height, width = lesion.body.shape
    value, inner = drawn.plain(drawn.moved(lesion.push)), drawn.contrast.inner
    usual = float((drawn.sound * lesion.body).sum() / lesion.body.sum().clamp(min=1e-3))
    change = (1.0 if rng.chance(drawn.contrast.brighter) else -1.0) * rng.log_uniform(0.08, 0.6)
    tone = usual + (change if 0.03 < usual + change < 1.1 else -change)
    uneven = fractal_noise(rng, height, width, max(2.0, min(height, width) * rng.uniform(0.02, 0.08)), 3, 0.6)
    filled = tone * (1.0 + rng.uniform(0.0, 0.2) * uneven)
    filled = filled + (usual - rng.uniform(-0.1, 0.35) - filled) * lesion.core
    wet = rng.uniform(0.05, 0.25) * (1.0 if inner[0] > inner[2] or rng.chance(0.3) else -1.0)
    value = value + wet * lesion.swelling * (1.0 - lesion.body)
    kept = rng.uniform(0.0, 0.35)  # what still shows of the tissue
    value = value + (filled + kept * (value - usual) - value) * lesion.body
    return drawn.scanned(value.clamp(0.0, 1.2))


def _spots(rng: Rng, drawn: Slice, side: int) -> _Lesion:
    """Several small ones, as metastases and plaques are."""
    found = [_mass(rng, drawn, side * rng.log_uniform(0.02, 0.07)) for _ in range(rng.integer(2, 7))]
    return _Lesion.even(torch.stack([one.body for one in found]).amax(0))


def _rim(rng: Rng, drawn: Slice, side: int) -> _Lesion:
    """Blood or fluid along the inside of the skull: a crescent, what of the inside does not lie in it when moved."""
    inside = drawn.tissue.inside
    angle, thick = rng.uniform(0.0, 2.0 * math.pi), side * rng.log_uniform(0.02, 0.1)
    step = (round(thick * math.sin(angle)), round(thick * math.cos(angle)))
    crescent = (inside - torch.roll(inside, step, (0, 1))).clamp(0.0, 1.0)
    return _Lesion.even(F.avg_pool2d(crescent[None, None], 3, 1, 1)[0, 0] * inside)


@scene("brain", weight=4.0)
def brain(rng: Rng, height: int, width: int) -> Scene:
    """A cut through a head with what may grow or bleed in it as its own defects."""
    drawn = draw_slice(rng, height, width)
    side = min(height, width)
    bare = drawn.scanned(drawn.sound)
    foreground = drawn.tissue.inside > 0.5
    shown = tissue_scene(rng, bare, "brain", rng.choice(NOUNS), foreground)

    def ill(lesion: Callable[[], _Lesion]) -> Callable[[], tuple[Tensor, Tensor]]:
        def draw() -> tuple[Tensor, Tensor]:
            one = lesion()
            image = shown.image + (_with(rng, drawn, one) - bare)
            return torch.where(one.mask, image, shown.image).clamp(0.0, 1.0), one.mask

        return draw

    shown.variants = {
        "tumour": ill(lambda: _mass(rng, drawn, side * rng.log_uniform(0.06, 0.25))),
        "large tumour": ill(lambda: _mass(rng, drawn, side * rng.uniform(0.2, 0.42))),
        "lesions": ill(lambda: _spots(rng, drawn, side)),
        "haemorrhage": ill(lambda: _rim(rng, drawn, side)),
    }
    return shown
