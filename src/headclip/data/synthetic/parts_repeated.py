"""Rows and grids of like parts: blisters, pins, bristles, zips."""

from __future__ import annotations

import torch

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.lettering import glyph_rows
from headclip.data.synthetic.noise import smooth_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import Ink, box, disc, dome, over
from headclip.data.synthetic.staging import Layer, Stage, jittered, one_cell, seen_cell


@scene("blister", weight=1.1)
def blister(rng: Rng, height: int, width: int) -> Scene:
    """A grid of pills, candies, contacts or balls, loose or on a carrier."""
    stage = Stage(rng, height, width, Ink(rng, 0.55))
    u, v = stage.frame(0.02, 0.85)
    pitch = stage.side * rng.log_uniform(0.12, 0.4)
    ratio = rng.uniform(0.7, 1.5)
    columns, rows = rng.integer(2, 8), rng.integer(1, 6)
    cells = stage.cells(u, v, pitch, pitch * ratio, columns, rows)
    long, wide = pitch * rng.uniform(0.2, 0.45), pitch * min(1.0, ratio) * rng.uniform(0.2, 0.45)
    if rng.chance(0.5):
        long = wide
    corner = min(long, wide) * rng.choice([1.0, rng.uniform(0.1, 0.9)])
    moves = jittered(rng, cells, pitch * rng.choice([0.0, 0.02, 0.04]), rng.choice([0.0, 0.05, 3.0]))
    colours = [stage.ink.shade(0.2, 1.0) for _ in range(2)]
    tones = rng.randn(cells.count) * rng.log_uniform(0.01, 0.15)
    mixed = (rng.rand(cells.count) < 0.5).float() * rng.choice([0.0, 1.0], [0.7, 0.3])
    rise = min(long, wide) * rng.uniform(0.3, 1.0)
    tray = rng.chance(0.5)
    tray_colour = stage.ink.shade(0.2, 0.95)

    def layers(gone: int = -1, moved: tuple[int, float, float] | None = None, odd: int = -1) -> list[Layer]:
        du, dv, turn = moves
        if moved is not None:
            du = du + one_cell(cells.count, moved[0], moved[1], u)
            turn = turn + one_cell(cells.count, moved[0], moved[2], u)
        x, y = cells.moved(du, dv, turn)
        pill = box(x, y, long, wide, corner)
        colour = torch.lerp(colours[0], colours[1], mixed[cells.index]) * (1.0 + tones[cells.index])
        if odd >= 0:
            colour = torch.where(cells.index == odd, 1.05 - colour, colour)
        made = []
        if tray:
            sheet = box(u, v, pitch * columns * 0.5, pitch * ratio * rows * 0.5, 0.15 * pitch)
            pocket = box(cells.u, cells.v, min(long * 1.2, pitch * 0.48), min(wide * 1.2, pitch * ratio * 0.48), corner)
            made.append(Layer(sheet, dome(sheet, 3.0) + dome(pocket, 0.2 * pitch), tray_colour))
        shown = torch.where(cells.index == gone, 1e3, pill)
        return [*made, Layer(shown, dome(shown, rise), colour)]

    noun = rng.choice(["blister pack", "tablets", "pills", "candies", "rubber seals", "solder balls"])
    drawn = stage.scene(layers(), "blister", noun, "grid" if not tray else "part")
    cell = seen_cell(rng, cells)
    shift = rng.choice([-1.0, 1.0]) * pitch * rng.uniform(0.12, 0.25)
    drawn.variants = {
        "missing part": stage.variant(drawn, lambda: layers(gone=cell)),
        "misplaced part": stage.variant(drawn, lambda: layers(moved=(cell, shift, rng.uniform(0.4, 1.2)))),
        "swapped part": stage.variant(drawn, lambda: layers(odd=cell)),
    }
    return drawn


