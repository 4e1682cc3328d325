"""BTAD: three products of beanTech."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import first_folder, read_mvtec
from headclip.data.reading import Reading


@dataset(
    "btad",
    title="BTAD",
    aliases=("btech", "BTech_Dataset_transformed"),
    domain="industrial",
    level="both",
    layout="{01,02,03}/test/{ok,ko}/ and {01,02,03}/ground_truth/ko/NAME.png (or .bmp)",
    counts={"01": (21, 49), "02": (30, 200), "03": (400, 41)},
    licence="CC BY-NC-SA 4.0",
    source="Mishra et al., ISIE 2021; avires.dimi.uniud.it, BTAD",
    paper="BTAD",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """MVTec folders whose normal images are called ok, and whose masks have the images' own names."""
    read_mvtec(reading, first_folder(root, "BTech_Dataset_transformed") or root, info.categories)
