"""Skin lesions of the ISIC challenges: every image is anomalous and marked."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.folders import IMAGE_FOLDERS, MASK_FOLDERS
from headclip.data.layouts import first_folder, read_pairs, subfolders
from headclip.data.reading import Reading

CATEGORY = "skin"
_IMAGES = ("ISBI2016_ISIC_Part1_Test_Data", "ISIC2018_Task1-2_Test_Input")
_MASKS = ("ISBI2016_ISIC_Part1_Test_GroundTruth", "ISIC2018_Task1_Test_GroundTruth")


@dataset(
    "isic2018",
    title="ISIC 2018 task 1",
    domain="medical",
    level="pixel",
    layout="ISIC2018_Task1-2_Test_Input/ and ISIC2018_Task1_Test_GroundTruth/, or images/ and masks/",
    counts={CATEGORY: (0, 1000)},
    known={"ISIC 2018 task 1, training part": (0, 2594), "ISIC 2018 task 1, validation part": (0, 100)},
    licence="CC BY-NC 4.0",
    source="Codella et al., 2019; challenge.isic-archive.com, 2018",
    family="isic",
    remark="the paper's ISIC is the 2016 test part",
)
@dataset(
    "isic",
    title="ISIC (ISBI 2016 task 1, test part)",
    aliases=("isic2016", "isbi", "isbi2016"),
    domain="medical",
    level="pixel",
    layout="ISBI2016_ISIC_Part1_Test_Data/ and ISBI2016_ISIC_Part1_Test_GroundTruth/",
    counts={CATEGORY: (0, 379)},
    known={"ISBI 2016 task 1, training part": (0, 900)},
    licence="CC0 1.0",
    source="Gutman et al., 2016; challenge.isic-archive.com, 2016",
    paper="ISIC",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """Two folders, in `root` or in `skin/`, where the images may lie in `test/KIND/`."""
    base = first_folder(root, CATEGORY) or root
    masks = first_folder(base, *_MASKS, *MASK_FOLDERS)
    images = first_folder(base, *_IMAGES, *IMAGE_FOLDERS)
    if images is None and (test := first_folder(base, "test")) is not None:
        images = next(iter(subfolders(test)), None)
    if images is not None and masks is not None:
        read_pairs(reading, images, masks, CATEGORY)
