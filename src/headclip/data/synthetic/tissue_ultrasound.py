"""Ultrasound: sound tissue under a probe, and nodules, cysts and calcifications that change what comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.echo_body import draw_body
from headclip.data.synthetic.echo_view import Echoes, Fan, Probe, draw_fan
from headclip.data.synthetic.lettering import glyph_rows
from headclip.data.synthetic.noise import fractal_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import colour_of, coverage, pixel_grid, ramp, segment, smoothstep, turned
from headclip.data.synthetic.tissue_base import random_hue, random_place, tissue_scene

KINDS = {"dark": 0.4, "bright": 0.12, "haloed": 0.13, "cyst": 0.15, "mixed": 0.2}


@dataclass
class _Growth:
    """reach: (R, C) distance from its middle in its radii, 1 at its outline; edge: how soft that is, in radii."""

    reach: Tensor
    edge: float
    size: float

    @property
    def inside(self) -> Tensor:
        """(R, C) in [0, 1]."""
        return smoothstep(1.0 + 0.5 * self.edge, 1.0 - 0.5 * self.edge, self.reach)


def _growth(rng: Rng, fan: Fan, organ: Tensor, size: float) -> _Growth:
    """An outline of about `size` pixels across, its middle in the organ, wider than tall more often than not."""
    rows, beams = organ.shape
    row, beam = random_place(rng, organ > 0.6) or (rows // 2, beams // 2)
    u, v = turned(fan.x - float(fan.x[row, beam]), fan.y - float(fan.y[row, beam]), rng.normal(0.0, 0.3))
    flat = rng.uniform(0.75, 1.9)
    reach = ((u / flat**0.5).square() + (v * flat**0.5).square()).sqrt() / (0.5 * size)
    lumps = fractal_noise(rng, rows, beams, max(2.0, size * rng.uniform(0.25, 0.6)), 3, 0.6)
    reach = reach + rng.uniform(0.02, 0.2) * lumps * (reach < 2.0)
    if rng.chance(0.2):  # spikes
        around = torch.atan2(v, u) * rng.integer(5, 14)
        reach = reach + rng.uniform(0.03, 0.15) * torch.sin(around + 2.0 * lumps)
    return _Growth(reach, rng.log_uniform(0.04, 0.5), size)


def _specks(rng: Rng, body: Echoes, where: Tensor, size: float) -> Echoes:
    """Chalk: points that answer brightly, the larger ones with a shadow behind."""
    rows, beams = where.shape
    fine = fractal_noise(rng, rows, beams, max(1.5, size * rng.uniform(0.03, 0.1)), 1)
    there = smoothstep(0.0, 0.4, fine - rng.uniform(0.5, 0.85) * float((fine * where).amax())) * where
    coarse = rng.chance(0.4)
    loss = body.loss + there * (rng.uniform(2.0, 8.0) / max(3.0, 0.1 * size) if coarse else 0.0)
    return Echoes(body.echo, torch.maximum(body.shine, there * rng.uniform(3.0, 15.0)), loss)


def _with(rng: Rng, body: Echoes, grown: _Growth, kind: str) -> Echoes:
    """The body with one growth of a kind in it."""
    rows, beams = grown.reach.shape
    inside = grown.inside
    around = float((body.echo * inside).sum() / inside.sum().clamp(min=1e-3))
    cell = max(2.0, grown.size * rng.uniform(0.05, 0.3))
    uneven = rng.uniform(0.3, 3.0) * fractal_noise(rng, rows, beams, cell, 3, 0.6)
    echo = around + (rng.uniform(4.0, 10.0) if kind == "bright" else -rng.log_uniform(3.0, 16.0)) + uneven
    if kind == "haloed":
        rim = torch.exp(-((grown.reach - 1.0) / rng.uniform(0.06, 0.15)).square())
        echo = around + rng.uniform(-3.0, 4.0) + uneven - rng.uniform(6.0, 16.0) * rim
        inside = smoothstep(1.2, 1.1, grown.reach)
    gain = rng.uniform(-6.0, 6.0)
    if kind == "cyst":
        echo, gain = around + rng.uniform(-40.0, -20.0) + uneven, -rng.uniform(3.0, 12.0)
    elif kind == "mixed":
        pockets = fractal_noise(rng, rows, beams, max(3.0, grown.size * rng.uniform(0.15, 0.5)), 2, 0.5)
        empty = smoothstep(0.0, 0.3, pockets - rng.uniform(-0.3, 1.0)) * smoothstep(1.0, 0.85, grown.reach)
        echo = echo + (around - 30.0 - echo) * empty
    changed = body.under(inside, echo)
    changed.loss = changed.loss + inside * (gain / max(grown.size, 4.0))
    if kind == "cyst" or rng.chance(0.2):  # a smooth wall answers where the beam meets it squarely
        steep = torch.gradient(grown.reach, dim=0)[0].abs() * 0.5 * grown.size
        wall = torch.exp(-((grown.reach - 1.0) * 0.5 * grown.size / 1.3).square()) * steep.clamp(max=1.0)
        changed.shine = torch.maximum(changed.shine, wall * rng.uniform(0.5, 5.0))
    return changed


def _marks(rng: Rng, height: int, width: int) -> Tensor:
    """What the machine writes on its picture, (H, W) in [0, 1]: ticks of depth, letters, a grey bar, crosses."""
    x, y = pixel_grid(rng, height, width)
    side = min(height, width)
    shown = torch.zeros_like(x)
    if rng.chance(0.4):
        pitch, half = side * rng.uniform(0.04, 0.15), side * rng.uniform(0.004, 0.015)
        edge = rng.choice((-1.0, 1.0)) * (0.5 * width - side * rng.uniform(0.01, 0.04))
        row = coverage((y - torch.round(y / pitch) * pitch).abs() - 0.4, 1.0)
        shown = row * coverage((x - edge).abs() - half, 1.0)
    if rng.chance(0.4):
        size = max(5.0, side * rng.uniform(0.025, 0.06))
        at_x, at_y = rng.uniform(-0.45, 0.3) * width, rng.choice((-1.0, 1.0)) * rng.uniform(0.38, 0.47) * height
        letters, _ = glyph_rows(rng, x - at_x, y - at_y, size, rng.integer(2, 9), rng.integer(1, 2))
        shown = torch.maximum(shown, letters)
    if rng.chance(0.15):
        bar = coverage((x + 0.47 * width).abs() - 0.012 * side, 1.0) * coverage(y.abs() - 0.2 * height, 1.0)
        shown = torch.maximum(shown, bar * (0.5 - y / (0.4 * height)).clamp(0.0, 1.0))
    if rng.chance(0.2):  # what somebody measured
        arm = max(2.0, 0.015 * side)
        for _ in range(rng.choice((2, 4))):
            at_x, at_y = rng.uniform(-0.35, 0.35) * width, rng.uniform(-0.35, 0.35) * height
            cross = torch.minimum(segment(x, y, at_x - arm, at_y, at_x + arm, at_y, 0.4),
                                  segment(x, y, at_x, at_y - arm, at_x, at_y + arm, 0.4))  # fmt: skip
            shown = torch.maximum(shown, coverage(cross, 1.0))
    return shown * rng.uniform(0.5, 1.0)


@scene("ultrasound", weight=3.0)
def ultrasound(rng: Rng, height: int, width: int) -> Scene:
    """Tissue under a probe, with what may grow in it as its own defects; their shadows are not marked."""
    fan = draw_fan(rng, height, width)
    body = draw_body(rng, fan, height, width)
    probe, side = Probe(rng, *body.organ.shape), min(height, width)
    marks = _marks(rng, height, width)
    dark, bright = colour_of(rng, (0.0, 0.0, 0.0)), colour_of(rng, (1.0, 1.0, 1.0))
    if rng.chance(0.2):
        bright = random_hue(rng, 0.05, 0.65, (0.05, 0.4), (0.9, 1.0))

    def seen(echoes: Echoes) -> Tensor:
        value = fan.picture(probe.seen(echoes))
        return ramp(torch.maximum(value, marks), dark, bright)

    foreground = fan.picture(body.organ) > 0.5
    before = seen(body.echoes)
    drawn = tissue_scene(rng, before, "ultrasound", body.noun, foreground if foreground.any() else fan.seen)
    drawn.casts = True

    def ill(sizes: tuple[float, float], most: int, kinds: tuple[str, ...]) -> Callable[[], tuple[Tensor, Tensor]]:
        def draw() -> tuple[Tensor, Tensor]:
            changed, there = body.echoes, torch.zeros_like(body.organ)
            for _ in range(rng.integer(1, most)):
                grown = _growth(rng, fan, body.organ, side * rng.log_uniform(*sizes))
                kind = rng.choice(kinds, [KINDS[one] / sum(KINDS[k] for k in kinds) for one in kinds])
                changed = _with(rng, changed, grown, kind)
                if rng.chance(0.3):
                    changed = _specks(rng, changed, grown.inside, grown.size)
                there = torch.maximum(there, grown.inside)
            return (drawn.image + (seen(changed) - before)).clamp(0.0, 1.0), fan.picture(there) > 0.5

        return draw

    def chalk() -> tuple[Tensor, Tensor]:
        grown = _growth(rng, fan, body.organ, side * rng.log_uniform(0.05, 0.25))
        changed = _specks(rng, body.echoes, grown.inside, grown.size)
        there = (changed.shine > body.echoes.shine + 0.3).float()
        return (drawn.image + (seen(changed) - before)).clamp(0.0, 1.0), fan.picture(there) > 0.3

    every = tuple(KINDS)
    drawn.variants = {
        "nodule": ill((0.08, 0.35), 1, every),
        "large nodule": ill((0.3, 0.6), 1, every),
        "nodules": ill((0.05, 0.2), 4, every),
        "cyst": ill((0.06, 0.4), 2, ("cyst",)),
        "calcifications": chalk,
    }
    return drawn
