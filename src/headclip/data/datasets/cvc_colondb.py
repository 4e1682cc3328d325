"""CVC-ColonDB: frames of colonoscopies with a polyp."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import first_folder, read_pairs
from headclip.data.reading import Reading

CATEGORY = "colon"


@dataset(
    "cvc-colondb",
    title="CVC-ColonDB",
    aliases=("colondb", "CVC_ColonDB"),
    domain="medical",
    level="pixel",
    layout="images/ and masks/",
    counts={CATEGORY: (0, 380)},
    known={"CVC-ColonDB, the first 300 frames": (0, 300)},
    licence="research only",
    source="Tajbakhsh et al., TMI 2016 (380 images, as in the polyp benchmarks)",
    paper="CVC-ColonDB",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """Two folders with the same names in them."""
    base = first_folder(root, "CVC-ColonDB") or root
    images, masks = first_folder(base, "images"), first_folder(base, "masks")
    if images and masks:
        read_pairs(reading, images, masks, CATEGORY)
