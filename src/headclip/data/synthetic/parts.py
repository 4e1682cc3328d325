"""All part families; importing this module registers them."""

from __future__ import annotations

from headclip.data.synthetic import (
    parts_electric,
    parts_natural,
    parts_repeated,
    parts_sheet,
    parts_solid,
    parts_turned,
)

__all__ = ["parts_electric", "parts_natural", "parts_repeated", "parts_sheet", "parts_solid", "parts_turned"]
