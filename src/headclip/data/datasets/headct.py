"""HeadCT: slices of head CT with and without a haemorrhage."""

from __future__ import annotations

import csv
from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.discover import find_images
from headclip.data.layouts import first_folder, read_mvtec_category
from headclip.data.reading import Reading
from headclip.errors import InputError

CATEGORY = "brain"
LABELS = {"0": 0, "1": 1}


@dataset(
    "headct",
    title="HeadCT",
    aliases=("head_ct", "HeadCT_anomaly_detection"),
    domain="medical",
    level="image",
    layout="labels.csv and head_ct/head_ct/NNN.png, or brain/test/{good,KIND}/",
    counts={CATEGORY: (100, 100)},
    source="Salehi et al., CVPR 2021; Kaggle, felipekitamura/head-ct-hemorrhage",
    paper="HeadCT",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """The official archive by its list, or the folders of AnomalyCLIP."""
    if (root / "labels.csv").is_file():
        _read_list(reading, root)
        return
    base = first_folder(root, CATEGORY) or root
    if (base / "test").is_dir():
        read_mvtec_category(reading, base, CATEGORY, masks=False)


def _read_list(reading: Reading, root: Path) -> None:
    images = {int(path.stem): path for path in find_images(root) if path.stem.isdigit()}
    try:
        with (root / "labels.csv").open(encoding="utf-8-sig", newline="") as handle:
            rows = [[cell.strip() for cell in row] for row in csv.reader(handle) if row]
    except csv.Error as error:
        raise InputError(f"{root / 'labels.csv'} cannot be read as CSV: {error}; take a sound copy") from None
    for number, row in enumerate(rows[1:], 2):
        try:
            index, label = int(row[0]), LABELS[row[1]]
        except (ValueError, IndexError, KeyError):
            raise InputError(f"{root / 'labels.csv'}, line {number}: expected a number and 0 or 1") from None
        path = images.pop(index, None)
        if path is None:
            reading.error("missing image", f"labels.csv names the image {index:03d}, which is missing")
        else:
            reading.add(path, label, None, CATEGORY)
    for path in images.values():
        reading.problem("image without label", f"{reading.shown(path)} is not in labels.csv", path)
