"""Br35H: brain MRI with and without a tumour."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import read_by_label
from headclip.data.reading import Reading


@dataset(
    "br35h",
    title="Br35H",
    domain="medical",
    level="image",
    layout="no/ and yes/",
    counts={"brain": (1500, 1500)},
    source="Hamada, 2020; Kaggle, ahmedhamada0/brain-tumor-detection",
    paper="Br35H",
    remark="pred/ of the archive holds images without a label and is not read",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """Two folders; the others of the archive are noted."""
    read_by_label(reading, root, "brain", {"no"}, {"yes"})
