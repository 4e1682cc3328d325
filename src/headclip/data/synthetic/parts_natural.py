"""Grown or baked things: nuts, fruit, beans, biscuits; one large or several on a belt."""

from __future__ import annotations

import torch

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.noise import smooth_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import Ink, disc, dome, smoothstep
from headclip.data.synthetic.staging import TURN, Layer, Stage, two_tone


@scene("nut", weight=1.2)
def nut(rng: Rng, height: int, width: int) -> Scene:
    """One hazelnut-like body: uneven outline, fibres from the base to the tip, a pale patch at one end."""
    stage = Stage(rng, height, width, Ink(rng, 0.65))
    u, v = stage.frame(0.06, 0.1)
    radius = stage.side * rng.uniform(0.24, 0.45)
    around = torch.atan2(v, u)
    wave = sum(
        (rng.normal(0.0, 0.035 / k) * torch.cos(k * around + rng.uniform(0.0, TURN)) for k in range(1, 5)),
        1.0 + 0.0 * u,
    )
    squash = rng.uniform(0.65, 1.0)
    length = ((u / wave).square() + (v / (wave * squash)).square()).sqrt()
    distance = (length - radius) * squash
    along, across = u / radius, v / radius
    stripes = torch.sin(
        across * rng.uniform(10.0, 40.0) / (1.3 - along.square().clamp(max=1.0) * 0.7) + rng.uniform(0.0, 6.0)
    )
    colour = two_tone(rng, stage.ink, height, width, stage.side * rng.log_uniform(0.02, 0.2))
    colour = colour * (1.0 + rng.uniform(0.0, 0.2) * stripes)
    if rng.chance(0.6):
        end = smoothstep(0.35, 0.75, along + 0.1 * stripes)
        colour = torch.lerp(colour, stage.ink.shade(0.5, 0.95) + torch.zeros_like(colour), end * rng.uniform(0.3, 1.0))
    rough = smooth_noise(rng, height, width, stage.side * rng.log_uniform(0.012, 0.1)) * rng.uniform(0.0, 1.5)
    rise = dome(distance, radius * squash) * rng.uniform(0.4, 1.0)

    def layers(bite: bool = False) -> list[Layer]:
        edge = distance
        if bite:
            at = torch.tensor(rng.uniform(0.0, TURN))
            size = radius * rng.uniform(0.15, 0.4)
            hole = disc(u - radius * float(at.cos()), v - radius * squash * float(at.sin()), size) + 1.5 * rough
            edge = torch.maximum(distance, -hole)
        return [Layer(edge, rise + rough, colour)]

    noun = rng.choice(["hazelnut", "nut", "almond", "potato", "fruit", "bean", "seed", "olive"])
    drawn = stage.scene(layers(), "nut", noun)
    drawn.variants["missing piece"] = stage.variant(drawn, lambda: layers(bite=True))
    return drawn


@scene("belt", weight=1.0)
def belt(rng: Rng, height: int, width: int) -> Scene:
    """Several like objects strewn over a ground, one per cell of a loose grid."""
    stage = Stage(rng, height, width, Ink(rng, 0.45))
    u, v = stage.frame(0.1, 0.3)
    pitch = stage.side * rng.log_uniform(0.14, 0.5)
    many = int(max(height, width) * 1.6 / pitch) + 1
    cells = stage.cells(u, v, pitch, pitch, many, many)
    tables = rng.randn(2, cells.count).clamp(-1.5, 1.5) * 0.06 * pitch
    turn = rng.rand(cells.count) * TURN
    shown = rng.rand(cells.count) < rng.uniform(0.5, 1.0)
    h, w = cells.index.shape
    chosen = int(cells.index[h // 2, w // 2])
    shown[chosen] = True
    sizes = 1.0 + 0.12 * rng.randn(cells.count).clamp(-1.5, 1.5)
    long = pitch * rng.uniform(0.2, 0.34)
    squash = rng.uniform(0.5, 1.0)
    lobes, depth = rng.integer(2, 6), rng.choice([0.0, rng.uniform(0.03, 0.12)])
    bow = rng.choice([0.0, rng.uniform(0.15, 0.45)])
    mottle = two_tone(rng, stage.ink, height, width, pitch * rng.log_uniform(0.05, 0.5))
    rough = smooth_noise(rng, height, width, max(1.6, pitch * 0.08)) * rng.uniform(0.0, 0.8)
    ring = rng.chance(0.2)
    tones = 1.0 + rng.randn(cells.count) * rng.log_uniform(0.01, 0.15)

    def layers(gone: int = -1, large: int = -1, cut: int = -1) -> list[Layer]:
        x, y = cells.moved(tables[0], tables[1], turn)
        size = sizes.clone()
        if large >= 0:
            size[large] *= 0.6
        y = y - bow * x.square() / long  # beans and cashews bend
        length = (x.square() + (y / squash).square()).sqrt() / size[cells.index]
        length = length * (1.0 + depth * torch.cos(lobes * torch.atan2(y, x)))
        body = (length - long) * squash
        if ring:
            body = torch.maximum(body, (0.4 * long - length) * squash)
        if cut >= 0:
            body = torch.where(cells.index == cut, torch.maximum(body, x - 0.15 * long + rough), body)
        body = torch.where(shown[cells.index] & (cells.index != gone), body, 1e3)
        return [Layer(body, dome(body, long * squash) * 0.7 + rough, mottle * tones[cells.index])]

    noun = rng.choice(["cashews", "beans", "macaroni", "candles", "snacks", "seeds", "cookies", "rings"])
    drawn = stage.scene(layers(), "belt", noun, "grid")
    drawn.variants = {
        "missing part": stage.variant(drawn, lambda: layers(gone=chosen)),
        "broken part": stage.variant(drawn, lambda: layers(cut=chosen)),
        "undersized part": stage.variant(drawn, lambda: layers(large=chosen)),
    }
    return drawn
