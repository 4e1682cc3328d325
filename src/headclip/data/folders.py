"""Labelled image folders: MVTec-style, normal beside anomalous, images beside masks, or no labels at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headclip.data.decode import decode
from headclip.data.discover import find_images, natural_key
from headclip.errors import ImageError, InputError

NORMAL_NAMES = frozenset({"good", "ok", "normal", "no"})
IMAGE_FOLDERS = frozenset({"images", "image", "imgs"})
MASK_FOLDERS = frozenset({"masks", "mask", "ground_truth"})
TRAIN_NAMES = frozenset({"train", "training"})
_MASK_SUFFIXES = ("_mask", "_segmentation", "_gt", "_label")


@dataclass(frozen=True)
class ImageRecord:
    """One image. label: 0 normal, 1 anomalous, None unknown; mask: the file of its anomalous pixels."""

    path: Path
    label: int | None
    mask: Path | None
    category: str


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
    if not root.is_dir():
        raise InputError(f"the dataset folder {root} does not exist")
    categories = [child for child in _subfolders(root) if _has_tests(child)]
    strict = not allow_missing_masks
    if _has_tests(root):
        records = _read_mvtec(root, strict)
    elif categories:
        records = [record for category in categories for record in _read_mvtec(category, strict)]
    else:
        records = _read_pairs(root, strict) or _read_normal_and_rest(root) or _read_plain(root)
    if not records:
        raise InputError(f"the dataset folder {root} holds no image")
    return records


def read_mask(
    path: str | Path, size: tuple[int, int] | None = None, threshold: int = 127
) -> NDArray[np.bool_]:
    """Read a mask file: True where anomalous.

    Args:
        path: an image file of any kind that `decode` reads; transparent pixels count as black.
        size: (height, width) to bring the mask to, by nearest neighbour.
        threshold: 8-bit values above this are anomalous. A mask of 0 and 1 only is taken as it is.

    Returns:
        (H, W) bool.

    Raises:
        ImageError: the mask cannot be read.
    """
    try:
        values = decode(path, background=0).max(axis=2)  # (H, W)
    except ImageError as error:
        raise ImageError(f"the mask {path} cannot be used: {error}") from error
    mask = values > (0 if values.max() == 1 else threshold)
    if size is not None and mask.shape != size:
        resized = Image.fromarray(mask.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.NEAREST)
        mask = np.asarray(resized) > 0
    return mask


def _read_mvtec(category: Path, strict: bool) -> list[ImageRecord]:
    records: list[ImageRecord] = []
    truth = category / "ground_truth"
    for kind in _subfolders(category / "test"):
        normal = kind.name.lower() in NORMAL_NAMES
        masks = {} if normal or not truth.is_dir() else _index_masks(truth / kind.name)
        for path in find_images(kind):
            mask = masks.get(_key(path, kind))
            records.append(ImageRecord(path, 0 if normal else 1, mask, category.resolve().name))
    if strict and truth.is_dir():
        _check_masks(category, records)
    return records


def _read_pairs(root: Path, strict: bool) -> list[ImageRecord]:
    images = next((child for child in _subfolders(root) if child.name.lower() in IMAGE_FOLDERS), None)
    truth = next((child for child in _subfolders(root) if child.name.lower() in MASK_FOLDERS), None)
    if images is None or truth is None:
        return []
    masks = _index_masks(truth)
    category = root.resolve().name
    records = [ImageRecord(path, 1, masks.get(_key(path, images)), category) for path in find_images(images)]
    if strict:
        _check_masks(root, records)
    return records


def _read_normal_and_rest(root: Path) -> list[ImageRecord]:
    kinds = [child for child in _subfolders(root) if child.name.lower() not in TRAIN_NAMES | MASK_FOLDERS]
    if not any(kind.name.lower() in NORMAL_NAMES for kind in kinds):
        return []
    category = root.resolve().name
    return [
        ImageRecord(path, 0 if kind.name.lower() in NORMAL_NAMES else 1, None, category)
        for kind in kinds
        for path in find_images(kind)
    ]


def _read_plain(root: Path) -> list[ImageRecord]:
    category = root.resolve().name
    return [ImageRecord(path, None, None, category) for path in find_images(root)]


def _has_tests(folder: Path) -> bool:
    return (folder / "test").is_dir() and any(True for _ in _subfolders(folder / "test"))


def _subfolders(folder: Path) -> list[Path]:
    children = (child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    return sorted(children, key=natural_key)


def _key(path: Path, base: Path) -> str:
    """What an image and its mask have in common: the folder below `base`, and the name without extension."""
    return path.relative_to(base).with_suffix("").as_posix()


def _index_masks(folder: Path) -> dict[str, Path]:
    """Masks by the name of the image they belong to; an exact name goes before one without its suffix."""
    if not folder.is_dir():
        return {}
    exact = _unique((_key(path, folder), path) for path in find_images(folder))
    shortened = _unique(
        (key.removesuffix(suffix), path)
        for key, path in exact.items()
        for suffix in _MASK_SUFFIXES
        if key.endswith(suffix)
    )
    return shortened | exact


def _unique(pairs: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    index: dict[str, Path] = {}
    for key, path in pairs:
        if key in index:
            raise InputError(f"two masks fit the image {key}: {index[key]} and {path}; remove one")
        index[key] = path
    return index


def _check_masks(root: Path, records: list[ImageRecord]) -> None:
    missing = [record.path for record in records if record.label == 1 and record.mask is None]
    if missing:
        shown = ", ".join(str(path.relative_to(root)) for path in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise InputError(f"{len(missing)} anomalous image(s) of {root} have no mask: {shown}{more}")
