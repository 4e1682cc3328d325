"""Print: rows of invented glyphs made of strokes, for labels, prints and part markings."""

from __future__ import annotations

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng

_HEIGHT, _WIDTH, _GLYPHS = 24, 16, 24


def _atlas(rng: Rng) -> Tensor:
    """(glyphs, 24, 16) opacities: each glyph is up to four strokes between points of a 3 x 2 lattice."""
    nodes = torch.tensor(
        [[x, y] for y in (4.0, 11.5, 19.0) for x in (3.5, 11.5)], device=rng.device
    )  # (6, 2)
    strokes = 4
    ends = (rng.rand(2, _GLYPHS, strokes) * 6).long()
    start, end = nodes[ends[0]], nodes[ends[1]]  # (glyphs, strokes, 2)
    y = torch.arange(_HEIGHT, device=rng.device)[:, None] + 0.5
    x = torch.arange(_WIDTH, device=rng.device)[None, :] + 0.5
    grid = torch.stack([x.expand(_HEIGHT, _WIDTH), y.expand(_HEIGHT, _WIDTH)], dim=-1)  # (24, 16, 2)
    way = (end - start)[:, :, None, None]
    offset = grid - start[:, :, None, None]  # (glyphs, strokes, 24, 16, 2)
    along = ((offset * way).sum(-1) / way.square().sum(-1).clamp(min=1e-3)).clamp(0.0, 1.0)
    distance = (offset - along[..., None] * way).square().sum(-1).sqrt().amin(1)
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
    flat = (chosen[place] * _HEIGHT + part_y.long().clamp(0, _HEIGHT - 1)) * _WIDTH + part_x.long().clamp(
        0, _WIDTH - 1
    )
    return atlas.reshape(-1)[flat] * shown[place] * inside, place
