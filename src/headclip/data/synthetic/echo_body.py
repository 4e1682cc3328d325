"""What lies under the skin where a probe is held: layers, glands, vessels, airways and bones, all of it sound."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.echo_view import SILENT, Echoes, Fan
from headclip.data.synthetic.noise import cell_noise, fractal_noise, smooth_noise
from headclip.data.synthetic.shapes import coverage, smoothstep, turned


@dataclass
class Body:
    """Sound tissue: its echoes, the organ in which something may grow (R, C) in [0, 1], and what it is called."""

    echoes: Echoes
    organ: Tensor
    noun: str


class _Canvas:
    """Tissue while it is put together; all fields (R, C) along the beams of `fan`, lengths in pixels."""

    def __init__(self, rng: Rng, fan: Fan, side: float) -> None:
        self.rng, self.fan, self.side = rng, fan, side
        rows, beams = fan.x.shape
        self.rows, self.beams = rows, beams
        none = torch.zeros(rows, beams, device=rng.device)
        self.echoes = Echoes(none, none, none)
        self.along = side * rng.uniform(0.01, 0.06) * smooth_noise(rng, rows, beams, rows * 2.0, beams * 0.4)

    def noise(self, cell: float, across: float | None = None) -> Tensor:
        return smooth_noise(
            self.rng, self.rows, self.beams, max(1.5, cell), None if across is None else max(1.5, across)
        )

    def clouds(self, cell: float, octaves: int = 3, stretch: float = 1.0) -> Tensor:
        return fractal_noise(self.rng, self.rows, self.beams, max(1.5, cell), octaves, 0.6, stretch)

    def fill(self, alpha: Tensor, echo: Tensor | float) -> None:
        self.echoes = self.echoes.under(alpha, echo)

    def line(self, distance: Tensor, thin: float, amplitude: Tensor | float) -> None:
        """A smooth border where `distance` is 0: it answers in one thin line."""
        bright = torch.exp(-(distance / thin).square()) * amplitude
        self.echoes.shine = torch.maximum(self.echoes.shine, bright)

    def lose(self, alpha: Tensor, loss: float) -> None:
        """`loss` dB more over the whole height of the picture, where `alpha` is."""
        self.echoes.loss = self.echoes.loss + alpha * (loss / self.rows)


def _layers(body: _Canvas, deepest: float) -> float:
    """Skin, fat and muscle down to `deepest` pixels of depth at most; gives the depth where they end."""
    rng, side = body.rng, body.side
    depth = body.fan.depth + body.along
    at = side * rng.uniform(0.0, 0.04)
    body.fill(smoothstep(at + 1.0, at - 1.0, depth), rng.uniform(0.0, 10.0))
    for _ in range(rng.integer(1, 3)):
        thick = rng.uniform(0.2, 0.6) * (deepest - at)
        border = at + 0.3 * side * rng.uniform(0.0, 0.08) * body.noise(body.rows * 2.0, body.beams * 0.3)
        below = smoothstep(border - 1.5, border + 1.5, depth)
        if rng.chance(0.5):  # fat: dark lobules between bright septa
            period = side * rng.uniform(0.06, 0.2)
            u, v = body.fan.x / period + 32.0, depth * rng.uniform(1.2, 2.5) / period + 32.0
            bend = 0.3 * body.noise(period)
            first, second, _ = cell_noise(rng, u + bend, v - bend, 0.9)
            septa = smoothstep(0.12, 0.0, second - first)
            body.fill(below, rng.uniform(-14.0, -5.0) + rng.uniform(3.0, 9.0) * septa)
        else:  # muscle: fibres along its layer
            fibres = body.clouds(side * rng.uniform(0.008, 0.02), 2, rng.uniform(8.0, 25.0))
            body.fill(below, rng.uniform(-12.0, -3.0) + rng.uniform(2.0, 5.0) * fibres)
        shine = rng.uniform(0.3, 3.0) * smoothstep(-0.5, 1.0, body.noise(side, side * 0.3))
        body.line(depth - border, rng.uniform(0.7, 2.0), shine)
        at += thick
    return at


def _organ_texture(body: _Canvas, echo: float) -> Tensor:
    rng = body.rng
    return echo + rng.uniform(0.3, 2.5) * body.clouds(body.side * rng.uniform(0.02, 0.15), 3)


def _vessel(body: _Canvas, x: float, y: float, size: float, flat: float) -> None:
    """A tube cut across or along: no echo inside, a bright wall, and more light behind it."""
    rng = body.rng
    u, v = turned(body.fan.x - x, body.fan.y - y, rng.uniform(-0.5, 0.5))
    reach = ((u / flat).square() + (v * min(flat, 1.5)).square()).sqrt() / (0.5 * size)
    reach = reach + 0.04 * body.noise(size * 0.5)
    inside = smoothstep(1.05, 0.95, reach)
    body.fill(inside, rng.uniform(-45.0, -22.0))
    body.lose(inside, -rng.uniform(4.0, 25.0))
    steep = (v.abs() / (0.5 * size)).clamp(0.0, 1.0)  # walls across the beam answer most
    body.line((reach - 1.0) * 0.5 * size, rng.uniform(0.8, 2.0), rng.uniform(0.0, 4.0) * steep)


def _shell(body: _Canvas, x: float, y: float, size: float, air: bool) -> None:
    """A rib, a vertebra or an airway: a bright cap, and behind it shadow, or echoes of the cap itself."""
    rng = body.rng
    u, v = body.fan.x - x, body.fan.y - y
    reach = (u.square() + (v * rng.uniform(0.8, 1.6)).square()).sqrt() - 0.5 * size
    reach = reach + 0.03 * size * body.noise(size * 0.3)
    facing = smoothstep(0.2, -0.6, v / (0.5 * size))
    inside = coverage(reach, 2.0)
    body.fill(inside, SILENT)
    body.line(reach, rng.uniform(1.0, 2.5), rng.uniform(3.0, 20.0) * facing)
    body.lose(inside, rng.uniform(60.0, 200.0))
    if air:
        for k in range(1, rng.integer(2, 5)):
            body.line(reach + 0.18 * k * size, 1.5, rng.uniform(1.0, 12.0) * 0.5**k * facing)


def _gland(body: _Canvas, at: float) -> Tensor:
    """A neck across or along: a gland of one or two lobes beside an airway, with arteries and muscles."""
    rng, side = body.rng, body.side
    x, y = body.fan.x, body.fan.y
    top = at - 0.5 * side
    echo = rng.uniform(-1.0, 6.0)
    below = smoothstep(at - 2.0, at + 2.0, body.fan.depth + body.along)
    fibres = body.clouds(side * rng.uniform(0.01, 0.03), 2, rng.uniform(4.0, 12.0))
    body.fill(below, rng.uniform(-12.0, -4.0) + rng.uniform(1.0, 4.0) * fibres)
    tall = side * rng.uniform(0.22, 0.5)
    across = rng.chance(0.45)
    if across:
        lobes = [(way * side * rng.uniform(0.22, 0.4), rng.uniform(0.35, 0.6)) for way in (-1.0, 1.0)]
    else:
        lobes = [(rng.uniform(-0.15, 0.15) * side, rng.uniform(0.6, 1.3))]
    organ = torch.zeros_like(x)
    for middle, wide in lobes:
        u, v = turned(x - middle, y - top - 0.5 * tall, rng.normal(0.0, 0.1))
        reach = ((u / (wide * side * 0.62)).square() + (v / (0.55 * tall)).square()).sqrt()
        reach = reach + 0.05 * body.noise(side * 0.2)
        organ = torch.maximum(organ, smoothstep(1.03, 0.97, reach))
        body.line((reach - 1.0) * 0.5 * tall, 1.5, rng.uniform(0.0, 2.5))
    if across:  # the bridge before the airway
        bridge = coverage((y - top - 0.12 * tall).abs() - 0.1 * tall, 4.0) * coverage(x.abs() - 0.3 * side, 4.0)
        organ = torch.maximum(organ, bridge)
    body.fill(organ, _organ_texture(body, echo))
    if across:
        size = side * rng.uniform(0.22, 0.36)
        _shell(body, rng.normal(0.0, 0.03) * side, top + tall * rng.uniform(0.5, 0.8), size, air=True)
    for way in (-1.0, 1.0):
        if rng.chance(0.6):
            at_x, at_y = way * side * rng.uniform(0.42, 0.62), top + tall * rng.uniform(0.4, 1.0)
            _vessel(body, at_x, at_y, side * rng.uniform(0.08, 0.2), rng.uniform(0.8, 1.6))
    if rng.chance(0.5):
        at_x, at_y = rng.uniform(-0.5, 0.5) * side, top + tall * rng.uniform(1.4, 2.2)
        _shell(body, at_x, at_y, side * rng.uniform(0.2, 0.5), air=False)
    return organ


def _breast(body: _Canvas, at: float) -> Tensor:
    """Bright fibrous tissue with dark lobules above a muscle, ribs perhaps."""
    rng, side = body.rng, body.side
    depth = body.fan.depth + body.along
    below = smoothstep(at - 2.0, at + 2.0, depth)
    strands = body.clouds(side * rng.uniform(0.03, 0.08), 3, rng.uniform(1.5, 5.0))
    body.fill(below, rng.uniform(-2.0, 5.0) + rng.uniform(2.0, 6.0) * strands)
    end = at + side * rng.uniform(0.3, 0.7)
    muscle = smoothstep(end - 2.0, end + 2.0, depth)
    fibres = body.clouds(side * rng.uniform(0.01, 0.025), 2, rng.uniform(8.0, 20.0))
    body.fill(muscle, rng.uniform(-12.0, -4.0) + 3.0 * fibres)
    body.line(depth - end, 1.5, rng.uniform(0.0, 3.0))
    if rng.chance(0.4):
        for x in (rng.uniform(-0.5, 0.0), rng.uniform(0.1, 0.6)):
            _shell(body, x * side, end + side * rng.uniform(-0.35, -0.1), side * rng.uniform(0.1, 0.25), air=False)
    return below * (1.0 - muscle)


def _inner(body: _Canvas, at: float) -> Tensor:
    """An even organ that fills the picture, with vessels and the bright line of what lies behind it."""
    rng, side = body.rng, body.side
    depth = body.fan.depth + body.along
    organ = smoothstep(at - 2.0, at + 2.0, depth)
    body.fill(organ, _organ_texture(body, rng.uniform(-4.0, 4.0)))
    body.line(depth - at, 1.5, rng.uniform(0.0, 3.0))
    for _ in range(rng.integer(0, 7)):
        size = side * rng.log_uniform(0.025, 0.12)
        _vessel(body, rng.uniform(-0.5, 0.5) * side, rng.uniform(-0.2, 0.5) * side, size, rng.log_uniform(0.9, 5.0))
    if rng.chance(0.35):
        bow = side * rng.uniform(0.6, 1.5)
        arc = (body.fan.x.square() + (body.fan.y - 0.5 * side * rng.uniform(0.6, 1.1) + bow).square()).sqrt() - bow
        beyond = smoothstep(0.0, 4.0, arc)
        body.fill(beyond, rng.uniform(-20.0, -4.0))
        body.line(arc, rng.uniform(1.0, 3.0), rng.uniform(2.0, 12.0))
        organ = organ * (1.0 - beyond)
    return organ


PLACES = {
    "thyroid": (_gland, ("thyroid ultrasound", "ultrasound of the neck", "thyroid")),
    "breast": (_breast, ("breast ultrasound", "ultrasound of the breast")),
    "inner organ": (_inner, ("liver ultrasound", "ultrasound of an organ", "abdominal ultrasound")),
}
COMMON = ("ultrasound image", "ultrasound scan")


def draw_body(rng: Rng, fan: Fan, height: int, width: int) -> Body:
    """Sound tissue under a probe."""
    side = float(min(height, width))
    body = _Canvas(rng, fan, side)
    draw, nouns = PLACES[rng.choice(sorted(PLACES), (0.3, 0.3, 0.4))]
    ends = _layers(body, height * rng.uniform(0.05, 0.3))
    organ = draw(body, ends)
    body.echoes.echo = body.echoes.echo + rng.uniform(0.3, 1.5) * body.clouds(side * 0.3, 2)
    body.lose(torch.ones_like(organ), rng.uniform(-8.0, 14.0))
    noun = rng.choice(nouns) if rng.chance(0.5) else rng.choice(COMMON)
    return Body(body.echoes, organ, noun)
