"""Line-like defects: scratches, cracks, threads, smears and faults of rows in a weave."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.defects_base import (
    Box,
    Canvas,
    Change,
    cover,
    defect,
    shade,
    stroke,
    tone,
    varying,
)
from headclip.data.synthetic.shapes import smoothstep

MAX_POINTS = 900


def _dense(corners: Tensor, length: float, spacing: float) -> Tensor:
    """Corners (V, 2) -> points (P, 2) about `spacing` pixels apart."""
    count = int(min(MAX_POINTS, max(3, length / spacing)))
    return F.interpolate(corners.T[None], size=count, mode="linear", align_corners=True)[0].T  # (P, 2)


def _taper(count: int, device: torch.device, share: float) -> Tensor:
    """1 in the middle, falling towards both ends over `share` of the length, (P,)."""
    place = torch.linspace(0, 1, count, device=device)
    return (torch.minimum(place, 1 - place) / max(share, 1e-3)).clamp(0.15, 1)


def _walk(rng: Rng, row: float, column: float, heading: float, length: float, wander: float, jag: float) -> Tensor:
    """A random walk of about `length` pixels from a point, (V, 2): the heading drifts (wander) and jumps
    (jag)."""
    step = rng.uniform(2.0, 6.0)
    count = max(3, int(length / step))
    noise = rng.randn(2, count)
    course = heading + torch.cumsum(noise[0], 0) * wander + noise[1] * jag
    corners = torch.stack([torch.sin(course), torch.cos(course)], 1) * step  # (V, 2)
    start = torch.tensor([[row, column]], device=rng.device)
    return torch.cat([start, start + torch.cumsum(corners, 0)])


def _arc(rng: Rng, row: float, column: float, length: float, bend: float) -> Tensor:
    """A straight or evenly bent line through a point, (V, 2)."""
    heading = rng.uniform(0, 2 * math.pi)
    place = torch.linspace(-0.5, 0.5, 2 if bend == 0 else 14, device=rng.device)
    along, across = place * length, (place * place * 4 - 0.3) * bend * length
    cos, sin = math.cos(heading), math.sin(heading)
    return torch.stack([row + along * sin + across * cos, column + along * cos - across * sin], 1)


def _beginning(canvas: Canvas, rng: Rng) -> tuple[float, float, float]:
    """Where a crack begins, row and column, and its heading: anywhere, or on one side of the picture and into it."""
    if not (canvas.everywhere and rng.chance(0.3)):
        return (*canvas.spot(rng), rng.uniform(0, 2 * math.pi))
    place, aside = rng.uniform(0.03, 0.97), rng.normal(0, 0.35)
    last_row, last_column = canvas.height - 1.0, canvas.width - 1.0
    return rng.choice(
        (
            (0.0, place * last_column, 0.5 * math.pi + aside),
            (last_row, place * last_column, -0.5 * math.pi + aside),
            (place * last_row, 0.0, aside),
            (place * last_row, last_column, math.pi + aside),
        )
    )


def _reach(canvas: Canvas, rng: Rng, low: float = 7.0, share: float = 0.8) -> float:
    return rng.log_uniform(low, max(low + 1, share * canvas.short))


def _floor(canvas: Canvas, rng: Rng, length: float) -> float:
    """How far above the local roughness a line must stand: a long one is seen in grain that would hide a short one."""
    return rng.log_uniform(0.9, 2.5) if length > 0.2 * canvas.short else 2.5


@defect("scratch", weight=1.6)
def scratch(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """Straight or bent, one or a bundle; dark, bright, or a dark groove with a bright lip."""
    row, column = canvas.spot(rng)
    length = _reach(canvas, rng)
    radius = rng.log_uniform(0.35, 1.8) if length > 14 else rng.uniform(0.35, 0.9)
    bend = rng.choice((0.0, rng.normal(0, 0.12)))
    line = _dense(_arc(rng, row, column, length, bend), length, max(0.6, 0.5 * radius))
    count = len(line)
    width = radius * varying(rng, count, 5, 0.6, 1.2) * _taper(count, rng.device, rng.uniform(0.02, 0.4))
    strength = varying(rng, count, rng.integer(2, 9), rng.uniform(0.4, 1.0), 1.0)
    if rng.chance(0.2):  # a bundle of nearly parallel lines
        copies = [line + rng.randn(1, 2) * rng.uniform(2, 6) for _ in range(rng.integer(1, 3))]
        line, width = torch.cat([line, *copies]), width.repeat(1 + len(copies))
        strength = strength.repeat(1 + len(copies))
    drawn = stroke(canvas, line, width, strength)
    if drawn is None:
        return None
    box, alpha = drawn
    change = tone(rng, canvas.crop(box), contrast, dark=0.65, floor=_floor(canvas, rng, length))
    pixels = shade(canvas.crop(box), alpha, change)
    if rng.chance(0.3):
        shifted = torch.roll(alpha, (rng.integer(1, 2), rng.integer(-1, 1)), (0, 1)) * (1 - alpha)
        pixels = shade(pixels, shifted, -0.7 * change)
    return Change(box, pixels)


@defect("crack", weight=2.4)
def crack(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A random walk with branches, 1 to 4 px wide, nearly always dark."""
    row, column, heading = _beginning(canvas, rng)
    length = _reach(canvas, rng, low=8.0, share=1.1)
    radius = rng.log_uniform(0.4, 2.0) if length > 20 else rng.uniform(0.4, 1.0)
    wander, jag = rng.log_uniform(0.02, 0.4), rng.uniform(0.0, 0.7)
    trunk = _walk(rng, row, column, heading, length, wander, jag)
    lines, widths = [], []
    for number in range(1 + (rng.integer(0, 4) if length > 30 and rng.chance(0.5) else 0)):
        share = 1.0 if number == 0 else rng.uniform(0.15, 0.5)
        corners = trunk
        if number:
            fork = trunk[rng.integer(1, len(trunk) - 1)].tolist()
            turn = heading + rng.choice((-1, 1)) * rng.uniform(0.4, 1.4)
            corners = _walk(rng, fork[0], fork[1], turn, length * share, wander, jag)
        points = _dense(corners, length * share, max(0.7, 0.5 * radius))
        lines.append(points)
        width = radius * (1.0 if number == 0 else 0.7) * varying(rng, len(points), 7, 0.5, 1.25)
        widths.append(width * _taper(len(points), rng.device, 0.15))
    points = torch.cat(lines)
    fading = varying(rng, len(points), 8, rng.uniform(0.4, 1.0), 1.0)
    drawn = stroke(canvas, points, torch.cat(widths), fading)
    if drawn is None:
        return None
    box, alpha = drawn
    change = tone(rng, canvas.crop(box), contrast, dark=0.92, floor=_floor(canvas, rng, length))
    return Change(box, shade(canvas.crop(box), alpha, change))


