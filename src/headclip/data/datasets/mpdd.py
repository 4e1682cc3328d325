"""MPDD: painted metal parts."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import first_folder, read_mvtec
from headclip.data.reading import Reading


@dataset(
    "mpdd",
    title="MPDD",
    domain="industrial",
    level="both",
    layout="CATEGORY/test/{good,DEFECT}/ and CATEGORY/ground_truth/DEFECT/NAME_mask.png",
    counts={
        "bracket_black": (32, 47),
        "bracket_brown": (26, 51),
        "bracket_white": (30, 30),
        "connector": (30, 14),
        "metal_plate": (26, 71),
        "tubes": (32, 69),
    },
    source="Jezek et al., ICUMT 2021; stepanje/MPDD",
    paper="MPDD",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """MVTec folders, in `root` or in `MPDD/`."""
    read_mvtec(reading, first_folder(root, "MPDD") or root, info.categories)
