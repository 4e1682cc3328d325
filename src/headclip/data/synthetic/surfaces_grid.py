"""Regular surfaces: tiles, print, meshes, perforated plates, ribs; their parts can be missing or swapped."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.finishing import finish, surface
from headclip.data.synthetic.lettering import glyph_rows
from headclip.data.synthetic.noise import smooth_noise, spectral_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import (
    Ink,
    box,
    coverage,
    difference,
    disc,
    over,
    ramp,
    random_light,
    relief,
    textile_frame,
)


def grid_scene(
    rng: Rng, base: Tensor, family: str, noun: str, ink: Ink, changes: dict[str, Callable[[], Tensor]]
) -> Scene:
    """Finish a regular surface; each change gives another base picture, carried over as a difference."""
    state = finish(rng, base, ink, marks=0.1)
    made = Scene(state, torch.ones_like(state[0], dtype=torch.bool), family, noun, "grid")
    for name, draw in changes.items():

        def variant(draw: Callable[[], Tensor] = draw) -> tuple[Tensor, Tensor]:
            return difference(state, (state + draw().clamp(0.0, 1.0) - base.clamp(0.0, 1.0)).clamp(0.0, 1.0))

        made.variants[name] = variant
    return made


def central_cell(rng: Rng, index: Tensor) -> int:
    """The number of the cell under a pixel well inside the picture, so that what changes there is seen."""
    height, width = index.shape
    return int(index[int(height * rng.uniform(0.2, 0.8)), int(width * rng.uniform(0.2, 0.8))])


@scene("tiles", weight=1.1)
def tiles(rng: Rng, height: int, width: int) -> Scene:
    side = min(height, width)
    u, v = textile_frame(rng, height, width, 0.7, 0.3)
    pitch = side * rng.log_uniform(0.08, 0.7)
    ratio = rng.choice([1.0, rng.uniform(1.0, 3.0)])
    row = torch.round(v / pitch)
    shift = rng.choice([0.0, 0.5, 1.0 / 3.0]) * row
    column = torch.round(u / (pitch * ratio) + shift)
    local_u, local_v = u - (column - shift) * pitch * ratio, v - row * pitch
    grout = side * rng.log_uniform(0.003, 0.03) + 0.5
    tile = box(local_u, local_v, 0.5 * pitch * ratio - grout, 0.5 * pitch - grout, rng.uniform(0.0, 0.2) * pitch)
    index = ((row.long() & 31) * 32 + (column.long() & 31)).contiguous()
    tones = rng.randn(1024) * rng.log_uniform(0.005, 0.2)
    grain = spectral_noise(rng, height, width, rng.uniform(0.4, 2.0)) * rng.log_uniform(0.02, 0.25)
    diffuse, highlight = relief((-tile).clamp(0.0, grout * rng.uniform(0.5, 4.0)), random_light(rng))
    ink = Ink(rng, 0.45)
    dark, bright = ink.pair()
    ground = ink.shade(0.0, 1.0) + 0.3 * grain
    alpha = coverage(tile, 1.5)

    def draw(table: Tensor, mask: Tensor | None = None) -> Tensor:
        face = ramp(0.5 + table[index] + grain, dark, bright) * diffuse + 0.3 * highlight
        return over(ground, face, alpha if mask is None else alpha * mask)

    def swapped() -> Tensor:
        table = tones.clone()
        table[central_cell(rng, index)] += rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.0)
        return draw(table)

    def missing() -> Tensor:
        return draw(tones, (index != central_cell(rng, index)).float())

    noun = rng.choice(["tile", "tiled surface", "brick wall", "ceramic tiles", "paving", "floor tiles"])
    return grid_scene(rng, draw(tones), "tiles", noun, ink, {"swapped tile": swapped, "missing tile": missing})


@scene("print", weight=1.2)
def printed(rng: Rng, height: int, width: int) -> Scene:
    """Dots, checks, stripes or rows of lettering on paper or cloth."""
    side = min(height, width)
    u, v = textile_frame(rng, height, width, 0.7, 0.4)
    ink = Ink(rng, 0.5)
    paper = ink.shade(0.1, 1.0) + rng.log_uniform(0.005, 0.08) * spectral_noise(
        rng, height, width, rng.uniform(0.1, 1.5)
    )
    colours = [ink.shade(0.0, 1.0) for _ in range(2)]
    strength = rng.uniform(0.25, 1.0)
    style = rng.choice(["dots", "shapes", "stripes", "checks", "text", "text"])
    if style in ("stripes", "checks"):
        pitch = side * rng.log_uniform(0.03, 0.4)
        soft = rng.log_uniform(1.0, 0.3 * pitch + 1.0)
        share = rng.uniform(0.1, 0.8)
        first = coverage((u / pitch - torch.round(u / pitch)).abs() * pitch - 0.5 * share * pitch, soft)
        image = over(paper, colours[0], first * strength)
        if style == "checks":
            second = coverage((v / pitch - torch.round(v / pitch)).abs() * pitch - 0.5 * share * pitch, soft)
            image = over(image, colours[rng.integer(0, 1)], second * strength * rng.uniform(0.4, 1.0))
        return surface(
            rng,
            image,
            "print",
            rng.choice(["striped fabric", "printed paper", "wallpaper", "striped sheet"]),
            ink,
        )
    if style == "text":
        size = side * rng.log_uniform(0.035, 0.25)
        rows, columns = rng.integer(1, 8), rng.integer(3, 16)
        alpha, index = glyph_rows(rng, u, v, size, columns, rows)
        words = ["printed label", "label", "printed paper", "printed package"]
    else:
        pitch = max(4.0, side * rng.log_uniform(0.03, 0.3))
        row = torch.round(v / pitch)
        stagger = rng.choice([0.0, 0.5]) * (row % 2)
        column = torch.round(u / pitch + stagger)
        local_u, local_v = u - (column - stagger) * pitch, v - row * pitch
        index = ((row.long() & 63) * 64 + (column.long() & 63)).contiguous()
        size = pitch * rng.uniform(0.1, 0.42)
        inner = rng.choice([0.0, size * rng.uniform(0.3, 0.7)])
        if style == "shapes":
            local_u, local_v = local_u.abs() + rng.uniform(-0.3, 1.0) * local_v.abs(), local_v
        shape = disc(local_u, local_v, size)
        alpha = coverage(torch.maximum(shape, inner - (shape + size)), 1.5)
        words = ["printed fabric", "dotted fabric", "wallpaper", "printed film", "patterned paper"]

    def draw(keep: Tensor | None = None) -> Tensor:
        return over(paper, colours[0], alpha * strength if keep is None else alpha * strength * keep)

    def missing() -> Tensor:
        drawn = index[alpha > 0.5]
        if drawn.numel() == 0:
            return over(paper, colours[1], coverage(disc(u, v, 0.06 * side)))
        return draw((index != drawn[rng.integer(0, drawn.numel() - 1)]).float())

    def misprint() -> Tensor:
        dx = rng.choice([-1, 1]) * max(2, round(0.25 * size))
        cut = (v > rng.uniform(-0.2, 0.2) * height).float()
        return over(paper, colours[0], strength * (alpha * cut + alpha.roll(dx, 1) * (1.0 - cut)))

    changes = {"missing print": missing, "shifted print": misprint}
    return grid_scene(rng, draw(), "print", rng.choice(words), ink, changes)


@scene("mesh", weight=1.2)
def mesh(rng: Rng, height: int, width: int) -> Scene:
    """Perforated plates, wire meshes and grids over a ground."""
    side = min(height, width)
    u, v = textile_frame(rng, height, width, 0.6, 0.8)
    pitch = max(5.0, side * rng.log_uniform(0.03, 0.25))
    row = torch.round(v / pitch)
    style = rng.choice(["round", "square", "wire", "diamond"])
    stagger = rng.choice([0.0, 0.5]) * (row % 2) if style == "round" else 0.0 * row
    if style == "diamond":
        u, v = u + v * rng.uniform(0.4, 1.0), v - u * rng.uniform(0.4, 1.0)
        row = torch.round(v / pitch)
    column = torch.round(u / pitch + stagger)
    local_u, local_v = u - (column - stagger) * pitch, v - row * pitch
    index = ((row.long() & 63) * 64 + (column.long() & 63)).contiguous()
    opening = pitch * rng.uniform(0.15, 0.46)
    hole = (
        disc(local_u, local_v, opening) if style == "round" else box(local_u, local_v, opening, opening, opening * 0.2)
    )
    profile = dome_of(hole, pitch)
    if style == "wire":  # wires that pass over and under one another
        wave = 0.3 * pitch * torch.cos(math.pi * (row + column))
        profile = profile + wave * torch.cos(local_u / pitch * math.pi)
    diffuse, highlight = relief(profile * rng.uniform(0.2, 1.0), random_light(rng))
    ink = Ink(rng, 0.2)
    grain = rng.log_uniform(0.01, 0.15) * spectral_noise(rng, height, width, rng.uniform(0.2, 1.5))
    metal = ink.shade(0.2, 0.95) * (diffuse + grain) + 0.6 * highlight
    ground = ink.shade(0.0, 1.0) + 0.2 * grain + 0.03 * smooth_noise(rng, height, width, side * 0.3)
    alpha = coverage(hole, 1.5)

    def draw(open_: Tensor) -> Tensor:
        return over(metal, ground, open_)

    def blocked() -> Tensor:
        return draw(alpha * (index != central_cell(rng, index)))

    def broken() -> Tensor:
        chosen = central_cell(rng, index)
        wide = box(local_u, local_v, 0.6 * pitch, 0.6 * pitch)
        return draw(torch.maximum(alpha, coverage(wide) * (index == chosen)))

    noun = rng.choice(["metal grid", "wire mesh", "perforated plate", "grille", "net", "sieve"])
    return grid_scene(rng, draw(alpha), "mesh", noun, ink, {"blocked hole": blocked, "broken mesh": broken})


def dome_of(hole: Tensor, pitch: float) -> Tensor:
    """Height of the bars between holes: a rounded profile over the distance from the hole's edge."""
    return 0.25 * pitch * (hole.clamp(min=0.0) / (0.25 * pitch)).clamp(max=1.0).sqrt()


