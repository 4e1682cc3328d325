"""The user's own data: any folder, a CSV or JSON manifest, an official meta.json, COCO masks."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.folders import read_folder
from headclip.data.manifest import read_manifest
from headclip.data.reading import Reading
from headclip.data.records import JPEG_MASK_THRESHOLD
from headclip.errors import InputError

MANIFESTS = ("meta.json", "manifest.csv", "manifest.json", "_annotations.coco.json", "annotations.json")


@dataset(
    "folder",
    title="any folder",
    domain="any",
    level="both",
    layout="MVTec folders, images/ beside masks/, good/ beside others, or images",
    mask_threshold=JPEG_MASK_THRESHOLD,
    licence="yours",
)
def read_any(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """Whatever layout the folder has; a manifest in it goes first."""
    for name in MANIFESTS:
        if root.is_dir() and (root / name).is_file():
            read_manifest(reading, root / name)
            return
    found = read_folder(root)
    reading.records, reading.findings = found.records, found.findings


@dataset(
    "coco",
    title="COCO masks",
    domain="any",
    level="both",
    layout="a COCO JSON file with images and annotations (polygons or run lengths)",
    mask_threshold=JPEG_MASK_THRESHOLD,
    licence="yours",
)
@dataset(
    "manifest",
    title="CSV or JSON manifest",
    aliases=("csv", "json", "meta"),
    domain="any",
    level="both",
    layout="a CSV file with the column image (and label, mask, category, split), a JSON list, or meta.json",
    mask_threshold=JPEG_MASK_THRESHOLD,
    licence="yours",
)
def read_list(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """The file itself, or the manifest in a folder."""
    if root.is_file():
        read_manifest(reading, root)
        return
    present = [name for name in MANIFESTS if (root / name).is_file()]
    if not present:
        raise InputError(f"{root} holds no manifest; looked for {', '.join(MANIFESTS)}; name the file itself")
    read_manifest(reading, root / present[0])
