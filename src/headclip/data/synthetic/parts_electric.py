"""Electric parts: transistors, circuit boards, cable cross-sections."""

from __future__ import annotations

import math
from functools import reduce

import torch

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.lettering import glyph_rows
from headclip.data.synthetic.noise import smooth_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import Ink, box, coverage, disc, dome, over, segment
from headclip.data.synthetic.staging import Layer, Stage, jittered, one_cell, seen_cell


@scene("transistor", weight=0.9)
def transistor(rng: Rng, height: int, width: int) -> Scene:
    """A body with two to four legs, standing or soldered on a board with a hole grid."""
    stage = Stage(rng, height, width, Ink(rng, 0.25))
    u, v = stage.frame(0.03, 0.9)
    half_u, half_v = stage.side * rng.uniform(0.1, 0.26), stage.side * rng.uniform(0.08, 0.22)
    legs = rng.integer(2, 4)
    gap = 2.0 * half_u * rng.uniform(0.7, 1.1) / legs
    reach = stage.side * rng.uniform(0.15, 0.35)
    thick = gap * rng.uniform(0.1, 0.25)
    metal, plastic = stage.ink.shade(0.5, 1.0), stage.ink.shade(0.02, 0.6)
    top = v + 0.25 * stage.side
    marking, _ = glyph_rows(rng, u, top, half_v * rng.uniform(0.3, 0.6), rng.integer(2, 6), rng.integer(1, 2))
    face = over(plastic, stage.ink.shade(0.3, 1.0), marking * rng.choice([0.0, rng.uniform(0.2, 0.8)]))
    tab = rng.chance(0.4)
    if rng.chance(0.4):  # a perforated board behind
        pitch = stage.side * rng.uniform(0.05, 0.12)
        hole = disc(
            u - pitch * torch.round(u / pitch),
            v - pitch * torch.round(v / pitch),
            pitch * rng.uniform(0.15, 0.35),
        )
        stage.backdrop = over(stage.backdrop, stage.ink.shade(0.0, 0.9), coverage(hole) * rng.uniform(0.3, 1.0))

    def layers(
        gone: int = -1, bent: tuple[int, float] | None = None, shift: float = 0.0, turn: float = 0.0
    ) -> list[Layer]:
        pieces = []
        foot = -0.25 * stage.side + half_v
        for k in range(legs):
            if k == gone:
                continue
            x0 = (k - 0.5 * (legs - 1)) * gap
            x1 = x0 + (bent[1] if bent is not None and bent[0] == k else 0.0)
            pieces.append(segment(u, v, x0, foot - 2.0, x1, foot + reach, thick))
        leads = reduce(torch.minimum, pieces)
        made = [Layer(leads, dome(leads, thick), metal)]
        x, y = (u - shift) + turn * top, top - turn * u
        if tab:
            plate = torch.maximum(
                box(x, y + 1.2 * half_v, 0.9 * half_u, half_v), -disc(x, y + 1.5 * half_v, 0.35 * half_v)
            )
            made.append(Layer(plate, dome(plate, 2.0), metal))
        body = box(x, y, half_u, half_v, 0.1 * half_v)
        made.append(Layer(body, dome(body, 0.25 * half_v), face))
        return made

    drawn = stage.scene(layers(), "transistor", rng.choice(["transistor", "electronic component", "voltage regulator"]))
    leg = rng.integer(0, legs - 1)
    side_step = rng.choice([-1.0, 1.0]) * gap * rng.uniform(0.5, 1.2)
    drawn.variants = {
        "missing part": stage.variant(drawn, lambda: layers(gone=leg)),
        "bent part": stage.variant(drawn, lambda: layers(bent=(leg, side_step))),
        "misplaced part": stage.variant(drawn, lambda: layers(shift=0.4 * side_step, turn=rng.uniform(-0.3, 0.3))),
    }
    return drawn


