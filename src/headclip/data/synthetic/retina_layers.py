"""The layers of a retina in section, as coherent light sees them (optical coherence tomography), all of it sound."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.echo_view import Echoes, blurred
from headclip.data.synthetic.noise import fractal_noise, smooth_noise
from headclip.data.synthetic.shapes import smoothstep

# Borders from the top: each is where the layer of that name begins. Share of the retina's thickness, and dB.
LAYERS = ("nerve fibres", "ganglion cells", "inner nuclei", "outer plexus", "outer nuclei", "receptors", "tips",
          "pigment", "choroid", "sclera")  # fmt: skip
SHARES = (0.13, 0.25, 0.13, 0.10, 0.22, 0.045, 0.05, 0.075)
LEVELS = (6.0, -2.0, -9.0, -1.0, -13.0, 4.0, -6.0, 9.0, -1.0, -8.0)
RECEPTORS, PIGMENT, CHOROID = LAYERS.index("receptors"), LAYERS.index("pigment"), LAYERS.index("choroid")
INNER = slice(0, 4)  # what gives way to the pit


@dataclass(frozen=True)
class Retina:
    """borders: (layers, C) rows at which layers begin; levels: dB of each; grain: (R, C) dB of what is uneven in them.

    clear: dB of what lies above; shade: (R, C) dB a row that vessels take from what lies below; pit: its column.
    """

    borders: Tensor
    levels: Tensor
    grain: Tensor
    clear: float
    shade: Tensor
    pit: float
    thickness: float

    @property
    def rows(self) -> Tensor:
        """(R, 1): the middle of each row."""
        return torch.arange(len(self.grain), device=self.grain.device, dtype=torch.float32)[:, None] + 0.5

    def below(self, layer: int, soft: float = 1.0) -> Tensor:
        """(R, C) in [0, 1]: what lies below a layer's upper border."""
        return smoothstep(-soft, soft, self.rows - self.borders[layer])

    def lifted(self, by: Tensor, last: int) -> Retina:
        """With the border of layer `last` (counted from 0) raised by `by` (C,) pixels, and those above it the less and
        the wider the farther they are; a layer keeps a third of its thickness."""
        moved = self.borders.clone()
        moved[last] -= by
        for layer in range(last - 1, -1, -1):
            gap = self.borders[layer + 1] - self.borders[layer]
            away = float((self.borders[last] - self.borders[layer]).mean())
            soft = blurred(by[None, None], max(0.5, 0.35 * away), 2)[0, 0]
            moved[layer] = torch.minimum(moved[layer] - soft, moved[layer + 1] - 0.33 * gap)
        return replace(self, borders=moved)

    def echoes(self) -> Echoes:
        """What sends light back."""
        levels = torch.cat([self.levels.new_tensor([self.clear]), self.levels])
        echo = self.grain * self.below(0) + self.clear
        for layer, step in enumerate((levels[1:] - levels[:-1]).tolist()):
            echo = echo + step * self.below(layer)
        return Echoes(echo, torch.zeros_like(echo), self.shade * self.below(1))


def draw_retina(rng: Rng, height: int, width: int) -> Retina:
    """A section with or without its pit, flat or bowed, with the choroid's vessels and the shadows of the retina's."""
    side = min(height, width)
    columns = torch.arange(width, device=rng.device, dtype=torch.float32)
    across = columns / width - 0.5
    thickness = height * rng.uniform(0.16, 0.4)
    wave = 0.004 * side * smooth_noise(rng, 1, width, 1.0, width * 0.15)[0]
    bend = rng.normal(0.0, 0.1) * across + rng.normal(0.0, 0.25) * across.square()
    floor = height * (rng.uniform(0.5, 0.78) + bend) + wave
    pit = (0.5 + rng.normal(0.0, 0.15)) * width
    dip = torch.exp(-((columns - pit) / (width * rng.uniform(0.05, 0.16))).square()) * float(rng.chance(0.65))
    shares = torch.tensor(SHARES, device=rng.device)[:, None] * (1.0 + 0.15 * rng.randn(len(SHARES), 1))
    shares = (shares * (1.0 + 0.06 * smooth_noise(rng, len(SHARES), width, 1.0, width * 0.3))).clamp(min=0.015)
    shares[0] = shares[0] * (1.0 + rng.uniform(-1.3, 1.3) * across)
    shares[INNER] = shares[INNER] * (1.0 - rng.uniform(0.75, 0.95) * dip)
    shares[4] = shares[4] * (1.0 + rng.uniform(0.0, 0.6) * dip)
    upward = torch.flip(torch.flip(shares, (0,)).cumsum(0), (0,)) * thickness  # of each border above the choroid's
    depth = thickness * rng.uniform(0.3, 1.0) * (1.0 + 0.15 * smooth_noise(rng, 1, width, 1.0, width * 0.3)[0])
    borders = torch.cat([floor - upward, floor[None], (floor + depth)[None]])
    levels = torch.tensor(LEVELS, device=rng.device) + rng.uniform(0.5, 2.5) * rng.randn(len(LEVELS))
    grain = rng.uniform(0.3, 1.2) * fractal_noise(rng, height, width, max(1.5, side * 0.02), 2, 0.6, 3.0)
    rows = torch.arange(height, device=rng.device, dtype=torch.float32)[:, None]
    vessels = fractal_noise(rng, height, width, side * rng.uniform(0.03, 0.07), 2, 0.5, rng.uniform(1.0, 2.5))
    beneath = smoothstep(0.0, 3.0, rows - floor)
    grain = grain - rng.uniform(2.0, 9.0) * smoothstep(0.2, 0.8, vessels) * beneath
    grain = grain - (rows - floor).clamp(min=0.0) / thickness * rng.uniform(4.0, 20.0)  # light that the floor kept
    shade = torch.zeros_like(grain)
    for _ in range(rng.integer(0, 4)):
        where = torch.exp(-((columns - rng.uniform(0.0, 1.0) * width) / (side * rng.uniform(0.006, 0.03))).square())
        band = torch.exp(-((rows - borders[1]) / (0.04 * thickness + 1.0)).square())
        shade = shade + where * band * (rng.uniform(2.0, 12.0) / (0.07 * thickness + 1.8))
    return Retina(borders, levels, grain, rng.uniform(-48.0, -26.0), shade, pit, thickness)
