"""DTD-Synthetic: textures of DTD with painted-in defects."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import first_folder, read_mvtec
from headclip.data.reading import Reading


@dataset(
    "dtd-synthetic",
    title="DTD-Synthetic",
    aliases=("dtd", "dtd_synthetic"),
    domain="industrial",
    level="both",
    layout="CATEGORY/test/{good,bad}/ and CATEGORY/ground_truth/bad/NAME_mask.png",
    categories=(
        "Blotchy_099",
        "Fibrous_183",
        "Marbled_078",
        "Matted_069",
        "Mesh_114",
        "Perforated_037",
        "Stratified_154",
        "Woven_001",
        "Woven_068",
        "Woven_104",
        "Woven_125",
        "Woven_127",
    ),
    normal=357,
    anomalous=947,
    source="Aota et al., WACV 2023",
    paper="DTD-Synthetic",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """MVTec folders, in `root` or in `DTD-Synthetic/`."""
    read_mvtec(reading, first_folder(root, "DTD-Synthetic") or root, info.categories)