@scene("ribbed", weight=0.9)
def ribbed(rng: Rng, height: int, width: int) -> Scene:
    """Corrugated, ribbed and finely striped sheets."""
    side = min(height, width)
    u, v = textile_frame(rng, height, width, 0.8, 0.8)
    pitch = max(3.0, side * rng.log_uniform(0.015, 0.3))
    phase = u / pitch
    wave = torch.sin(phase * 2.0 * math.pi)
    style = rng.choice(["sine", "flat", "saw"])
    if style == "flat":
        wave = torch.tanh(wave * rng.uniform(2.0, 8.0))
    elif style == "saw":
        wave = 2.0 * (phase - phase.floor()) - 1.0
    if rng.chance(0.3):
        wave = wave + 0.4 * torch.sin(v / (pitch * rng.uniform(0.3, 3.0)) * 2.0 * math.pi)
    grain = rng.log_uniform(0.01, 0.15) * spectral_noise(rng, height, width, rng.uniform(0.2, 1.5))
    diffuse, highlight = relief(wave * pitch * rng.log_uniform(0.02, 0.25), random_light(rng))
    tones = rng.randn(512)[(phase.floor().long()) & 511] * rng.choice([0.0, rng.log_uniform(0.02, 0.15)])
    value = 0.65 * diffuse + rng.uniform(0.0, 0.15) * wave + grain + tones
    ink = Ink(rng, 0.4)
    dark, bright = ink.pair()
    noun = rng.choice(
        ["corrugated sheet", "ribbed plate", "striped surface", "corrugated cardboard", "finned heat sink"]
    )
    return surface(rng, ramp(value, dark, bright) + 0.4 * highlight, "ribbed", noun, ink)
