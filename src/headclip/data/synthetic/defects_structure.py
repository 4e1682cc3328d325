"""Defects of structure: a wrong colour, a warp, a foreign texture, disturbed grain, a chipped edge."""

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
    blob,
    blob_at,
    cover,
    defect,
    local_level,
    shade,
    soft_noise,
    tone,
    wide,
)
from headclip.data.synthetic.shapes import smoothstep


@defect("colour shift", weight=0.8)
def colour_shift(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A region of another hue or brightness, its texture unbroken, with a sharp or soft edge."""
    size = canvas.extent(rng, low=7, share=wide(rng))
    box, alpha = blob(rng, canvas, size, ragged=rng.uniform(0.05, 0.4), soft=rng.uniform(0.05, 0.6))
    crop = canvas.crop(box)
    change = tone(rng, crop, contrast, dark=0.6, floor=1.0)
    if canvas.channels == 1 or rng.chance(0.3):
        return Change(box, shade(crop, alpha, change))
    shift = canvas.random_colour(rng, -1.0, 1.0)
    shift = shift / float(shift.abs().amax().clamp(min=0.3)) * max(abs(change), 0.05)
    return Change(box, crop + (shift + 0.3 * change) * alpha)


@defect("warp", weight=0.6, kinds=("grid", "part", "surface"), few=True)
def warp(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """Pixels pushed along a direction or turned around a centre, strongest in the middle."""
    size = rng.log_uniform(12.0, max(14.0, 0.4 * canvas.short))
    row, column = canvas.spot(rng)
    box = canvas.box(row, column, size / 2, size / 2)
    rows, columns = canvas.offsets(box, row, column)
    inside = smoothstep(0, 1, 1 - ((rows * rows + columns * columns).sqrt() / (size / 2)))
    strength = 0.12 + 0.4 * min(1.0, contrast)
    if rng.chance(0.5):
        angle = rng.uniform(0, 2 * math.pi)
        reach = strength * size * 0.6
        moved_rows, moved_columns = (
            rows + inside * reach * math.sin(angle),
            columns + inside * reach * math.cos(angle),
        )
    else:
        turn = inside * (rng.choice((-1, 1)) * (0.5 + 2.0 * strength))
        moved_rows = rows * torch.cos(turn) - columns * torch.sin(turn)
        moved_columns = rows * torch.sin(turn) + columns * torch.cos(turn)
    pixels = _sampled(canvas, box, moved_rows + (row - box.top), moved_columns + (column - box.left))
    if rng.chance(0.6):  # a bulge also catches the light differently
        pixels = shade(pixels, inside, tone(rng, canvas.crop(box), min(contrast, 0.35), dark=0.6, floor=0.5))
    return Change(box, pixels, support=(inside * 2).clamp(0, 1))


def _sampled(canvas: Canvas, box: Box, rows: Tensor, columns: Tensor) -> Tensor:
    """The crop's pixels read at places (h, w) given in the crop's own rows and columns."""
    places = torch.stack(
        [
            columns.expand(box.height, box.width) * (2 / max(box.width - 1, 1)) - 1,
            rows.expand(box.height, box.width) * (2 / max(box.height - 1, 1)) - 1,
        ],
        -1,
    )  # (h, w, 2)
    moved = F.grid_sample(canvas.crop(box)[None], places[None], padding_mode="border", align_corners=True)
    return moved[0]


@defect("foreign texture", weight=0.9, few=True)
def foreign_texture(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """An irregular patch of another texture: noise, stripes, the picture itself enlarged, or another scene's
    crop."""
    size = canvas.extent(rng, low=8, share=0.4)
    box, alpha = blob(rng, canvas, size, ragged=rng.uniform(0.2, 0.6), soft=rng.uniform(0.05, 0.25))
    crop = canvas.crop(box)
    kind = rng.choice(("noise", "stripes", "self", "scene"), (0.3, 0.2, 0.25, 0.25))
    if kind == "scene":
        patch = _other_scene(canvas, rng, box)
    elif kind == "self":
        patch = _enlarged(canvas, rng, box)
    else:
        level = (crop.mean((1, 2), keepdim=True) + tone(rng, crop, max(contrast, 0.15))).clamp(0, 1)
        if kind == "noise":
            cells = rng.integer(2, max(3, min(box.height, box.width) // 2))
            field = soft_noise(rng, box.height, box.width, cells)
        else:
            rows, columns = canvas.offsets(box, 0.0, 0.0)
            angle, wave = rng.uniform(0, math.pi), rng.uniform(2.5, max(4.0, size / 3))
            field = torch.sin((rows * math.sin(angle) + columns * math.cos(angle)) * (2 * math.pi / wave))
        patch = level + field * rng.log_uniform(0.03, 0.3)
    opacity = rng.uniform(0.5, 1.0)
    pixels = cover(crop, alpha * opacity, patch)
    return Change(box, pixels, support=alpha)


def _other_scene(canvas: Canvas, rng: Rng, box: Box) -> Tensor:
    # Imported late: scenes are no part of the defects' own ground, and small ones are drawn only here.
    from headclip.data.synthetic.scenes import make_scene

    height, width = max(box.height, 64), max(box.width, 64)
    ratio = 3
    other = make_scene(rng, max(height, -(-width // ratio)), max(width, -(-height // ratio)))
    return canvas.fit(other.image)[:, : box.height, : box.width]


def _enlarged(canvas: Canvas, rng: Rng, box: Box) -> Tensor:
    """A smaller window from elsewhere in the picture, enlarged to the box and sometimes turned."""
    zoom = rng.uniform(1.5, 3.0)
    height, width = max(2, int(box.height / zoom)), max(2, int(box.width / zoom))
    top, left = rng.integer(0, canvas.height - height), rng.integer(0, canvas.width - width)
    window = canvas.image[:, top : top + height, left : left + width]
    if rng.chance(0.5):
        window = window.transpose(1, 2)
    return F.interpolate(window[None], size=(box.height, box.width), mode="bilinear", align_corners=False)[0]


@defect("disturbed grain", weight=4.0)
def disturbed_grain(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A patch as bright as its surroundings whose texture is another: scrambled, roughened, or worn smooth."""
    size = canvas.extent(rng, low=5, share=0.3)
    box, alpha = blob(rng, canvas, size, ragged=rng.uniform(0.1, 0.6), soft=rng.uniform(0.05, 0.4))
    crop = canvas.crop(box)
    kind = rng.choice(("scrambled", "rough", "worn"), (0.4, 0.4, 0.2))
    if kind == "scrambled":  # the same pixels in another order
        order = rng.rand(box.height * box.width).argsort()
        patch = crop.flatten(1)[:, order].view_as(crop)
    elif kind == "rough":
        grain = rng.choice((1, 1, 2, 3))
        coarse = rng.randn(1, 1, -(-box.height // grain), -(-box.width // grain))
        field = F.interpolate(coarse, scale_factor=grain)[0, :, : box.height, : box.width]  # (1, h, w)
        patch = crop + field * max(0.25 * contrast, 1.5 * local_level(crop)[1], 0.02)
    else:
        reach = rng.integer(1, 4)
        patch = F.avg_pool2d(F.pad(crop[None], [reach] * 4, mode="replicate"), 2 * reach + 1, stride=1)[0]
    return Change(box, cover(crop, alpha * rng.uniform(0.6, 1.0), patch), support=alpha)


@defect("chip", weight=1.1, kinds=("part", "grid"), few=True)
def chip(canvas: Canvas, rng: Rng, contrast: float) -> Change | None:
    """A piece broken off at the edge of a part: the background shows instead; or a pale fracture face."""
    edge = _edge(canvas, rng)
    if edge is None:
        return None
    row, column, outside = edge
    size = canvas.extent(rng, low=5, share=0.25)
    box, alpha = blob_at(rng, canvas, row, column, size, ragged=rng.uniform(0.1, 0.45), soft=0.1)
    crop = canvas.crop(box)
    if rng.chance(0.7):
        behind = canvas.image[:, outside[0], outside[1]][:, None, None]  # (C, 1, 1)
        grain = 0.02 * soft_noise(rng, box.height, box.width, max(2, box.height // 2))
        return Change(box, cover(crop, alpha, behind + grain))
    return Change(box, shade(crop, alpha, tone(rng, crop, max(contrast, 0.15), dark=0.4)))


def _edge(canvas: Canvas, rng: Rng) -> tuple[int, int, tuple[int, int]] | None:
    """A foreground pixel at the part's edge, and a background pixel a little further out; None without an
    edge."""
    if canvas.everywhere:
        return None
    row, column = canvas.spot(rng)
    angle = rng.uniform(0, 2 * math.pi)
    steps = torch.arange(0, max(canvas.height, canvas.width), device=canvas.device, dtype=torch.float32)
    rows = (row + steps * math.sin(angle)).round().clamp(0, canvas.height - 1).long()
    columns = (column + steps * math.cos(angle)).round().clamp(0, canvas.width - 1).long()
    inside = canvas.foreground[rows, columns].tolist()
    if False not in inside:
        return None
    at = inside.index(False)
    out = min(at + rng.integer(2, 6), len(inside) - 1)
    while inside[out] and out > at:
        out -= 1
    here = max(at - 1, 0)
    return int(rows[here]), int(columns[here]), (int(rows[out]), int(columns[out]))
