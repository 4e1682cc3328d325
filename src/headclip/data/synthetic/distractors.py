"""Distractors: structure on a picture that is no defect, so that a model learns not to call it one.

All are affine maps of the picture (a factor and an offset per pixel), so that the same one also fits every variant of
the scene. Nothing here knows the label.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.defects_base import soft_noise, varying
from headclip.data.synthetic.shapes import smoothstep

Affine = tuple[Tensor, Tensor | float]


def add_distractors(scene: Scene, rng: Rng) -> Scene:
    """With a chance that knows no label, one or two of the distractors below, on the scene and on all its variants."""
    if not rng.chance(0.45):
        return scene
    height, width = scene.foreground.shape
    for _ in range(1 if rng.chance(0.75) else 2):
        factor, offset = rng.choice(_DISTRACTORS, _WEIGHTS)(rng, height, width)

        def change(pixels: Tensor, factor: Tensor = factor, offset: Tensor | float = offset) -> Tensor:
            return (pixels * factor + offset).clamp_(0, 1)

        scene = scene.mapped(change)
    return scene


def _axes(rng: Rng, height: int, width: int) -> tuple[Tensor, Tensor]:
    rows = torch.arange(height, device=rng.device, dtype=torch.float32)[:, None]
    columns = torch.arange(width, device=rng.device, dtype=torch.float32)[None, :]
    return rows, columns


def _shadow(rng: Rng, height: int, width: int) -> Affine:
    """A half-plane in soft shadow."""
    rows, columns = _axes(rng, height, width)
    angle = rng.uniform(0, 2 * math.pi)
    across = (rows - height * rng.uniform(0.25, 0.75)) * math.sin(angle)
    across = across + (columns - width * rng.uniform(0.25, 0.75)) * math.cos(angle)
    soft = rng.log_uniform(0.04, 0.5) * min(height, width)
    return 1 - rng.log_uniform(0.08, 0.6) * smoothstep(0, 1, across / soft + 0.5), 0.0


def _highlight(rng: Rng, height: int, width: int) -> Affine:
    """A wide soft reflection."""
    rows, columns = _axes(rng, height, width)
    angle = rng.uniform(0, math.pi)
    rows, columns = rows - height * rng.uniform(0, 1), columns - width * rng.uniform(0, 1)
    along = (columns * math.cos(angle) + rows * math.sin(angle)) / (max(height, width) * rng.uniform(0.6, 2.0))
    across = (rows * math.cos(angle) - columns * math.sin(angle)) / (min(height, width) * rng.uniform(0.2, 0.6))
    gleam = rng.log_uniform(0.05, 0.5) * smoothstep(0, 1, 1 - (along * along + across * across).sqrt())
    return 1 - gleam, gleam


def _lettering(rng: Rng, height: int, width: int) -> Affine:
    """One or two lines of glyph-like strokes near a border, as a watermark or a time stamp."""
    size = rng.integer(5, max(6, min(14, height // 8)))
    letters, lines = rng.integer(4, 12), rng.integer(1, 2)
    coarse = (rng.rand(1, 1, lines * 6, letters * 5) < 0.5).float()
    coarse[..., :, ::5] = 0  # (1, 1, lines * 6, letters * 5): the gaps between letters
    coarse[..., ::6, :] = 0
    block_height = min(height - 2, int(lines * size * 1.2))
    block_width = min(width - 2, int(letters * size * 0.8))
    glyphs = F.interpolate(coarse, size=(block_height, block_width), mode="bilinear", align_corners=False)[0, 0]
    alpha = torch.zeros(height, width, device=rng.device)
    top = rng.choice((rng.integer(0, 4), height - block_height - rng.integer(0, 2)))
    left = rng.integer(0, width - block_width)
    top = min(max(top, 0), height - block_height)
    alpha[top : top + block_height, left : left + block_width] = glyphs
    alpha = alpha * rng.uniform(0.3, 1.0)
    return 1 - alpha, alpha * rng.choice((0.0, 1.0, rng.uniform(0, 1)))


def _full_lines(rng: Rng, height: int, width: int) -> Affine:
    """Straight lines from border to border along an axis: seams, bus bars, joints."""
    rows, columns = _axes(rng, height, width)
    place, span = (rows, height) if rng.chance(0.5) else (columns, width)
    half = rng.log_uniform(0.5, 0.02 * span + 1)
    alpha = torch.zeros_like(place)
    for _ in range(rng.integer(1, 3)):
        alpha = torch.maximum(alpha, (half + 0.5 - (place - rng.uniform(0.05, 0.95) * span).abs()).clamp(0, 1))
    alpha = alpha * rng.log_uniform(0.15, 1.0)
    return 1 - alpha, alpha * rng.choice((0.0, rng.uniform(0, 1)))


def _frame(rng: Rng, height: int, width: int) -> Affine:
    """A dark or bright frame, or rounded dark corners as of an endoscope."""
    rows, columns = _axes(rng, height, width)
    from_rows = torch.minimum(rows, height - 1 - rows)
    from_columns = torch.minimum(columns, width - 1 - columns)
    wide = rng.log_uniform(1.5, 0.1 * min(height, width) + 2)
    if rng.chance(0.5):
        alpha = (wide + 0.5 - torch.minimum(from_rows, from_columns)).clamp(0, 1)
    else:
        corner = (2 * wide - from_rows).clamp(min=0) + (2 * wide - from_columns).clamp(min=0)
        alpha = ((corner - 1.6 * wide) / rng.uniform(1, 4)).clamp(0, 1)
    return 1 - alpha, alpha * rng.choice((0.02, 0.0, rng.uniform(0.6, 1.0)))


def _band(rng: Rng, height: int, width: int) -> Affine:
    """A strip from border to border that is a little darker or brighter with sharp sides."""
    rows, columns = _axes(rng, height, width)
    place, span = (rows, height) if rng.chance(0.5) else (columns, width)
    half, centre = rng.uniform(0.03, 0.25) * span, rng.uniform(0, 1) * span
    alpha = (half + 0.5 - (place - centre).abs()).clamp(0, 1)
    change = rng.log_uniform(0.04, 0.35) * rng.choice((-1, 1))
    return (1 + change * alpha).expand(height, width), 0.0


def _speckle(rng: Rng, height: int, width: int) -> Affine:
    """Fine grains all over: dirt of a lens or grain of a material, too even to be a defect."""
    scale = rng.integer(1, 2)
    grains = rng.rand(1, 1, height // scale + 1, width // scale + 1) > 1 - rng.log_uniform(0.01, 0.08)
    alpha = grains.float()
    if scale > 1:
        alpha = F.interpolate(alpha, scale_factor=scale, mode="bilinear", align_corners=False)
    alpha = alpha[0, 0, :height, :width] * rng.log_uniform(0.08, 0.6)
    return 1 - alpha, alpha * rng.choice((0.0, 1.0))


def _from_side(rng: Rng, height: int, width: int) -> tuple[Tensor, int, int]:
    """Distance in pixels from one side of the picture, (H, 1) or (1, W); the picture's extent away from that side and
    along it."""
    rows, columns = _axes(rng, height, width)
    place, deep, long = (rows, height, width) if rng.chance(0.5) else (columns, width, height)
    return (place if rng.chance(0.5) else deep - 1 - place), deep, long


def _course(rng: Rng, distance: Tensor, long: int, cells: int) -> Tensor:
    """A smooth random course along the side that `distance` is from, at most 0 and 0 somewhere; it broadcasts."""
    bent = varying(rng, long, cells + 1, -1.0, 1.0)
    bent = bent - bent.amax()
    return bent[None, :] if distance.shape[1] == 1 else bent[:, None]


def sliver(rng: Rng, height: int, width: int) -> Affine:
    """What lies beside the part, where a picture was cut a little wide: ragged, along one side or a piece of it."""
    distance, deep, long = _from_side(rng, height, width)
    reach = rng.log_uniform(0.01, 0.15) * deep + 1
    edge = reach * (1 + rng.log_uniform(0.1, 4.0) * _course(rng, distance, long, rng.integer(1, 6)))
    if rng.chance(0.5):
        edge = edge + rng.uniform(0.3, 2.0) * _course(rng, distance, long, max(8, long // 6))
    alpha = ((edge - distance) / rng.log_uniform(1.0, 0.3 * reach + 1.5) + 0.5).clamp(0, 1)
    factor = 1 - alpha * rng.uniform(0.6, 1.0)
    offset = (1 - factor) * rng.choice((0.0, 1.0, rng.uniform(0, 1)))
    if rng.chance(0.4):  # a burr, or the shadow of the edge
        lip = (1 - ((edge - distance) / rng.uniform(1.0, 4.0)).abs()).clamp(min=0)
        factor = factor * (1 - rng.uniform(0.1, 0.6) * lip)
    if rng.chance(0.3):  # dirt or burrs that stick to it
        dirt = 1 - rng.uniform(0.3, 1.0) * _specks(rng, distance, edge, height, width)
        factor, offset = factor * dirt, offset * dirt
    return factor, offset


def soiled_border(rng: Rng, height: int, width: int) -> Affine:
    """Ragged spots that the border of the picture cuts: what begins beside the part, or what holds it."""
    alpha = torch.zeros(height, width, device=rng.device)
    for _ in range(rng.integer(1, 3)):
        distance = _from_side(rng, height, width)[0]
        alpha = torch.maximum(alpha, _specks(rng, distance, 0.0, height, width))
    alpha = alpha * rng.uniform(0.3, 1.0)
    return 1 - alpha, alpha * rng.choice((0.0, 0.1, 1.0), (0.5, 0.2, 0.3))


def _specks(rng: Rng, distance: Tensor, edge: Tensor | float, height: int, width: int) -> Tensor:
    """One to three ragged spots, (H, W) in [0, 1], around places where the distance from a side is that of `edge`."""
    rows, columns = _axes(rng, height, width)
    along, long = (rows, height) if distance.shape[0] == 1 else (columns, width)
    alpha = torch.zeros(height, width, device=rng.device)
    for _ in range(rng.integer(1, 3)):
        radius = rng.log_uniform(0.008, 0.08) * min(height, width) + 1
        ragged = 1 + rng.uniform(0.1, 0.7) * soft_noise(rng, height, width, int(max(height, width) / radius / 2) + 2)
        away = (
            ((distance - edge) / rng.uniform(0.5, 1.5)).square() + (along - rng.uniform(0, 1) * long).square()
        ).sqrt()
        alpha = torch.maximum(alpha, ((radius * ragged - away) / rng.uniform(1.0, 3.0) + 0.5).clamp(0, 1))
    return alpha


def shaded_side(rng: Rng, height: int, width: int) -> Affine:
    """One side, or a piece of it, darker or brighter with a soft end: worn, soiled or turned away from the light."""
    distance, deep, long = _from_side(rng, height, width)
    reach = rng.log_uniform(0.03, 0.3) * deep + 2
    edge = reach * (1 + rng.log_uniform(0.1, 3.0) * _course(rng, distance, long, rng.integer(1, 5)))
    alpha = smoothstep(0, 1, (edge - distance) / reach)
    return 1 + rng.choice((-1, 1), (0.7, 0.3)) * rng.log_uniform(0.08, 0.6) * alpha, 0.0


def worn_strip(rng: Rng, height: int, width: int) -> Affine:
    """A long soft strip along an axis, darker or a little brighter, that starts and ends softly or runs out of the
    picture: where something rubbed, or hands held the part."""
    rows, columns = _axes(rng, height, width)
    along, across, long, wide = (rows, columns, height, width) if rng.chance(0.5) else (columns, rows, width, height)
    half = rng.log_uniform(0.03, 0.2) * wide + 2
    middle = rng.uniform(0, 1) * wide + rng.uniform(0, 1) * half * soft_noise(rng, long, 2, rng.integer(1, 4))[:, :1]
    middle = middle if along is rows else middle.T
    strip = smoothstep(0, 1, (half - (across - middle).abs()) / (half * rng.uniform(0.3, 1.0)))
    start, length = rng.uniform(-0.3, 0.8) * long, rng.uniform(0.25, 1.3) * long
    soft = rng.uniform(0.1, 0.4) * min(length, long)
    ends = smoothstep(0, 1, (along - start) / soft) * smoothstep(0, 1, (start + length - along) / soft)
    mottled = 1 + rng.uniform(0.0, 0.5) * soft_noise(rng, height, width, rng.integer(3, 12))
    amount = rng.choice((-1, 1), (0.75, 0.25)) * rng.log_uniform(0.05, 0.4)
    return 1 + amount * strip * ends * mottled, 0.0


_DISTRACTORS: tuple[Callable[[Rng, int, int], Affine], ...] = (
    _shadow,
    _highlight,
    _lettering,
    _full_lines,
    _frame,
    _band,
    _speckle,
    sliver,
    soiled_border,
    shaded_side,
    worn_strip,
)
_WEIGHTS = (0.2, 0.17, 0.15, 0.18, 0.1, 0.12, 0.08, 0.22, 0.2, 0.14, 0.16)