@defect("thread", weight=0.8, few=True)
def thread(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A hair or fibre lying on the object: smooth, curled, opaque, of any colour."""
    row, column = canvas.spot(rng)
    length = _reach(canvas, rng, low=12.0, share=1.0)
    count = 24
    curl = rng.normal(0, 2.5) / count
    noise = rng.randn(count)
    course = rng.uniform(0, 2 * math.pi) + torch.cumsum(noise * rng.uniform(0.05, 0.3) + curl, 0)
    corners = torch.stack([torch.sin(course), torch.cos(course)], 1).cumsum(0) * (length / count)
    corners = corners - corners[count // 2] + torch.tensor([row, column], device=rng.device)
    radius = rng.log_uniform(0.4, max(0.8, min(2.5, length / 12)))
    points = _dense(corners, length, max(0.6, 0.5 * radius))
    drawn = stroke(canvas, points, torch.full((len(points),), radius, device=rng.device))
    if drawn is None:
        return None
    box, alpha = drawn
    change = tone(rng, canvas.crop(box), max(contrast, 0.12), dark=0.6, floor=2.0)
    if rng.chance(0.5):
        pixels = shade(canvas.crop(box), alpha, change)
    else:
        colour = canvas.crop(box).mean((1, 2), keepdim=True) + change
        pixels = cover(canvas.crop(box), alpha, (colour + canvas.random_colour(rng, -0.15, 0.15)).clamp(0, 1))
    return Change(box, pixels, anywhere=rng.chance(0.5))


@defect("smear", weight=0.6)
def smear(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A wiped streak: parallel soft stripes along one direction, darker or brighter."""
    row, column = canvas.spot(rng)
    length = rng.log_uniform(10.0, max(12.0, 0.5 * canvas.short))
    wide = max(3.0, length * rng.uniform(0.1, 0.4))
    angle = rng.uniform(0, math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    half_rows = abs(sin) * length / 2 + abs(cos) * wide / 2 + 2
    half_columns = abs(cos) * length / 2 + abs(sin) * wide / 2 + 2
    box = canvas.box(row, column, half_rows, half_columns)
    rows, columns = canvas.offsets(box, row, column)
    along, across = columns * cos + rows * sin, rows * cos - columns * sin  # (h, w)
    stripes = rng.rand(1, 1, 1, max(3, int(wide / rng.uniform(1.5, 4))))
    place = (across / wide * 2).clamp(-1, 1)
    grid = torch.stack([place, torch.zeros_like(place)], -1)[None]  # (1, h, w, 2)
    streak = F.grid_sample(stripes, grid, align_corners=True)[0, 0]
    ends = smoothstep(0, 1, (0.5 - along.abs() / length) * 4) * smoothstep(0, 1, (0.5 - across.abs() / wide) * 6)
    alpha = ends * (0.35 + 0.65 * streak)
    return Change(box, shade(canvas.crop(box), alpha, tone(rng, canvas.crop(box), contrast, dark=0.6, floor=1.2)))


@defect("weave fault", weight=3.0, families=("fabric", "knit", "carpet", "mesh"), few=True)
@defect("line fault", weight=0.5, kinds=("surface", "grid", "part"), few=True)
def weave_fault(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A band of rows or columns that is shifted along itself, or one thread that is thicker, darker or
    missing."""
    row, column = canvas.spot(rng)
    upright = rng.chance(0.5)
    length = rng.log_uniform(12.0, max(14.0, 0.7 * canvas.short))
    thick = rng.log_uniform(1.2, max(2.0, 0.08 * canvas.short))
    box = canvas.box(row, column, *((length / 2, thick / 2 + 1) if upright else (thick / 2 + 1, length / 2)))
    rows, columns = canvas.offsets(box, row, column)
    along, across = (rows, columns) if upright else (columns, rows)
    alpha = (thick / 2 + 0.5 - across.abs()).clamp(0, 1) * smoothstep(
        0, 1, (length / 2 - along.abs()) / max(2.0, 0.1 * length)
    )
    crop = canvas.crop(box)
    if thick > 4 and rng.chance(0.5):
        shifted = torch.roll(crop, rng.integer(2, max(3, int(thick))), 1 if upright else 2)
        change = tone(rng, crop, min(contrast, 0.3), floor=0.5)
        return Change(box, cover(crop, alpha, shade(shifted, torch.ones_like(alpha), change)), support=alpha)
    return Change(box, shade(crop, alpha, tone(rng, crop, contrast, dark=0.7, floor=1.5)))


def plain_scratch(canvas: Canvas, rng: Rng) -> Change:
    """The last resort that is always visible: a short strong line around a spot of the foreground."""
    row, column = canvas.spot(rng)
    box = canvas.box(row, column, 1, 4)
    crop = canvas.crop(box)
    target = 0.0 if float(crop.mean()) > 0.5 else 1.0
    alpha = torch.ones((box.height, box.width), device=canvas.device)
    return Change(box, cover(crop, alpha, canvas.colour(target, target, target)), anywhere=True)


__all__ = ["Box", "crack", "plain_scratch", "scratch", "smear", "thread", "weave_fault"]