@scene("pins", weight=1.0)
def pins(rng: Rng, height: int, width: int) -> Scene:
    """A connector or chip with rows of contacts."""
    stage = Stage(rng, height, width, Ink(rng, 0.3))
    u, v = stage.frame(0.03, 0.85)
    columns = rng.integer(3, 20)
    pitch = stage.side * rng.uniform(0.6, 0.95) / columns
    body_half = stage.side * rng.uniform(0.08, 0.3)
    pin_wide = pitch * rng.uniform(0.12, 0.4)
    pin_long = stage.side * rng.uniform(0.05, 0.3)
    both = rng.chance(0.5)
    cells = stage.cells(u, v, pitch, 1e5, columns, 1)
    metal, plastic, ink = stage.ink.shade(0.55, 1.0), stage.ink.shade(0.02, 0.7), stage.ink.shade(0.0, 1.0)
    marking, _ = glyph_rows(rng, u, v, body_half * rng.uniform(0.3, 0.7), rng.integer(3, 8), rng.integer(1, 2))
    marking = marking * rng.choice([0.0, rng.uniform(0.3, 0.9)])
    wobble = rng.randn(cells.count) * pin_wide * rng.choice([0.0, 0.06])

    def layers(gone: int = -1, bent: tuple[int, float] | None = None, short: int = -1) -> list[Layer]:
        lean = torch.zeros(cells.count, device=u.device)
        if bent is not None:
            lean[bent[0]] = bent[1]
        out = (v - body_half).clamp(min=0.0)
        x = cells.u - wobble[cells.index] - lean[cells.index] * out.square() / pin_long
        length = torch.full((cells.count,), pin_long, device=u.device)
        if short >= 0:
            length[short] *= 0.4
        y = v.abs() if both else v
        ends = torch.where(v > 0, length[cells.index], pin_long) if both else length[cells.index]
        pin = torch.maximum(x.abs() - pin_wide, torch.maximum(y - body_half - ends, -y))
        if gone >= 0:
            pin = torch.where((cells.index == gone) & (v > 0), 1e3, pin)
        body = box(u, v, pitch * columns * 0.5 + 0.3 * pitch, body_half, 0.05 * body_half)
        face = over(plastic, ink, marking)
        return [Layer(pin, dome(pin, pin_wide), metal), Layer(body, dome(body, 0.2 * body_half), face)]

    drawn = stage.scene(layers(), "pins", rng.choice(["connector", "pin header", "integrated circuit", "chip", "plug"]))
    cell = seen_cell(rng, cells)
    lean = rng.choice([-1.0, 1.0]) * pitch * rng.uniform(0.4, 1.0) / pin_long
    drawn.variants = {
        "missing part": stage.variant(drawn, lambda: layers(gone=cell)),
        "bent part": stage.variant(drawn, lambda: layers(bent=(cell, lean))),
        "short pin": stage.variant(drawn, lambda: layers(short=cell)),
    }
    return drawn


