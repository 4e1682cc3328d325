"""All surface families; importing this module registers them."""

from __future__ import annotations

from headclip.data.synthetic import (
    surfaces_cell,
    surfaces_grid,
    surfaces_metal,
    surfaces_mineral,
    surfaces_textile,
)

__all__ = ["surfaces_cell", "surfaces_grid", "surfaces_metal", "surfaces_mineral", "surfaces_textile"]