@scene("board", weight=1.1)
def board(rng: Rng, height: int, width: int) -> Scene:
    """A circuit board: traces, pads, holes, and marked packages, one per cell of a coarse grid."""
    stage = Stage(rng, height, width, Ink(rng, 0.5))
    u, v = stage.frame(0.1, 0.95)
    side = stage.side
    base, copper, solder = stage.ink.shade(0.05, 0.6), stage.ink.shade(0.3, 0.9), stage.ink.shade(0.6, 1.0)
    lane = side * rng.uniform(0.02, 0.06)
    number = torch.round(v / lane)
    sway = 4.0 * lane * torch.round(smooth_noise(rng, height, width, side * 0.25))
    on = (rng.rand(256) < rng.uniform(0.1, 0.7))[(number + torch.round(sway / lane)).long() & 255]
    trace = coverage((v - number * lane).abs() - lane * rng.uniform(0.15, 0.3)) * on * rng.uniform(0.3, 1.0)
    picture = over(base + 0.02 * smooth_noise(rng, height, width, 3.0), copper, trace)
    via_pitch = side * rng.uniform(0.06, 0.2)
    holes = stage.cells(u, v, via_pitch, via_pitch, 40, 40)
    some = (rng.rand(holes.count) < 0.3)[holes.index]
    ring = disc(holes.u, holes.v, via_pitch * rng.uniform(0.1, 0.25))
    picture = over(picture, solder, coverage(ring) * some)
    picture = over(picture, base * 0.3, coverage(ring + 0.06 * via_pitch) * some)
    stage.backdrop = picture
    pitch = side * rng.uniform(0.2, 0.5)
    ratio = rng.uniform(0.6, 1.3)
    cells = stage.cells(u, v, pitch, pitch * ratio, rng.integer(2, 6), rng.integer(2, 6))
    sizes = rng.rand(2, cells.count) * 0.28 + 0.1
    present = rng.rand(cells.count) < rng.uniform(0.4, 0.95)
    chosen = seen_cell(rng, cells)
    present[chosen] = True
    tones = rng.rand(cells.count) * rng.uniform(0.2, 0.9)
    moves = jittered(rng, cells, pitch * 0.04, 0.01)
    print_, _ = glyph_rows(rng, u, v, side * rng.uniform(0.03, 0.06), 24, 24)
    white = rng.uniform(0.2, 0.9)
    plastic = stage.ink.shade(0.05, 0.7)

    def layers(gone: int = -1, moved: tuple[int, float, float] | None = None) -> list[Layer]:
        du, dv, turn = moves
        if moved is not None:
            du = du + one_cell(cells.count, moved[0], moved[1], u)
            turn = turn + one_cell(cells.count, moved[0], moved[2], u)
        x, y = cells.moved(du, dv, turn)
        half_x, half_y = sizes[0][cells.index] * pitch, sizes[1][cells.index] * pitch * ratio
        package = box(x, y, half_x, half_y, 0.02 * pitch)
        pads = box(x.abs() - half_x, y, 0.06 * pitch, half_y * 0.85)
        shown = present[cells.index]
        pads = torch.where(shown, pads, 1e3)  # pads stay when the package is missing
        package = torch.where(shown & (cells.index != gone), package, 1e3)
        face = plastic * (0.5 + tones[cells.index]) + print_ * white * (package < -0.05 * pitch)
        return [Layer(pads, dome(pads, 2.0), solder), Layer(package, dome(package, 0.06 * pitch), face)]

    drawn = stage.scene(
        layers(), "board", rng.choice(["circuit board", "printed circuit board", "PCB", "electronic board"])
    )
    drawn.foreground = torch.ones_like(drawn.foreground)
    shift = rng.choice([-1.0, 1.0]) * pitch * rng.uniform(0.06, 0.15)
    drawn.variants = {
        "missing part": stage.variant(drawn, lambda: layers(gone=chosen)),
        "misplaced part": stage.variant(drawn, lambda: layers(moved=(chosen, shift, rng.uniform(0.15, 0.6)))),
    }
    return drawn


@scene("cable", weight=0.9)
def cable(rng: Rng, height: int, width: int) -> Scene:
    """A cable's cross-section: a sheath, coloured cores, bundles of bright strands."""
    stage = Stage(rng, height, width, Ink(rng, 0.6))
    u, v = stage.frame(0.02, 0.0)
    radius = stage.side * rng.uniform(0.34, 0.48)
    cores = rng.integer(1, 5)
    ring = 0.0 if cores == 1 else radius * rng.uniform(0.45, 0.52)
    room = radius * 0.8 if cores == 1 else min(ring * math.sin(math.pi / cores), 0.9 * radius - ring)
    insulation = room * rng.uniform(0.8, 0.97)
    conductor = insulation * rng.uniform(0.5, 0.8)
    strand = conductor * rng.uniform(0.12, 0.3)
    tints = torch.stack([stage.ink.shade(0.2, 0.9, hue=rng.uniform(0.0, 1.0))[:, 0, 0] for _ in range(cores + 1)])
    sector = 2.0 * math.pi / cores  # cores lie at equal angles: fold the picture onto one of them
    number = torch.round(torch.atan2(v, u) / sector)
    turn = number * sector
    folded = u * turn.cos() + v * turn.sin() - ring, v * turn.cos() - u * turn.sin()
    core = torch.remainder(number, cores).long()
    sheath, metal, filler = stage.ink.shade(0.1, 0.9), stage.ink.shade(0.5, 1.0), stage.ink.shade(0.0, 0.5)
    swell = 0.02 * radius * smooth_noise(rng, height, width, radius * 0.4)

    def layers(gone: int = -1, bare: int = -1, swapped: int = -1) -> list[Layer]:
        outer = disc(u, v, radius) + swell
        inside = outer + radius * 0.08
        made = [Layer(outer, dome(outer, 0.08 * radius), sheath), Layer(inside, torch.zeros_like(u), filler)]
        x, y = folded
        skin = torch.where(core == gone, 1e3, disc(x, y, insulation) + swell)
        made.append(Layer(skin, dome(skin, 0.2 * insulation), tints[torch.where(core == swapped, cores, core)]))
        made[-1].colour = made[-1].colour.permute(2, 0, 1)  # (H, W, 3) to (3, H, W)
        row = torch.round(y / (1.75 * strand))
        shift = 0.5 * (row.abs() % 2)
        x_in = x - (torch.round(x / (2.0 * strand) + shift) - shift) * 2.0 * strand
        wires = disc(x_in, y - row * 1.75 * strand, strand)
        bundle = torch.maximum(wires, disc(x, y, conductor))
        bundle = torch.where((core == gone) | (core == bare), 1e3, bundle)
        return [*made, Layer(bundle, dome(bundle, strand), metal)]

    drawn = stage.scene(layers(), "cable", rng.choice(["cable", "cable cross-section", "wire bundle", "power cable"]))
    lost = rng.integer(0, cores - 1)
    drawn.variants = {
        "missing part": stage.variant(drawn, lambda: layers(gone=lost)),
        "missing wire": stage.variant(drawn, lambda: layers(bare=lost)),
        "swapped part": stage.variant(drawn, lambda: layers(swapped=lost)),
    }
    return drawn
