"""VisA, by its list of the one-class split."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import first_folder, read_mvtec
from headclip.data.manifest import read_manifest
from headclip.data.reading import Reading

SPLIT = Path("split_csv") / "1cls.csv"


@dataset(
    "visa",
    title="VisA",
    aliases=("VisA_20220922", "visa_pytorch"),
    domain="industrial",
    level="both",
    layout="split_csv/1cls.csv and CATEGORY/Data/{Images,Masks}/",
    counts={
        "candle": (100, 100),
        "capsules": (60, 100),
        "cashew": (50, 100),
        "chewinggum": (50, 100),
        "fryum": (50, 100),
        "macaroni1": (100, 100),
        "macaroni2": (100, 100),
        "pcb1": (100, 100),
        "pcb2": (100, 100),
        "pcb3": (101, 100),
        "pcb4": (101, 100),
        "pipe_fryum": (50, 100),
    },
    licence="CC BY 4.0",
    source="Zou et al., ECCV 2022; amazon-science/spot-diff",
    paper="VisA",
    remark="masks hold the number of the defect: every value above 0 is anomalous",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """The test rows of the list; a copy converted to MVTec folders is read as such."""
    if (root / SPLIT).is_file():
        read_manifest(reading, root / SPLIT, base=root)
    else:
        read_mvtec(reading, first_folder(root, "1cls") or root, info.categories)
