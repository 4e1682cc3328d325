"""MVTec LOCO AD: logical and structural anomalies, with one mask file for each region."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.discover import find_images
from headclip.data.layouts import add_masked, first_folder, report_unused, subfolders
from headclip.data.reading import Reading


@dataset(
    "mvtec-loco",
    title="MVTec LOCO AD",
    aliases=("mvtec_loco_anomaly_detection", "loco"),
    domain="industrial",
    level="both",
    layout="CATEGORY/test/{good,logical_anomalies,structural_anomalies}/ and CATEGORY/ground_truth/KIND/NAME/*.png",
    counts={
        "breakfast_box": (102, 173),
        "juice_bottle": (94, 236),
        "pushpins": (138, 172),
        "screw_bag": (122, 219),
        "splicing_connectors": (119, 193),
    },
    licence="CC BY-NC-SA 4.0",
    source="Bergmann et al., IJCV 2022; mvtec.com, MVTec LOCO AD",
    remark="pixel metrics here unite all regions; the dataset's own sPRO is not computed",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """The masks of an image are the files of a folder that has its name."""
    base = first_folder(root, "mvtec_loco_anomaly_detection") or root
    single = (base / "test").is_dir()
    for folder in [base] if single else subfolders(base):
        if not (folder / "test").is_dir():
            reading.note("other folder", f"{folder.name}/ has no test/ folder and is not read", folder)
            continue
        category = folder.resolve().name if single else folder.name
        for kind in subfolders(folder / "test"):
            _read_kind(reading, kind, folder / "ground_truth" / kind.name, category)


def _read_kind(reading: Reading, kind: Path, truth: Path, category: str) -> None:
    paths = find_images(kind)
    if kind.name == "good":
        for path in paths:
            reading.add(path, 0, None, category)
        return
    masks = {folder.name: folder for folder in subfolders(truth) if find_images(folder)}
    for path in paths:
        add_masked(reading, path, masks.pop(path.stem, None), category, kind.name)
    report_unused(reading, masks.values())
