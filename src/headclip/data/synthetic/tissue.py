"""All tissue families; importing this module registers them."""

from __future__ import annotations

from headclip.data.synthetic import (
    tissue_bowel,
    tissue_brain,
    tissue_chest,
    tissue_dermoscopy,
    tissue_endoscopy,
    tissue_organ,
    tissue_retina,
    tissue_scan,
    tissue_ultrasound,
    tissue_view,
)

__all__ = [
    "tissue_bowel",
    "tissue_brain",
    "tissue_chest",
    "tissue_dermoscopy",
    "tissue_endoscopy",
    "tissue_organ",
    "tissue_retina",
    "tissue_scan",
    "tissue_ultrasound",
    "tissue_view",
]
