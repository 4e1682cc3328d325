"""Flat parts: stamped plates, labelled packages, wafers of like dies."""

from __future__ import annotations

import torch

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.lettering import glyph_rows
from headclip.data.synthetic.noise import smooth_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import Ink, box, coverage, disc, dome, over
from headclip.data.synthetic.staging import Layer, Stage, one_cell, seen_cell


@scene("stamped", weight=1.0)
def stamped(rng: Rng, height: int, width: int) -> Scene:
    """A metal or plastic plate with holes, slots and a raised bead."""
    stage = Stage(rng, height, width, Ink(rng, 0.15))
    u, v = stage.frame(0.03, 0.7)
    half_u, half_v = stage.side * rng.uniform(0.22, 0.45), stage.side * rng.uniform(0.12, 0.4)
    plate = box(u, v, half_u, half_v, min(half_u, half_v) * rng.uniform(0.02, 0.9))
    if rng.chance(0.4):  # an arm
        arm = box(u - half_u * rng.uniform(-0.6, 0.6), v - half_v, half_u * rng.uniform(0.1, 0.4), half_v * 0.8)
        plate = torch.minimum(plate, arm)
    count = rng.integer(1, 6)
    holes = []
    start = rng.integer(0, 5)
    for k in range(count):  # each in its own field of a 3 x 2 layout
        column, row = (start + k) % 3 - 1, 2 * ((start + k) // 3 % 2) - 1
        x = u - half_u * (0.58 * column + rng.uniform(-0.08, 0.08))
        y = v - half_v * (0.42 * row + rng.uniform(-0.1, 0.1))
        size = min(0.2 * half_u, 0.3 * half_v) * rng.uniform(0.3, 1.0)
        slot = min(size * rng.choice([1.0, rng.uniform(1.0, 3.0)]), 0.25 * half_u)
        holes.append(box(x, y, slot, size, size * rng.choice([1.0, 0.2])))
    bead = (plate + min(half_u, half_v) * rng.uniform(0.1, 0.4)).abs() - stage.side * 0.01
    beaded = rng.chance(0.5)
    rim = stage.side * rng.uniform(0.005, 0.03) + 1.0
    colour = stage.ink.shade(0.25, 0.95)
    letters, _ = glyph_rows(rng, u, v, half_v * rng.uniform(0.1, 0.35), rng.integer(2, 8), rng.integer(1, 2))
    engraved = letters * rng.choice([0.0, rng.uniform(0.5, 2.0)])

    def layers(without: int = -1, extra: bool = False, dented: bool = False) -> list[Layer]:
        distance = plate
        for k, hole in enumerate(holes):
            if k != without:
                distance = torch.maximum(distance, -hole)
        if extra:
            size = min(half_u, half_v) * rng.uniform(0.08, 0.2)
            hole = disc(u - half_u * rng.uniform(-0.6, 0.6), v - half_v * rng.uniform(-0.6, 0.6), size)
            distance = torch.maximum(distance, -hole)
        rise = dome(distance, rim) - engraved
        if beaded:
            rise = rise + dome(bead, stage.side * 0.01)
        if dented:
            wide = min(half_u, half_v) * rng.uniform(0.15, 0.4)
            spot = disc(u - half_u * rng.uniform(-0.6, 0.6), v - half_v * rng.uniform(-0.6, 0.6), 0.0)
            rise = rise - 0.5 * wide * (1.0 - (spot / wide).square()).clamp(min=0.0)
        return [Layer(distance, rise, colour)]

    drawn = stage.scene(
        layers(), "stamped", rng.choice(["stamped plate", "metal bracket", "flange", "sheet metal part"])
    )
    lost = rng.integer(0, count - 1)
    drawn.variants = {
        "missing hole": stage.variant(drawn, lambda: layers(without=lost)),
        "extra hole": stage.variant(drawn, lambda: layers(extra=True)),
        "dented part": stage.variant(drawn, lambda: layers(dented=True)),
    }
    return drawn


@scene("package", weight=0.9)
def package(rng: Rng, height: int, width: int) -> Scene:
    """A box or bottle front with a label, lettering and a bar code."""
    stage = Stage(rng, height, width, Ink(rng, 0.45))
    u, v = stage.frame(0.02, 0.95)
    half_u, half_v = stage.side * rng.uniform(0.22, 0.47), stage.side * rng.uniform(0.22, 0.47)
    body = box(u, v, half_u, half_v, stage.side * rng.uniform(0.0, 0.12))
    round_ = (1.0 - (u / half_u).square()).clamp(min=0.0).sqrt() * half_u * rng.choice([0.0, rng.uniform(0.2, 0.8)])
    colour, paper, ink = stage.ink.shade(0.1, 0.95), stage.ink.shade(0.4, 1.0), stage.ink.shade(0.0, 0.4)
    label_u, label_v = half_u * rng.uniform(0.5, 0.95), half_v * rng.uniform(0.3, 0.8)
    top = half_v * rng.uniform(-0.15, 0.15)
    size = label_v * rng.uniform(0.15, 0.5)
    letters, _ = glyph_rows(rng, u, v - top + 0.35 * label_v, size, int(1.2 * label_u / size) + 1, rng.integer(1, 2))
    bar = stage.side * rng.uniform(0.006, 0.02) + 0.6
    stripes = (rng.rand(128) < 0.5).float()[((u / bar) + 64.0).long().clamp(0, 127)]
    code = stripes * coverage(box(u, v - top - 0.55 * label_v, label_u * 0.6, label_v * 0.25))

    def layers(tilt: float = 0.0, shift: float = 0.0, bare: bool = False, unprinted: bool = False) -> list[Layer]:
        made = [Layer(body, dome(body, 0.04 * stage.side) + round_, colour)]
        x, y = u + tilt * (v - top), v - top - shift - tilt * u
        label = torch.maximum(box(x, y, label_u, label_v, 2.0), body)
        if not bare:
            marks = (code if unprinted else torch.maximum(letters, code)).roll(round(shift), 0)
            made.append(Layer(label, round_, over(paper, ink, marks)))
        return made

    drawn = stage.scene(layers(), "package", rng.choice(["package", "labelled box", "carton", "bottle with a label"]))
    lean, slip = (
        rng.choice([-1.0, 1.0]) * rng.uniform(0.06, 0.25),
        rng.choice([-1.0, 1.0]) * half_v * rng.uniform(0.1, 0.3),
    )
    drawn.variants = {
        "misplaced label": stage.variant(drawn, lambda: layers(tilt=lean, shift=slip)),
        "missing label": stage.variant(drawn, lambda: layers(bare=True)),
        "missing print": stage.variant(drawn, lambda: layers(unprinted=True)),
    }
    return drawn


@scene("wafer", weight=0.8)
def wafer(rng: Rng, height: int, width: int) -> Scene:
    """Like dies or modules in a grid, each with the same inner pattern, to the picture's edge."""
    stage = Stage(rng, height, width, Ink(rng, 0.3))
    u, v = stage.frame(0.1, 0.95)
    pitch = stage.side * rng.log_uniform(0.1, 0.5)
    ratio = rng.uniform(0.6, 1.6)
    many = int(max(height, width) * 1.6 / pitch / min(ratio, 1.0)) + 1
    cells = stage.cells(u, v, pitch, pitch * ratio, many, many)
    half_u, half_v = pitch * rng.uniform(0.38, 0.48), pitch * ratio * rng.uniform(0.38, 0.48)
    die = box(cells.u, cells.v, half_u, half_v, pitch * rng.uniform(0.0, 0.1))
    inner = []
    for _ in range(rng.integer(1, 4)):
        x, y = cells.u - half_u * rng.uniform(-0.6, 0.6), cells.v - half_v * rng.uniform(-0.6, 0.6)
        piece = box(x, y, half_u * rng.uniform(0.08, 0.4), half_v * rng.uniform(0.08, 0.4), 1.0)
        inner.append((torch.maximum(piece, die + 1.0), stage.ink.shade(0.0, 1.0)))
    face = stage.ink.shade(0.1, 0.9)
    tones = 1.0 + rng.randn(cells.count) * rng.log_uniform(0.005, 0.1)
    sheen = 1.0 + 0.08 * smooth_noise(rng, height, width, stage.side * rng.uniform(0.2, 0.7))
    rise = dome(die, 2.0 + pitch * rng.uniform(0.0, 0.05))

    def layers(gone: int = -1, dull: int = -1, plain: int = -1) -> list[Layer]:
        tone = tones + one_cell(cells.count, dull, -0.4, u) if dull >= 0 else tones
        colour = face * tone[cells.index] * sheen
        for distance, tint in inner:
            colour = over(colour, tint, coverage(distance) * (cells.index != plain))
        return [Layer(torch.where(cells.index == gone, 1e3, die), rise, colour)]

    drawn = stage.scene(
        layers(), "wafer", rng.choice(["wafer", "chip array", "LED panel", "solar module", "keypad"]), "grid"
    )
    cell = seen_cell(rng, cells)
    drawn.variants = {
        "missing part": stage.variant(drawn, lambda: layers(gone=cell)),
        "dark cell": stage.variant(drawn, lambda: layers(dull=cell)),
        "missing print": stage.variant(drawn, lambda: layers(plain=cell)),
    }
    return drawn
