"""Kvasir-SEG: polyps, with masks stored as JPEG."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import first_folder, read_pairs
from headclip.data.reading import Reading
from headclip.data.records import JPEG_MASK_THRESHOLD

CATEGORY = "colon"


@dataset(
    "kvasir",
    title="Kvasir-SEG",
    aliases=("kvasir_seg", "Kvasir"),
    domain="medical",
    level="pixel",
    layout="images/ and masks/",
    counts={CATEGORY: (0, 1000)},
    known={"Kvasir-SEG, test part of the polyp benchmarks": (0, 100)},
    mask_threshold=JPEG_MASK_THRESHOLD,
    licence="research and education only",
    source="Jha et al., MMM 2020; datasets.simula.no, Kvasir-SEG",
    paper="Kvasir",
    remark="the official codes take every value above 0, which keeps the specks of JPEG compression",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """Two folders with the same names in them."""
    base = first_folder(root, "Kvasir-SEG") or root
    images, masks = first_folder(base, "images"), first_folder(base, "masks")
    if images and masks:
        read_pairs(reading, images, masks, CATEGORY)