@scene("brush", weight=0.9)
def brush(rng: Rng, height: int, width: int) -> Scene:
    """Tufts of bristles from above, as on a toothbrush."""
    stage = Stage(rng, height, width, Ink(rng, 0.5))
    u, v = stage.frame(0.02, 0.9)
    half_u, half_v = stage.side * rng.uniform(0.3, 0.47), stage.side * rng.uniform(0.14, 0.4)
    pitch = stage.side * rng.uniform(0.06, 0.14)
    columns, rows = max(2, int(1.8 * half_u / pitch)), max(2, int(1.8 * half_v / pitch))
    cells = stage.cells(u, v, pitch, pitch, columns, rows)
    moves = jittered(rng, cells, 0.03 * pitch, 0.2)
    fibre = smooth_noise(rng, height, width, max(1.5, 0.06 * pitch))
    colours = torch.stack([stage.ink.shade(0.3, 1.0)[:, 0, 0] for _ in range(3)])  # (3 kinds, 3)
    kinds = (
        (rng.rand(cells.count) * 3).long()
        if rng.chance(0.5)
        else torch.arange(cells.count, device=u.device) // columns % 3
    )
    plate = stage.ink.shade(0.3, 1.0)
    size = pitch * rng.uniform(0.3, 0.5)

    def layers(gone: int = -1, bent: tuple[int, float] | None = None) -> list[Layer]:
        du, dv, turn = moves
        spread = torch.ones(cells.count, device=u.device)
        if bent is not None:
            du = du + one_cell(cells.count, bent[0], bent[1], u)
            spread[bent[0]] = 0.7
        x, y = cells.moved(du, dv, turn)
        tuft = disc(x * spread[cells.index], y, size) - 0.08 * size * fibre
        tuft = torch.where(cells.index == gone, 1e3, tuft)
        colour = colours[kinds][cells.index].permute(2, 0, 1) * (0.75 + 0.2 * fibre)  # (H, W, 3) to (3, H, W)
        base = box(u, v, half_u, half_v, half_v * 0.9)
        return [
            Layer(base, dome(base, 0.2 * half_v), plate),
            Layer(tuft, dome(tuft, size) + 0.5 * fibre, colour),
        ]

    drawn = stage.scene(layers(), "brush", rng.choice(["toothbrush", "brush", "bristles", "brush head"]))
    cell = seen_cell(rng, cells)
    push = rng.choice([-1.0, 1.0]) * pitch * rng.uniform(0.3, 0.5)
    drawn.variants = {
        "missing part": stage.variant(drawn, lambda: layers(gone=cell)),
        "bent part": stage.variant(drawn, lambda: layers(bent=(cell, push))),
    }
    return drawn


@scene("zip", weight=0.9)
def zip_(rng: Rng, height: int, width: int) -> Scene:
    """A zip, chain or spring: like elements along a line, on a tape."""
    stage = Stage(rng, height, width, Ink(rng, 0.3))
    u, v = stage.frame(0.04, 0.9)
    pitch = max(4.0, stage.side * rng.log_uniform(0.03, 0.12))
    count = int(max(height, width) * 1.5 / pitch)
    cells = stage.cells(u, v, pitch, 1e5, count, 1)
    even = (cells.index % 2).float() * 2.0 - 1.0
    half = pitch * rng.uniform(0.8, 3.0)
    stagger = half * rng.uniform(0.0, 0.5)
    thin = pitch * rng.uniform(0.25, 0.46)
    weave = torch.sin(u * rng.uniform(1.0, 2.0)) * torch.sin(v * rng.uniform(1.0, 2.0))
    tape, metal = stage.ink.shade(0.02, 0.9), stage.ink.shade(0.2, 1.0)
    tape_half = half + stage.side * rng.uniform(0.05, 0.25)
    slant = rng.choice([0.0, rng.uniform(-0.5, 0.5)])

    def layers(gone: int = -1, bent: tuple[int, float] | None = None, split: float = 0.0) -> list[Layer]:
        turn = torch.full((cells.count,), slant, device=u.device)
        if bent is not None:
            turn[bent[0]] += bent[1]
        zero = torch.zeros_like(turn)
        x, y = cells.moved(zero, zero, turn)
        open_ = split * (1.0 - (u / (5.0 * pitch)).square()).clamp(min=0.0)
        tooth = box(x, y - even * (stagger + open_), thin, half, 0.8 * thin)
        tooth = torch.where(cells.index == gone, 1e3, tooth)
        band = v.abs() - tape_half
        return [Layer(band, 0.3 * weave, tape * (1.0 + 0.1 * weave)), Layer(tooth, dome(tooth, thin), metal)]

    drawn = stage.scene(layers(), "zip", rng.choice(["zipper", "chain", "metal spring", "zip fastener"]))
    cell = seen_cell(rng, cells)
    lean, gap = rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 0.8), half * rng.uniform(0.4, 1.0)
    drawn.variants = {
        "missing part": stage.variant(drawn, lambda: layers(gone=cell)),
        "bent part": stage.variant(drawn, lambda: layers(bent=(cell, lean))),
        "split teeth": stage.variant(drawn, lambda: layers(split=gap)),
    }
    return drawn
