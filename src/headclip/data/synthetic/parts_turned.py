"""Round and turned parts: washers, nuts, gears, caps, bolts, capsules."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.lettering import glyph_rows
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import Ink, box, disc, dome, polygon, smoothstep
from headclip.data.synthetic.staging import TURN, Layer, Stage


@scene("washer", weight=1.0)
def washer(rng: Rng, height: int, width: int) -> Scene:
    stage = Stage(rng, height, width, Ink(rng, 0.2))
    u, v = stage.frame()
    radius = stage.side * rng.uniform(0.2, 0.52)
    hexagonal = rng.chance(0.4)
    sides = 6 if rng.chance(0.85) else rng.integer(4, 8)
    outer = (
        torch.maximum(polygon(u, v, radius, sides), disc(u, v, radius * rng.uniform(1.05, 1.15)))
        if hexagonal
        else disc(u, v, radius)
    )
    hole = radius * rng.uniform(0.25, 0.75)
    inner = disc(u, v, hole)
    rim = radius * rng.log_uniform(0.02, 0.3)
    colour = stage.ink.shade(0.25, 0.95)
    distance = torch.maximum(outer, -inner)
    around = torch.atan2(v, u)
    track = inner + hole
    groove = rng.uniform(0.0, 0.02) * stage.side * torch.sin(track * TURN / (radius * rng.uniform(0.02, 0.2)))
    groove = groove * rng.choice([0.0, 1.0])
    if hexagonal and rng.chance(0.5):  # thread turns seen inside the bore
        groove = groove + 0.5 * torch.sin(track * 1.5 + around) * (track < hole * 1.15)
    shape = Layer(distance, dome(distance, rim) + groove, colour)
    layers = [shape]
    if rng.chance(0.25):  # a second, raised ring
        ring = disc(u, v, hole + (radius - hole) * rng.uniform(0.3, 0.7))
        layers.append(
            Layer(
                torch.maximum(ring, -inner),
                dome(torch.maximum(ring, -inner), rim),
                stage.ink.shade(0.2, 0.95),
            )
        )
    noun = rng.choice(
        ["steel nut", "hex nut", "metal nut"] if hexagonal else ["steel washer", "metal ring", "washer", "gasket"]
    )
    drawn = stage.scene(layers, "washer", noun)

    def notched() -> list[Layer]:
        at, depth = rng.uniform(0.0, TURN), radius * rng.uniform(0.08, 0.25)
        centre = torch.tensor(at)
        gap = disc(u - radius * float(centre.cos()), v - radius * float(centre.sin()), depth)
        return [Layer(torch.maximum(one.distance, -gap), one.height, one.colour) for one in layers]

    def off_centre() -> list[Layer]:
        at, shift = torch.tensor(rng.uniform(0.0, TURN)), (radius - hole) * rng.uniform(0.25, 0.6) + 2.0
        hole_moved = disc(u - shift * float(at.cos()), v - shift * float(at.sin()), hole)
        moved = torch.maximum(outer, -hole_moved)
        return [Layer(moved, dome(moved, rim), colour), *layers[1:]]

    drawn.variants = {
        "missing piece": stage.variant(drawn, notched),
        "misplaced hole": stage.variant(drawn, off_centre),
    }
    return drawn


@scene("capsule", weight=0.9)
def capsule(rng: Rng, height: int, width: int) -> Scene:
    stage = Stage(rng, height, width, Ink(rng, 0.5))
    u, v = stage.frame(0.05, 0.5)
    if stage.width != stage.height and rng.chance(0.5):
        stage.side *= rng.uniform(1.0, 1.3)
    half_u = stage.side * rng.uniform(0.25, 0.46)
    half_v = half_u * rng.uniform(0.25, 1.0)
    round_ = half_v * (1.0 if rng.chance(0.6) else rng.uniform(0.3, 1.0))
    body = box(u, v, half_u, half_v, round_)
    first, second = stage.ink.shade(0.3, 1.0), stage.ink.shade(0.1, 1.0)
    split = half_u * rng.uniform(-0.3, 0.3)
    tall = dome(body, half_v * rng.uniform(0.3, 1.0)) * rng.uniform(0.3, 1.0)
    two = rng.chance(0.6)
    print_on = rng.chance(0.45)
    size = half_v * rng.uniform(0.3, 0.9)
    letters, _ = glyph_rows(rng, u, v, size, rng.integer(1, 4), rng.integer(1, 2))

    def layers(swap: bool = False, shift: float = 0.0, erase: bool = False) -> list[Layer]:
        colour = first + torch.zeros_like(u)
        if two:
            colour = torch.lerp(first, second, smoothstep(split + shift - 1.0, split + shift + 1.0, u))
        if swap:
            colour = colour.flip(0).roll(1, 0) * 0.7 + 0.15 if stage.ink.mode == "colour" else 1.0 - 0.8 * colour
        bump = tall
        if two:  # the cap's edge stands above the body
            bump = bump + 0.03 * half_v * smoothstep(split + shift - 1.0, split + shift + 1.0, u)
        if print_on and not erase:
            colour = colour * (1.0 - 0.75 * letters)
        return [Layer(body, bump, colour)]

    drawn = stage.scene(layers(), "capsule", rng.choice(["capsule", "pill", "tablet", "medicine capsule"]))
    drawn.variants["wrong colour"] = stage.variant(drawn, lambda: layers(swap=True))
    if two:
        offset = rng.choice([-1.0, 1.0]) * half_u * rng.uniform(0.12, 0.4)
        drawn.variants["misplaced cap"] = stage.variant(drawn, lambda: layers(shift=offset))
    if print_on:
        drawn.variants["missing print"] = stage.variant(drawn, lambda: layers(erase=True))
    return drawn


def tooth_wave(around: Tensor, teeth: int, sharp: float) -> Tensor:
    """A rounded square wave in [-1, 1] of the angle, `teeth` periods a turn."""
    return torch.tanh(sharp * torch.sin(around * teeth))


@scene("gear", weight=0.9)
def gear(rng: Rng, height: int, width: int) -> Scene:
    stage = Stage(rng, height, width, Ink(rng, 0.3))
    u, v = stage.frame(0.06, 0.2)
    radius = stage.side * rng.uniform(0.22, 0.42)
    around = torch.atan2(v, u)
    teeth, sharp = rng.integer(6, 36), rng.uniform(1.0, 6.0)
    depth = radius * rng.uniform(0.04, 0.14)
    length = (u.square() + v.square()).sqrt()
    bore = radius * rng.uniform(0.1, 0.5)
    holes = rng.integer(3, 8)
    spokes = rng.chance(0.5)
    hub = (radius - depth + bore) * 0.5
    sector = TURN / holes
    window_at = torch.round(around / sector)
    folded = around - window_at * sector
    window = disc(
        length * folded.cos() - hub,
        length * folded.sin(),
        min(0.3 * (radius - depth - bore), hub * 0.4 * sector),
    )
    rim, colour = radius * rng.log_uniform(0.02, 0.15), stage.ink.shade(0.25, 0.95)
    keyed = rng.chance(0.3)

    def layers(lost_tooth: float | None = None, lost_hole: int | None = None, bend: float = 0.0) -> list[Layer]:
        wave = tooth_wave(around + bend, teeth, sharp)
        if lost_tooth is not None:
            turn = torch.remainder(around - lost_tooth + 0.5 * TURN, TURN) - 0.5 * TURN
            wave = torch.where(turn.abs() < 0.5 * TURN / teeth, torch.full_like(wave, -1.0), wave)
        outer = length - radius - depth * wave
        distance = torch.maximum(outer, bore - length)
        if keyed:
            distance = torch.maximum(distance, -box(u - bore, v, 0.3 * bore, 0.25 * bore))
        if spokes:
            inner = window if lost_hole is None else torch.where(window_at == lost_hole, 1e3, window)
            distance = torch.maximum(distance, -inner)
        return [Layer(distance, dome(distance, rim), colour)]

    drawn = stage.scene(layers(), "gear", rng.choice(["gear", "gear wheel", "cogwheel", "sprocket"]))
    tooth = (rng.integer(0, teeth - 1) + 0.25) * TURN / teeth
    tooth = tooth - TURN if tooth > 0.5 * TURN else tooth
    drawn.variants["missing tooth"] = stage.variant(drawn, lambda: layers(lost_tooth=tooth))
    if spokes:
        drawn.variants["missing hole"] = stage.variant(drawn, lambda: layers(lost_hole=rng.choice([0, 1])))
    return drawn


@scene("bolt", weight=1.0)
def bolt(rng: Rng, height: int, width: int) -> Scene:
    """A screw, bolt or nail from the side: head, shank, thread, tip."""
    stage = Stage(rng, height, width, Ink(rng, 0.2))
    u, v = stage.frame(0.03, 0.4)
    half = stage.side * rng.uniform(0.28, 0.46)
    thick = half * rng.uniform(0.08, 0.25)
    head_long, head_wide = half * rng.uniform(0.15, 0.4), thick * rng.uniform(1.4, 2.6)
    pitch = max(3.0, half * rng.uniform(0.03, 0.12))
    depth = thick * rng.uniform(0.08, 0.3)
    start = -half + head_long + (2.0 * half - head_long) * rng.uniform(0.0, 0.6)
    tip = half * rng.uniform(0.0, 0.3)
    colour, head_colour = stage.ink.shade(0.3, 0.95), stage.ink.shade(0.3, 0.95)
    slant = rng.uniform(0.1, 0.5)
    slit = rng.uniform(0.0, 0.5) * head_long

    def layers(bend: float = 0.0, stripped: tuple[float, float] | None = None, short: float = 0.0) -> list[Layer]:
        w = v - bend * (u + half).clamp(min=0.0).square() / (2.0 * half)
        thread = torch.sin((u + slant * w) * TURN / pitch) * (u > start)
        if stripped is not None:
            thread = thread * ((u < stripped[0]) | (u > stripped[1]))
        taper = ((half - short - u) / max(tip, 1.0)).clamp(0.0, 1.0)
        limit = (thick + 0.5 * depth * thread) * taper
        shank = torch.maximum(w.abs() - limit, torch.maximum(u - half + short, -half + 0.5 * head_long - u))
        roundness = (1.0 - (w / thick).square()).clamp(min=0.0).sqrt() * thick
        head = box(u + half - 0.5 * head_long, w, 0.5 * head_long, head_wide, 0.3 * head_long)
        top = (1.0 - (w / head_wide).square()).clamp(min=0.0).sqrt() * head_wide
        top = top - 0.4 * slit * (w.abs() < 0.15 * head_wide)
        return [Layer(shank, roundness + depth * thread, colour), Layer(head, top, head_colour)]

    drawn = stage.scene(layers(), "bolt", rng.choice(["screw", "bolt", "metal screw", "steel bolt", "threaded rod"]))
    bow = rng.choice([-1.0, 1.0]) * rng.uniform(0.08, 0.3)
    at = start + (half - tip - start) * rng.uniform(0.1, 0.6)
    reach = rng.uniform(1.5, 6.0) * pitch
    drawn.variants = {
        "bent part": stage.variant(drawn, lambda: layers(bend=bow)),
        "stripped thread": stage.variant(drawn, lambda: layers(stripped=(at, at + reach))),
        "broken tip": stage.variant(drawn, lambda: layers(short=half * rng.uniform(0.15, 0.5))),
    }
    return drawn


@scene("bottle_top", weight=0.9)
def bottle_top(rng: Rng, height: int, width: int) -> Scene:
    """A bottle or cup seen from above: concentric rims, bright bands and a dark or bright inside."""
    stage = Stage(rng, height, width, Ink(rng, 0.3))
    u, v = stage.frame(0.02, 1.0)
    radius = stage.side * rng.uniform(0.35, 0.5)
    length = (u.square() + v.square()).sqrt()
    around = torch.atan2(v, u)
    gleam = rng.uniform(0.1, 0.6) * torch.cos(around * rng.integer(1, 5) + rng.uniform(0.0, TURN)).clamp(
        min=0.0
    ) ** rng.integer(1, 8)
    count = rng.integer(2, 5)
    radii = (rng.rand(count) * 0.85 + 0.12).sort(descending=True).values
    colours = [stage.ink.shade(0.0, 1.0) for _ in range(count)]
    ribs = rng.integer(20, 90) if rng.chance(0.35) else 0
    rims = [rng.uniform(0.02, 0.15) * radius for _ in range(count)]

    def layers(without: int | None = None, shift: float = 0.0, turn: float = 0.0) -> list[Layer]:
        made = []
        for k in range(count):
            if k == without:
                continue
            size = radius * (1.0 if k == 0 else float(radii[k]))
            reach = (
                length if k == 0 or shift == 0.0 else disc(u - shift * math.cos(turn), v - shift * math.sin(turn), 0.0)
            )
            distance = reach - size
            if k == 0 and ribs:
                distance = distance - 0.015 * radius * torch.sin(around * ribs)
            made.append(Layer(distance, dome(distance, rims[k]), colours[k] * (1.0 + gleam)))
        return made

    drawn = stage.scene(layers(), "bottle_top", rng.choice(["bottle", "bottle cap", "lid", "bottle top", "metal can"]))
    lost = rng.integer(1, count - 1)
    drawn.variants["missing ring"] = stage.variant(drawn, lambda: layers(without=lost))
    move, way = radius * rng.uniform(0.05, 0.15), rng.uniform(0.0, TURN)
    drawn.variants["misplaced part"] = stage.variant(drawn, lambda: layers(shift=move, turn=way))
    return drawn
