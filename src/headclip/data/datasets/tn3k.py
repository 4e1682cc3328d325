"""TN3K: thyroid nodules in ultrasound, with masks stored as JPEG."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import first_folder, read_pairs
from headclip.data.reading import Reading
from headclip.data.records import JPEG_MASK_THRESHOLD

CATEGORY = "thyroid"


@dataset(
    "tn3k",
    title="TN3K",
    domain="medical",
    level="pixel",
    layout="test-image/ and test-mask/",
    counts={CATEGORY: (0, 614)},
    known={"TN3K, training part": (0, 2879)},
    mask_threshold=JPEG_MASK_THRESHOLD,
    source="Gong et al., ISBI 2021; haifangong/TRFE-Net",
    paper="TN3K",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """The test part; the training part beside it is left alone."""
    base = first_folder(root, "tn3k") or root
    images, masks = first_folder(base, "test-image"), first_folder(base, "test-mask")
    if images and masks:
        read_pairs(reading, images, masks, CATEGORY)
