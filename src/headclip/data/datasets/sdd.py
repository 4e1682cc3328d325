"""KolektorSDD in the versions that the literature calls SDD or KSDD. Their figures cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.discover import find_images
from headclip.data.layouts import add_masked, read_mvtec, report_unused, subfolders
from headclip.data.reading import Reading
from headclip.data.records import read_mask
from headclip.errors import ImageError

CATEGORY = "electrical commutators"
_FOLDERS = "'electrical commutators'/test/{good,defect}/ and 'electrical commutators'/ground_truth/defect/"
_FACTS: dict[str, Any] = {"licence": "CC BY-NC-SA 4.0", "source": "Tabernik et al., JIM 2020; vicos.si, KolektorSDD"}
_LABEL = "_label"


@dataset(
    "sdd-dra",
    title="SDD, the conversion of DRA",
    domain="industrial",
    level="both",
    layout=_FOLDERS,
    normal=286,
    anomalous=54,
    categories=(CATEGORY,),
    family="sdd",
    **_FACTS,
)
@dataset(
    "sdd-anomalyclip",
    title="SDD of AnomalyCLIP",
    domain="industrial",
    level="both",
    layout=_FOLDERS,
    counts={CATEGORY: (181, 74)},
    family="sdd",
    paper="SDD",
    remark="by the category's name the version of the paper; it was handed out by AnomalyCLIP's authors",
    **_FACTS,
)
@dataset(
    "sdd",
    title="KolektorSDD",
    aliases=("ksdd", "kolektor"),
    domain="industrial",
    level="both",
    layout=f"kosNN/PartN.jpg with kosNN/PartN_label.bmp, or {_FOLDERS}",
    counts={CATEGORY: (347, 52)},
    remark="all images; the paper's SDD is sdd-anomalyclip",
    **_FACTS,
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """The official archive (every image has a label file, black where normal), or MVTec folders."""
    parts = [folder for folder in subfolders(root) if folder.name.casefold().startswith("kos")]
    if not parts:
        read_mvtec(reading, root, info.categories)
    for folder in parts:
        _read_part(reading, folder)


@dataset(
    "sdd-adaclip",
    title="SDD of AdaCLIP",
    domain="industrial",
    level="both",
    layout="SDD/test/{good,DEFECT}/ and SDD/ground_truth/DEFECT/, or meta.json",
    categories=("SDD",),
    family="sdd",
    remark="each image cut in three along its height, a quarter of the normal ones: scores come out much higher",
    **_FACTS,
)
def read_thirds(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """MVTec folders."""
    read_mvtec(reading, root, info.categories)


def _read_part(reading: Reading, folder: Path) -> None:
    paths = {path.stem: path for path in find_images(folder)}
    labels = {stem.removesuffix(_LABEL): paths.pop(stem) for stem in list(paths) if stem.endswith(_LABEL)}
    for stem, path in paths.items():
        label = labels.pop(stem, None)
        try:
            normal = label is not None and not read_mask(label, threshold=0).any()
        except ImageError as error:
            reading.error("unreadable mask", str(error), label)
            continue
        if normal:
            reading.add(path, 0, None, CATEGORY)
        else:
            add_masked(reading, path, label, CATEGORY, "defect", where=f" (no {path.stem}{_LABEL}.bmp)")
    report_unused(reading, labels.values())
