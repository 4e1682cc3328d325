"""CVC-ClinicDB: frames of colonoscopies with a polyp."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import first_folder, read_pairs
from headclip.data.reading import Reading

CATEGORY = "colon"


@dataset(
    "cvc-clinicdb",
    title="CVC-ClinicDB",
    aliases=("clinicdb", "CVC_ClinicDB"),
    domain="medical",
    level="pixel",
    layout="Original/ and 'Ground Truth'/ (or PNG/Original and PNG/Ground Truth, or images/ and masks/)",
    counts={CATEGORY: (0, 612)},
    known={"CVC-ClinicDB, test part of the polyp benchmarks": (0, 62)},
    licence="research only",
    source="Bernal et al., CMIG 2015; MICCAI 2015 sub-challenge on polyp detection",
    paper="CVC-ClinicDB",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """Two folders with the same names in them."""
    base = first_folder(root, "CVC-ClinicDB") or root
    images = first_folder(base, "images", "Original", "PNG/Original")
    masks = first_folder(base, "masks", "Ground Truth", "PNG/Ground Truth")
    if images and masks:
        read_pairs(reading, images, masks, CATEGORY)
