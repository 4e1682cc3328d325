"""ELPV: electroluminescence images of solar cells, as the Python package elpv-dataset carries them."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.reading import Reading
from headclip.errors import InputError

CATEGORY = "solar cell"


@dataset(
    "elpv",
    title="ELPV solar cells",
    aliases=("elpv_dataset", "elpv-dataset"),
    domain="industrial",
    level="image",
    layout="data/labels.csv and data/images/, as in the installed package elpv_dataset",
    counts={CATEGORY: (1508, 715)},
    licence="CC BY-NC-SA 4.0",
    source="Buerhop-Lutz et al., EU PVSEC 2018; pip install elpv-dataset",
    remark="cells with a defect probability of 0 against those of 1; the unsure ones between are left out",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """`labels.csv` has one line for each cell: file, probability of a defect, kind of cell."""
    places = (root, root / "data", root / "elpv_dataset" / "data")
    base = next((place for place in places if (place / "labels.csv").is_file()), None)
    if base is None:
        return
    try:
        lines = (base / "labels.csv").read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{base / 'labels.csv'} is not UTF-8 ({error.reason}); take a sound copy") from error
    unsure = 0
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if not parts:
            continue
        try:
            name, probability, kind = parts[0], float(parts[1]), parts[2]
        except (IndexError, ValueError):
            raise InputError(f"{base / 'labels.csv'}, line {number}: expected file, probability, kind") from None
        if not (base / name).is_file():
            reading.error("missing image", f"labels.csv, line {number}: {name} does not exist", base / name)
        elif probability in (0.0, 1.0):
            reading.add(base / name, int(probability), None, CATEGORY, kind if probability else "")
        else:
            unsure += 1
    if unsure:
        reading.note("unsure label", f"{unsure} cells with a defect probability between 0 and 1 are left out")
