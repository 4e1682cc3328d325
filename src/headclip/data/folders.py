"""Labelled image folders whose layout is found out: MVTec-style, normal beside anomalous, images beside masks,
or no labels at all."""

from __future__ import annotations

from pathlib import Path

from headclip.data.discover import find_images
from headclip.data.layouts import (
    NORMAL_NAMES,
    first_folder,
    read_by_label,
    read_mvtec,
    read_mvtec_category,
    read_pairs,
    subfolders,
)
from headclip.data.reading import Reading, some
from headclip.data.records import ImageRecord, read_mask
from headclip.data.run_folder import refuse_run
from headclip.errors import InputError

__all__ = ["ImageRecord", "read_dataset", "read_folder", "read_mask"]

IMAGE_FOLDERS = ("images", "image", "imgs")
MASK_FOLDERS = ("masks", "mask", "ground_truth")
TRAIN_NAMES = frozenset({"train", "training"})


def read_dataset(folder: str | Path, *, allow_missing_masks: bool = False) -> list[ImageRecord]:
    """List the test images of a dataset folder, whatever of these layouts it has.

    - MVTec: `[category/]test/{good,DEFECT}/NAME.png`, `[category/]ground_truth/DEFECT/NAME_mask.png`. Nothing
      under `train/` is a test image.
    - Images beside masks: `images/NAME.jpg`, `masks/NAME.png` (or `NAME_mask`, `NAME_segmentation`); all
      anomalous.
    - Normal beside anomalous: `good/` (or `ok/`, `normal/`, `no/`) with any other folders, such as `bad/` or
      `yes/`.
    - Anything else: all images, with label None.

    Masks are found by name, never by order. Where a category has no mask folder at all, mask is None.

    Raises:
        InputError: the folder does not exist or holds no image; two masks fit one image; or an anomalous
            image has no mask although the dataset has masks (unless `allow_missing_masks`).
    """
    root = Path(folder)
    reading = read_folder(root)
    clashes = [finding.message for finding in reading.findings if finding.kind == "two masks"]
    if clashes:
        raise InputError(clashes[0])
    missing = [finding.path for finding in reading.findings if finding.kind == "image without mask"]
    if missing and not allow_missing_masks:
        names = [reading.shown(path) for path in missing if path is not None]
        raise InputError(f"{len(missing)} anomalous image(s) of {root} have no mask: {some(names)}")
    return reading.records


def read_folder(root: Path) -> Reading:
    """As `read_dataset`, with the findings beside the records instead of errors.

    Raises:
        InputError: the folder does not exist, is a run or holds no image.
    """
    if not root.is_dir():
        raise InputError(f"the dataset folder {root} does not exist")
    refuse_run(root)
    reading = Reading(root)
    images, masks = first_folder(root, *IMAGE_FOLDERS), first_folder(root, *MASK_FOLDERS)
    if _has_tests(root):
        read_mvtec_category(reading, root, root.resolve().name)
    elif any(_has_tests(child) for child in subfolders(root)):
        read_mvtec(reading, root, ())
    elif images and masks:
        read_pairs(reading, images, masks, root.resolve().name)
    elif any(child.name.casefold() in NORMAL_NAMES for child in subfolders(root)):
        kinds = {child.name.casefold() for child in subfolders(root)}
        anomalous = kinds - NORMAL_NAMES - TRAIN_NAMES - set(MASK_FOLDERS)
        read_by_label(reading, root, root.resolve().name, NORMAL_NAMES, anomalous)
    if not reading.records:
        for path in find_images(root):
            reading.add(path, None, None, root.resolve().name)
    if not reading.records:
        raise InputError(f"the dataset folder {root} holds no image")
    return reading


def _has_tests(folder: Path) -> bool:
    return bool(subfolders(folder / "test"))
