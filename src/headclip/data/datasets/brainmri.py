"""BrainMRI: slices with and without a tumour, in the versions that go by this name."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.discover import find_images
from headclip.data.layouts import (
    add_masked,
    first_folder,
    index_masks,
    read_by_label,
    read_mvtec_category,
    report_unused,
)
from headclip.data.reading import Reading

CATEGORY = "brain"


@dataset(
    "brainmri",
    title="BrainMRI",
    aliases=("brain_mri", "brain_tumor_dataset"),
    domain="medical",
    level="image",
    layout="no/ and yes/, or brain_tumor_dataset/{no,yes}/",
    counts={CATEGORY: (98, 155)},
    source="Salehi et al., CVPR 2021; Kaggle, navoneel/brain-mri-images-for-brain-tumor-detection",
    paper="BrainMRI",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """Two folders. The archive holds them twice; one copy is read."""
    base = root if first_folder(root, "no") else first_folder(root, "brain_tumor_dataset") or root
    read_by_label(reading, base, CATEGORY, {"no"}, {"yes"})


@dataset(
    "brainmri-bayes",
    title="BrainMRI of AdaCLIP and Bayes-PFL",
    aliases=("brainmri-adaclip",),
    domain="medical",
    level="image",
    layout="brain/test/{good,KIND}/, or meta.json",
    counts={CATEGORY: (85, 68)},
    family="brainmri",
    source="the archives of AdaCLIP and Bayes-PFL",
)
def read_converted(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """MVTec folders without masks."""
    base = first_folder(root, CATEGORY) or root
    if (base / "test").is_dir():
        read_mvtec_category(reading, base, CATEGORY, masks=False)


@dataset(
    "bmad-brain",
    title="BMAD, brain MRI",
    aliases=("Brain_AD",),
    domain="medical",
    level="both",
    layout="test/good/img/, test/Ungood/img/ and test/Ungood/label/",
    counts={CATEGORY: (640, 3075)},
    family="brainmri",
    source="Bao et al., CVPR workshops 2024 (BMAD)",
    remark="another dataset that is also called BrainMRI",
)
def read_bmad(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """Images and masks in folders of their own inside each label's folder."""
    test = first_folder(root, "test")
    good, bad = (first_folder(test, "good"), first_folder(test, "Ungood")) if test else (None, None)
    if good is None or bad is None:
        return
    for path in find_images(first_folder(good, "img") or good):
        reading.add(path, 0, None, CATEGORY)
    images = first_folder(bad, "img")
    truth = first_folder(bad, "label", "anomaly_mask")
    if images is None or truth is None:
        reading.error("missing folder", f"{reading.shown(bad)} needs img/ and label/", bad)
        return
    masks, _ = index_masks(truth)
    for path in find_images(images):
        add_masked(reading, path, masks.pop(path.stem, None), CATEGORY, "tumour")
    report_unused(reading, masks.values())
