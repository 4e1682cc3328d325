"""Solid bodies as signed distances: turned, milled, pressed and grown things, and what breaks them.

A body fits about in a ball of radius 1 around (0, 0, 0); a distance maps (3, N) points to (N,), negative inside.
Distances may be too small far from a body, never too large by much, so that no march along rays passes through it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.noise import smooth_noise
from headclip.data.synthetic.shapes import box, disc, polygon
from headclip.data.synthetic.signed_distance import Distance, extruded, length, smooth_union


@dataclass
class Waves:
    """Smooth noise in space: a sum of plane waves, of deviation about 1."""

    ways: Tensor  # (K, 3)
    phases: Tensor  # (K, 1)
    sizes: Tensor  # (K, 1)

    @classmethod
    def drawn(cls, rng: Rng, frequency: float, octaves: int = 3) -> Waves:
        """Random ones: three waves in each octave from `frequency` (radians per unit) up."""
        ways, count = rng.randn(3 * octaves, 3), 3 * octaves
        steps = 2.0 ** torch.arange(octaves, device=rng.device).repeat_interleave(3)[:, None]
        ways = ways / ways.norm(dim=1, keepdim=True) * frequency * steps
        return cls(ways, rng.rand(count, 1) * 2.0 * math.pi, steps**-0.8)

    def __call__(self, points: Tensor) -> Tensor:
        """(3, N) -> (N,)."""
        waves = torch.sin(self.ways @ points + self.phases) * self.sizes
        return waves.sum(0) / (0.5 * self.sizes.square().sum()).sqrt()


def turned_body(rng: Rng) -> Distance:
    """A body of revolution about z: a random outline with steps, necks and bulges."""
    half, count = rng.uniform(0.4, 0.95), 48
    outline = 0.55 + 0.18 * smooth_noise(rng, count, 2, rng.uniform(6.0, 20.0), 2.0)[:, 0]
    for _ in range(rng.integer(0, 4)):  # collars and grooves
        at, wide = rng.integer(0, count - 1), rng.integer(2, 12)
        outline[max(0, at - wide) : at + wide] *= rng.uniform(0.6, 1.25)
    outline = outline.clamp(0.12, 0.95) * rng.uniform(0.6, 1.0)
    bore = rng.uniform(0.3, 0.7) * float(outline.amin()) if rng.chance(0.4) else 0.0
    rounded = rng.log_uniform(0.01, 0.12)

    def distance(points: Tensor) -> Tensor:
        around = (points[0].square() + points[1].square() + 1e-9).sqrt()
        place = ((points[2] / half + 1.0) * 0.5 * (count - 1)).clamp(0.0, count - 1.001)
        low = place.long()
        radius = outline[low] + (outline[low + 1] - outline[low]) * (place - low)
        solid = extruded((around - radius) * 0.75, points[2], half, rounded)
        return torch.maximum(solid, bore - around) if bore else solid

    return distance


def milled_body(rng: Rng) -> Distance:
    """A plate, block or prism with bores, pockets and bosses."""
    long, wide, half = rng.uniform(0.5, 0.95), rng.uniform(0.3, 0.9), rng.log_uniform(0.1, 0.5)
    sides = rng.choice((0, 0, 3, 5, 6, 8))
    corner, rounded = rng.uniform(0.0, 0.25), rng.log_uniform(0.005, 0.08)
    cuts = [(rng.uniform(-0.7, 0.7) * long, rng.uniform(-0.7, 0.7) * wide, rng.log_uniform(0.05, 0.35))
            for _ in range(rng.integer(0, 5))]  # fmt: skip
    if rng.chance(0.4):  # the same one in all four corners
        u, v, size = 0.65 * long, 0.65 * wide, rng.uniform(0.05, 0.15)
        cuts += [(u, v, size), (-u, v, size), (u, -v, size), (-u, -v, size)]
    middle = rng.uniform(0.15, 0.6) if rng.chance(0.4) else 0.0
    through = [rng.chance(0.6) for _ in cuts]
    pocket = half * rng.uniform(0.1, 0.8)
    boss, tall = rng.uniform(0.15, 0.5), half + rng.uniform(0.05, 0.3)
    raised = rng.chance(0.35)

    def distance(points: Tensor) -> Tensor:
        x, y, z = points
        flat = polygon(x, y, 0.8 * long, sides) if sides else box(x, y, long, wide, corner * wide)
        solid = extruded(flat, z, half, rounded)
        if raised:
            solid = smooth_union(solid, extruded(disc(x, y, boss), z, tall, rounded), 0.03)
        for (u, v, size), whole in zip(cuts, through, strict=True):
            bore = disc(x - u, y - v, size)
            solid = torch.maximum(solid, -bore if whole else -torch.maximum(bore, half - pocket - z))
        return torch.maximum(solid, -disc(x, y, middle)) if middle else solid

    return distance


def grown_body(rng: Rng) -> Distance:
    """A pebble: an ellipsoid, perhaps bent or pinched, with waves of its skin."""
    radii = [rng.uniform(0.35, 0.95) for _ in range(3)]
    bend = rng.uniform(-0.6, 0.6) if rng.chance(0.4) else 0.0
    waves, height = Waves.drawn(rng, rng.log_uniform(2.0, 9.0)), rng.log_uniform(0.003, 0.05)
    power = rng.choice((2.0, 2.0, rng.uniform(2.5, 5.0)))
    crease = rng.uniform(0.05, 0.25) if rng.chance(0.3) else 0.0
    smallest = min(radii)

    def distance(points: Tensor) -> Tensor:
        x, y, z = points
        y = y - bend * (x.square() - 0.3)
        shares = (x.abs() / radii[0]) ** power + (y.abs() / radii[1]) ** power + (z.abs() / radii[2]) ** power
        out = ((shares + 1e-9) ** (1.0 / power) - 1.0) * smallest
        if crease:
            out = out + crease * torch.exp(-(y / 0.12).square()) * (z > 0)
        return 0.75 * (out + height * waves(points))

    return distance


def ring_body(rng: Rng) -> Distance:
    """A ring, coil or link: a section swept around z."""
    wide, tall = rng.uniform(0.06, 0.3), rng.uniform(0.06, 0.3)
    radius, rounded = rng.uniform(0.45, 0.7), rng.uniform(0.01, 1.0)
    flat = rng.uniform(0.5, 1.0)
    teeth, depth = rng.integer(8, 40), rng.choice((0.0, 0.0, rng.uniform(0.01, 0.06)))

    def distance(points: Tensor) -> Tensor:
        x, y, z = points
        around = (x.square() + (y / flat).square() + 1e-9).sqrt()
        around = around + (depth * torch.sin(teeth * torch.atan2(y, x)) if depth else 0.0)
        section = rounded * min(wide, tall)
        return 0.7 * flat * box(around - radius, z, wide, tall, section)

    return distance


BODIES: dict[str, tuple[Callable[[Rng], Distance], tuple[str, ...]]] = {
    "turned": (turned_body, ("turned part", "knob", "metal part", "plastic cap", "chess piece")),
    "milled": (milled_body, ("machined part", "metal block", "plastic part", "cast part", "bracket")),
    "grown": (grown_body, ("nut", "bean", "candy", "pebble", "fruit", "pill", "potato")),
    "ring": (ring_body, ("ring", "seal", "metal ring", "bearing ring")),
}
"""How a body is drawn and what it may be called."""


def ball(centre: Tensor, radius: float, ripple: Waves | None = None, height: float = 0.0) -> Distance:
    """A ball at `centre`, (3,), with waves of its surface."""

    def distance(points: Tensor) -> Tensor:
        away = length(points - centre[:, None]) - radius
        return away if ripple is None else away + height * ripple(points)

    return distance


def slit(foot: Tensor, across: Tensor, half: float, reach: float, ripple: Waves, height: float) -> Distance:
    """A wavy plane through `foot` across `across`, (3,) each, `half` thick on both sides, as far as `reach`."""

    def distance(points: Tensor) -> Tensor:
        away = points - foot[:, None]
        off = (away * across[:, None]).sum(0) + height * ripple(points)
        return torch.maximum(off.abs() - half, length(away) - reach)

    return distance


def beyond(foot: Tensor, outward: Tensor, depth: float, ripple: Waves, height: float) -> Distance:
    """Everything that lies further out along `outward` than `depth` below `foot`, with a rough face."""
    return lambda points: height * ripple(points) - depth - ((points - foot[:, None]) * outward[:, None]).sum(0)


def bore(foot: Tensor, axis: Tensor, radius: float) -> Distance:
    """An endless cylinder through `foot` along `axis`, (3,) each."""

    def distance(points: Tensor) -> Tensor:
        away = points - foot[:, None]
        along = (away * axis[:, None]).sum(0)
        return length(away - axis[:, None] * along) - radius

    return distance
