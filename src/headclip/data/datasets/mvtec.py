"""MVTec AD, the first of the industrial datasets."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import first_folder, read_mvtec
from headclip.data.reading import Reading


@dataset(
    "mvtec",
    title="MVTec AD",
    aliases=("mvtec_ad", "mvtec_anomaly_detection"),
    domain="industrial",
    level="both",
    layout="CATEGORY/test/{good,DEFECT}/ and CATEGORY/ground_truth/DEFECT/NAME_mask.png",
    counts={
        "bottle": (20, 63),
        "cable": (58, 92),
        "capsule": (23, 109),
        "carpet": (28, 89),
        "grid": (21, 57),
        "hazelnut": (40, 70),
        "leather": (32, 92),
        "metal_nut": (22, 93),
        "pill": (26, 141),
        "screw": (41, 119),
        "tile": (33, 84),
        "toothbrush": (12, 30),
        "transistor": (60, 40),
        "wood": (19, 60),
        "zipper": (32, 119),
    },
    licence="CC BY-NC-SA 4.0",
    source="Bergmann et al., IJCV 2021; mvtec.com, MVTec AD",
    paper="MVTecAD",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """MVTec folders, in `root` or in the folder that the archive is named after."""
    read_mvtec(reading, first_folder(root, "mvtec_anomaly_detection") or root, info.categories)
