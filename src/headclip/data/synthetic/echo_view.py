"""How pulse and echo make a picture: scatterers, a beam of finite width, what is lost on the way, a logarithm.

Everything is drawn along the beams, (R, C): rows are depth, columns are beams. A straight probe shows that as it is; a
curved one fans it out. Speckle is not laid over the picture: it is what the sum of many small echoes looks like
through a beam that is wider than they are apart (Goodman, Speckle Phenomena in Optics, 2007, chapter 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.shapes import pixel_grid

SILENT = -60.0  # dB: what sends nothing back


@dataclass
class Echoes:
    """What lies in the beams, each (R, C).

    echo: strength of the scatterers in dB; shine: amplitude of smooth borders; loss: dB per pixel of depth, beyond what
    the machine makes up for (below 0 where less is lost than elsewhere).
    """

    echo: Tensor
    shine: Tensor
    loss: Tensor

    def under(self, alpha: Tensor, echo: Tensor | float) -> Echoes:
        """With `echo` dB in the place of what is there, as far as `alpha` (R, C) says, and its borders gone."""
        return Echoes(self.echo + (echo - self.echo) * alpha, self.shine * (1.0 - alpha), self.loss)


@dataclass
class Fan:
    """Where beams run: x, y (R, C) in pixels of the picture from its middle; depth (R, C) in pixels from the probe.

    field: (1, H, W, 2) in [-1, 1], which row and beam a pixel of the picture shows, or None if its own; seen: (H, W).
    """

    x: Tensor
    y: Tensor
    depth: Tensor
    field: Tensor | None
    seen: Tensor

    def picture(self, beams: Tensor) -> Tensor:
        """(R, C) -> (H, W), black where no beam runs."""
        if self.field is None:
            return beams
        shown = F.grid_sample(beams[None, None], self.field, mode="bilinear", align_corners=False)[0, 0]
        return shown * self.seen


def draw_fan(rng: Rng, height: int, width: int) -> Fan:
    """Mostly a straight probe, else a curved one whose beams part."""
    x, y = pixel_grid(rng, height, width)
    if rng.chance(0.6):
        return Fan(x, y, y + 0.5 * height, None, torch.ones_like(x, dtype=torch.bool))
    half = rng.uniform(0.35, 0.75)  # radians to either side
    start = height * rng.choice((rng.uniform(0.05, 0.2), rng.uniform(0.3, 1.0)))  # radius of the probe
    top = start * math.cos(half)  # its lowest point touches the picture's upper edge
    reach = (height + top) * rng.uniform(0.9, 1.0)
    down = y + 0.5 * height + top
    radius, angle = (x.square() + down.square()).sqrt(), torch.atan2(x, down)
    rows = max(8, round(reach - start))
    where = torch.stack([angle / half, 2.0 * (radius - start) / (reach - start) - 1.0], dim=-1)
    seen = (where.abs() <= 1.0).all(-1)
    r = start + (torch.arange(rows, device=rng.device) + 0.5) * (reach - start) / rows
    a = ((torch.arange(width, device=rng.device) + 0.5) / width * 2.0 - 1.0) * half
    at_x, at_y = r[:, None] * a.sin(), r[:, None] * a.cos() - top - 0.5 * height
    return Fan(at_x, at_y, (r - start)[:, None].expand(rows, width), where[None], seen)


class Probe:
    """One machine with its settings, and the randomness of one picture: every picture of it has the same speckle."""

    def __init__(self, rng: Rng, rows: int, beams: int) -> None:
        self.rows = rows
        self.looks = rng.choice((1, 2, 3, 5), (0.35, 0.3, 0.2, 0.15))
        self.axial = rng.log_uniform(0.5, 1.3)
        self.lateral = self.axial * rng.uniform(1.2, 3.0)
        self.focus, self.spread = rng.uniform(0.2, 0.8) * rows, rng.uniform(0.5, 2.5)
        self.range, self.gain = rng.uniform(42.0, 75.0), rng.uniform(-16.0, 4.0)
        self.floor = rng.uniform(-70.0, -38.0)  # dB of the electronics' own noise, at the lower end
        self.gamma = rng.uniform(0.8, 1.3)
        self.scatterers = rng.randn(2 * self.looks, rows, beams)
        self.noise = rng.randn(2, rows, beams)

    def _beam(self, values: Tensor) -> Tensor:
        """(N, R, C) as beams of finite width see it: narrow at the focus, wider above and below, unit power."""
        narrow = blurred(blurred(values, self.axial, 1), self.lateral, 2)
        wide = blurred(narrow, self.lateral * self.spread, 2)
        off = (torch.arange(self.rows, device=values.device) - self.focus).abs()[:, None] / self.rows
        share = (1.5 * off).clamp(max=1.0)
        first, last = self.lateral, self.lateral * math.hypot(1.0, self.spread)
        kept = [_power(self.axial) * _power(across) for across in (first, last)]
        return narrow * ((1.0 - share) / kept[0]) + wide * (share / kept[1])

    def seen(self, body: Echoes) -> Tensor:
        """(R, C) in [0, 1]: the brightness that the machine shows."""
        waves = self._beam(self.scatterers * 10.0 ** (body.echo / 20.0))
        shine = blurred(body.shine[None], self.axial, 1)[0]
        lost = 10.0 ** (-body.loss.cumsum(0) / 20.0)
        depth = torch.linspace(0.0, 1.0, self.rows, device=waves.device)[:, None]
        noise = self.noise * 10.0 ** ((self.floor + 14.0 * depth) / 20.0)
        power = torch.zeros_like(lost)
        for k in range(self.looks):
            real, imaginary = waves[2 * k] + shine, waves[2 * k + 1]
            power += (real * lost + noise[0]).square() + (imaginary * lost + noise[1]).square()
        level = 10.0 * torch.log10(power / (2.0 * self.looks) + 1e-9)
        return ((level + self.gain) / self.range + 0.6).clamp(0.0, 1.0) ** self.gamma


def _kernel(sigma: float) -> Tensor:
    reach = max(1, math.ceil(2.5 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    return weights / weights.sum()


def _power(sigma: float) -> float:
    """The deviation of white noise after smoothing along one axis."""
    return float(_kernel(sigma).square().sum().sqrt())


def blurred(values: Tensor, sigma: float, dim: int) -> Tensor:
    """(N, R, C) smoothed by a Gaussian along one axis; beyond the border lies nothing."""
    kernel = _kernel(sigma).to(values.device)
    reach = len(kernel) // 2
    shape, pad = ((-1, 1), (reach, 0)) if dim == 1 else ((1, -1), (0, reach))
    return F.conv2d(values[:, None], kernel.view(1, 1, *shape), padding=pad)[:, 0]
