"""Sections of retinas by optical coherence tomography, with the fluid, deposits, holes and losses of sick ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.echo_view import Echoes, Probe
from headclip.data.synthetic.noise import fractal_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.retina_layers import CHOROID, LAYERS, PIGMENT, RECEPTORS, Retina, draw_retina
from headclip.data.synthetic.shapes import smoothstep
from headclip.data.synthetic.tissue_base import tissue_scene

NOUNS = ("retina OCT", "OCT image", "OCT scan of a retina", "retinal scan", "retina")
Ill = tuple[Echoes, Tensor]
"""What a sick retina sends back, and how much of each place is the sickness itself, (R, C)."""


def _columns(retina: Retina) -> Tensor:
    return torch.arange(retina.borders.shape[1], device=retina.borders.device, dtype=torch.float32)


def _dome(rng: Rng, retina: Retina, wide: float, high: float) -> Tensor:
    """(C,): a rise of `high` pixels over `wide` pixels, near the pit or anywhere, a little uneven."""
    columns = _columns(retina)
    near = rng.chance(0.5)
    middle = retina.pit + rng.normal(0.0, 0.3) * wide if near else rng.uniform(0.0, 1.0) * len(columns)
    away = (columns - middle).abs() / (0.5 * wide)
    away = away + 0.08 * fractal_noise(rng, 1, len(columns), 1.0, 1, 0.5, max(2.0, 0.3 * wide))[0]
    return high * (1.0 - away.clamp(0.0, 1.0) ** rng.uniform(1.5, 3.0))


def _detachment(rng: Rng, retina: Retina) -> Ill:
    """Fluid lifts the retina off its pigment layer."""
    width = retina.borders.shape[1]
    dome = _dome(rng, retina, width * rng.uniform(0.12, 0.6), retina.thickness * rng.uniform(0.1, 0.7))
    lifted = retina.lifted(dome, PIGMENT - 1)
    pool = smoothstep(-1.0, 1.0, lifted.rows - (lifted.borders[PIGMENT - 1] + 0.03 * retina.thickness))
    pool = pool * (1.0 - lifted.below(PIGMENT)) * (dome > 1.5)
    return lifted.echoes().under(pool, retina.clear + rng.uniform(0.0, 14.0)), pool


def _raised(rng: Rng, retina: Retina, dome: Tensor, level: float) -> Ill:
    """The pigment layer is raised, and something lies below it."""
    lifted = retina.lifted(dome, CHOROID)
    body = lifted.below(CHOROID) * smoothstep(1.0, -1.0, retina.rows - retina.borders[CHOROID]) * (dome > 1.0)
    sick = lifted.echoes().under(body, level)
    risen = lifted.below(PIGMENT) * smoothstep(1.0, -1.0, retina.rows - retina.borders[CHOROID]) * (dome > 1.0)
    return sick, torch.maximum(body, risen)


def _drusen(rng: Rng, retina: Retina) -> Ill:
    """Several small bumps under the pigment layer."""
    width = retina.borders.shape[1]
    domes = [_dome(rng, retina, width * rng.log_uniform(0.02, 0.1), retina.thickness * rng.uniform(0.06, 0.25))
             for _ in range(rng.integer(1, 8))]  # fmt: skip
    return _raised(rng, retina, torch.stack(domes).amax(0), rng.uniform(-8.0, 3.0))


def _swelling(rng: Rng, retina: Retina) -> Ill:
    """One large bump under the pigment layer, of fluid or of tissue."""
    width = retina.borders.shape[1]
    dome = _dome(rng, retina, width * rng.uniform(0.1, 0.45), retina.thickness * rng.uniform(0.2, 0.8))
    return _raised(rng, retina, dome, rng.choice((rng.uniform(-28.0, -14.0), rng.uniform(-8.0, 4.0))))


def _cysts(rng: Rng, retina: Retina) -> Ill:
    """Dark hollows between the layers, which they push apart."""
    width = retina.borders.shape[1]
    wide = width * rng.uniform(0.06, 0.35)
    dome = _dome(rng, retina, 2.0 * wide, retina.thickness * rng.uniform(0.0, 0.4))
    layer = rng.choice((2, 4))
    lifted = retina.lifted(dome, layer)
    top, bottom = lifted.borders[layer], lifted.borders[layer + 1]
    centre, columns = float(_columns(retina)[dome.argmax()]), _columns(retina)
    hollow = torch.zeros_like(retina.grain)
    for _ in range(rng.integer(1, 7)):
        at = centre + rng.uniform(-0.5, 0.5) * wide
        column = int(min(max(at, 0), width - 1))
        tall = max(3.0, float(bottom[column] - top[column]) * rng.uniform(0.5, 1.0))
        middle = 0.5 * (top[column] + bottom[column]) + 0.15 * tall * rng.normal()
        reach = ((columns - at) / (tall * rng.uniform(0.3, 0.9))).square() + (
            (retina.rows - middle) / (0.5 * tall)
        ).square()
        hollow = torch.maximum(hollow, smoothstep(1.15, 0.85, reach.sqrt()))
    return lifted.echoes().under(hollow, retina.clear + rng.uniform(0.0, 10.0)), hollow


def _deposits(rng: Rng, retina: Retina) -> Ill:
    """Bright grains in the outer layers, each with its shadow."""
    height, width = retina.grain.shape
    near = _dome(rng, retina, width * rng.uniform(0.1, 0.5), 1.0)
    fine = fractal_noise(rng, height, width, max(1.5, 0.06 * retina.thickness), 1, 0.5, rng.uniform(1.0, 1.6))
    where = retina.below(2) * (1.0 - retina.below(RECEPTORS)) * (near > 0.2)
    there = smoothstep(0.0, 0.4, fine - rng.uniform(0.4, 0.75) * float((fine * where).amax())) * where
    sick = retina.echoes().under(there, rng.uniform(6.0, 13.0))
    sick.loss = sick.loss + there * rng.uniform(0.3, 2.0)
    return sick, there


def _hole(rng: Rng, retina: Retina) -> Ill:
    """A gap through all layers at the pit, or through the inner ones only."""
    columns, rows = _columns(retina), retina.rows
    last = PIGMENT if rng.chance(0.6) else 4
    half = retina.borders.shape[1] * rng.uniform(0.015, 0.08)
    part = (rows - retina.borders[0]) / (retina.borders[last] - retina.borders[0]).clamp(min=1.0)
    edge = half * (0.7 + rng.uniform(0.0, 1.0) * (2.0 * part - 1.0).square())
    gap = smoothstep(2.0, -2.0, (columns - retina.pit).abs() - edge) * retina.below(0) * (1.0 - retina.below(last))
    return retina.echoes().under(gap, retina.clear), gap


def _atrophy(rng: Rng, retina: Retina) -> Ill:
    """Receptors and pigment are gone over a stretch; more light comes through to what lies below."""
    columns = _columns(retina)
    half, middle = 0.5 * len(columns) * rng.uniform(0.08, 0.5), rng.uniform(0.1, 0.9) * len(columns)
    stretch = smoothstep(1.1, 0.9, (columns - middle).abs() / half)
    band = retina.below(RECEPTORS) * (1.0 - retina.below(CHOROID)) * stretch
    sick = retina.echoes().under(band, rng.uniform(-14.0, -6.0))
    sick.echo = sick.echo + rng.uniform(2.0, 8.0) * retina.below(CHOROID) * stretch
    return sick, torch.maximum(band, 0.4 * stretch * retina.below(CHOROID) * (1.0 - retina.below(len(LAYERS) - 1)))


SICK: dict[str, Callable[[Rng, Retina], Ill]] = {
    "fluid": _detachment,
    "drusen": _drusen,
    "swelling": _swelling,
    "cysts": _cysts,
    "deposits": _deposits,
    "macular hole": _hole,
    "atrophy": _atrophy,
}


@scene("oct", weight=2.0)
def oct_section(rng: Rng, height: int, width: int) -> Scene:
    """A section of a retina, with what makes it sick as its own defects; what they lift and shade is not marked."""
    retina, probe = draw_retina(rng, height, width), Probe(rng, height, width)
    probe.gain += 4.0
    negative = rng.chance(0.12)

    def seen(echoes: Echoes) -> Tensor:
        value = probe.seen(echoes)
        return (1.0 - value if negative else value)[None]

    before = seen(retina.echoes())
    foreground = (retina.below(0) * (1.0 - retina.below(len(LAYERS) - 1))) > 0.5
    drawn = tissue_scene(rng, before, "oct", rng.choice(NOUNS), foreground)
    drawn.casts = True

    def ill(kind: Callable[[Rng, Retina], Ill]) -> Callable[[], tuple[Tensor, Tensor]]:
        def draw() -> tuple[Tensor, Tensor]:
            sick, there = kind(rng, retina)
            return (drawn.image + (seen(sick) - before)).clamp(0.0, 1.0), there > 0.35

        return draw

    drawn.variants = {name: ill(kind) for name, kind in SICK.items()}
    return drawn
