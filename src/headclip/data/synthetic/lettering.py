"""Print: rows of invented glyphs made of strokes, for labels, prints and part markings."""

from __future__ import annotations

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng

_HEIGHT, _WIDTH, _GLYPHS = 24, 16, 14


def _atlas(rng: Rng) -> Tensor:
    """(glyphs, 24, 16) opacities: each glyph is up to four strokes between points of a 3 x 2 lattice."""
    nodes = torch.tensor([[x, y] for y in (4.0, 11.5, 19.0) for x in (3.5, 11.5)], device=rng.device)  # (6, 2)
    ends = (rng.rand(2, _GLYPHS, 4) * 6).long()
    start_x, start_y = nodes[ends[0]].permute(2, 0, 1)[..., None, None]  # each (glyphs, strokes, 1, 1)
    end_x, end_y = nodes[ends[1]].permute(2, 0, 1)[..., None, None]
    way_x, way_y = end_x - start_x, end_y - start_y
    x = torch.arange(_WIDTH, device=rng.device) + 0.5 - start_x  # (glyphs, strokes, 1, 16)
    y = torch.arange(_HEIGHT, device=rng.device)[:, None] + 0.5 - start_y  # (glyphs, strokes, 24, 1)
    along = ((x * way_x + y * way_y) / (way_x * way_x + way_y * way_y).clamp(min=1e-3)).clamp(0.0, 1.0)
    distance = ((x - along * way_x).square() + (y - along * way_y).square()).sqrt().amin(1)
    return (rng.uniform(1.0, 2.2) + 0.7 - distance).clamp(0.0, 1.0)


def glyph_rows(rng: Rng, u: Tensor, v: Tensor, size: float, columns: int, rows: int) -> tuple[Tensor, Tensor]:
    """Text centred at (0, 0): opacity (H, W) and the number of the glyph's place, row by row, at each pixel.

    u, v: coordinates in pixels; size: height of a row. A fifth of the places are blank.
    """
    column = (u / (0.72 * size) + 0.5 * columns).floor()
    row = (v / (1.25 * size) + 0.5 * rows).floor()
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    part_x = (u / (0.72 * size) + 0.5 * columns - column) * _WIDTH
    part_y = ((v / (1.25 * size) + 0.5 * rows - row) * 1.25) * _HEIGHT
    inside = inside & (part_y < _HEIGHT)
    place = (row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)).long()
    atlas = _atlas(rng)
    chosen = (rng.rand(rows * columns) * _GLYPHS).long()
    shown = (rng.rand(rows * columns) < 0.8).float()
    shown[shown.numel() // 2] = 1.0  # never an empty text
    flat = (chosen[place] * _HEIGHT + part_y.long().clamp(0, _HEIGHT - 1)) * _WIDTH + part_x.long().clamp(0, _WIDTH - 1)
    return atlas.reshape(-1)[flat] * shown[place] * inside, place
