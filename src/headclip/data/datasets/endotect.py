"""Endo: the segmentation test set of the EndoTect 2020 challenge."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import first_folder, read_pairs
from headclip.data.reading import Reading
from headclip.data.records import JPEG_MASK_THRESHOLD

CATEGORY = "colon"


@dataset(
    "endo",
    title="Endo (EndoTect 2020)",
    aliases=("endotect", "endotect2020", "EndoTect_2020_Segmentation_Test_Dataset"),
    domain="medical",
    level="pixel",
    layout="images/ and masks/",
    counts={CATEGORY: (0, 200)},
    mask_threshold=JPEG_MASK_THRESHOLD,
    source="Hicks et al., ICPR workshops 2021; EndoTect 2020",
    paper="Endo",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """Two folders with the same names in them."""
    base = first_folder(root, "EndoTect_2020_Segmentation_Test_Dataset") or root
    images, masks = first_folder(base, "images"), first_folder(base, "masks")
    if images and masks:
        read_pairs(reading, images, masks, CATEGORY)
