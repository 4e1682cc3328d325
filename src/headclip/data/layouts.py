"""The layouts that datasets share: MVTec folders, images beside masks, folders by label.

Masks are always found by name, never by their order.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from headclip.data.discover import find_images, natural_key
from headclip.data.reading import Reading
from headclip.data.run_folder import is_run_folder
from headclip.files import cannot_use

NORMAL_NAMES = frozenset({"good", "ok", "normal", "no"})
MASK_SUFFIXES = ("_mask", "_segmentation", "_gt", "_label")
_UNUSED = "mask without image"
_UNMASKED = "image without mask"


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in `folder` that are no runs of ours, in natural order; none where it does not exist.

    Raises:
        InputError: it cannot be listed.
    """
    try:
        if not folder.is_dir():
            return []
        children = [child for child in folder.iterdir() if not child.name.startswith(".")]
    except OSError as error:
        raise cannot_use(folder, error) from error
    folders = (child for child in children if os.path.isdir(child))  # noqa: PTH112 - a bad link is none
    return sorted((child for child in folders if not is_run_folder(child)), key=natural_key)


def first_folder(root: Path, *names: str) -> Path | None:
    """The first of `names` that is a folder in `root`; upper and lower case count as the same."""
    present = {child.name.casefold(): child for child in subfolders(root)}
    for name in names:
        if "/" in name and (root / name).is_dir():
            return root / name
        if name.casefold() in present:
            return present[name.casefold()]
    return None


def read_mvtec(
    reading: Reading, root: Path, categories: Iterable[str], *, truth: str = "ground_truth", test: str = "test"
) -> None:
    """All categories of a dataset in MVTec layout; `root` may also be the folder of a single category."""
    names = list(categories)
    if (root / test).is_dir():
        read_mvtec_category(reading, root, root.resolve().name, truth=truth, test=test)
        return
    known = {name.casefold(): name for name in names}
    for folder in subfolders(root):
        if not (folder / test).is_dir():
            reading.note("other folder", f"{folder.name}/ has no {test}/ folder and is not read", folder)
            continue
        category = known.get(folder.name.casefold(), folder.name)
        if names and folder.name.casefold() not in known:
            reading.problem("unknown category", f"the category {folder.name} is not one of this dataset", folder)
        read_mvtec_category(reading, folder, category, truth=truth, test=test)


def read_mvtec_category(
    reading: Reading,
    folder: Path,
    category: str,
    *,
    test: str = "test",
    truth: str = "ground_truth",
    masks: bool = True,
    normal: Collection[str] = NORMAL_NAMES,
) -> None:
    """`TEST/{good,DEFECT}/NAME.png` with `TRUTH/DEFECT/NAME_mask.png`; masks False leaves labels only."""
    truths = folder / truth
    has_truth = masks and truths.is_dir()
    seen: set[str] = set()
    for kind in subfolders(folder / test):
        if kind == truths:  # MVTec AD 2 keeps the masks inside the test folder
            continue
        if kind.name.casefold() in normal:
            for path in find_images(kind):
                reading.add(path, 0, None, category)
            continue
        seen.add(kind.name)
        images = find_images(kind)
        if not images:
            reading.problem("empty folder", f"{reading.shown(kind)} holds no image", kind)
        found = _masks_in(reading, truths / kind.name) if has_truth else None
        _add_pairs(reading, images, kind, found, category, kind.name)
    for kind in subfolders(truths) if has_truth else []:
        if kind.name not in seen and kind.name.casefold() not in normal and find_images(kind):
            where = f"{reading.shown(kind)} holds masks, but there is no {test}/{kind.name}"
            reading.problem(_UNUSED, where, kind)


def read_pairs(reading: Reading, images: Path, masks: Path, category: str) -> None:
    """All images of one folder are anomalous; their masks lie in another under the same names."""
    if not masks.is_dir():
        reading.error("missing folder", f"the mask folder {reading.shown(masks)} is missing", masks)
        return
    _add_pairs(reading, find_images(images), images, _masks_in(reading, masks), category, "")


def read_by_label(
    reading: Reading,
    root: Path,
    category: str,
    normal: Collection[str],
    anomalous: Collection[str] | None = None,
    inner: str = "",
) -> None:
    """One folder for each label; with `anomalous` None, every folder that is not normal is anomalous.

    inner: the images lie in this subfolder of each. Other folders are noted.
    """
    for folder in subfolders(root):
        name = folder.name.casefold()
        if name not in normal and anomalous is not None and name not in anomalous:
            reading.note("other folder", f"{folder.name}/ does not belong to the test images", folder)
            continue
        images = folder / inner if inner and (folder / inner).is_dir() else folder
        is_normal = name in normal
        paths = find_images(images)
        if not paths:
            reading.problem("empty folder", f"{reading.shown(images)} holds no image", images)
        for path in paths:
            reading.add(path, 0 if is_normal else 1, None, category, "" if is_normal else folder.name)


def index_masks(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Masks by the name of the image they belong to, and a message for each name that two masks claim.

    An exact name goes before one without its suffix (`_mask`, `_segmentation`, `_gt`, `_label`).
    """
    if not folder.is_dir():
        return {}, []
    clashes: list[str] = []
    exact = _unique(((_key(path, folder), path) for path in find_images(folder)), clashes)
    shortened = _unique(
        (
            (key[: -len(suffix)], path)
            for key, path in exact.items()
            for suffix in MASK_SUFFIXES
            if key.casefold().endswith(suffix)
        ),
        clashes,
    )
    return shortened | exact, clashes


def add_masked(
    reading: Reading, path: Path, mask: Path | None, category: str, defect: str = "", *, where: str = ""
) -> None:
    """An anomalous image that must have a mask; without one it is an error that names the image."""
    if mask is None:
        reading.error(_UNMASKED, f"{reading.shown(path)} has no mask{where}", path)
    reading.add(path, 1, mask, category, defect)


def report_unused(reading: Reading, masks: Iterable[Path]) -> None:
    """Masks that belong to no image."""
    for mask in masks:
        reading.problem(_UNUSED, f"the mask {reading.shown(mask)} belongs to no image", mask)


def _masks_in(reading: Reading, folder: Path) -> dict[str, Path]:
    masks, clashes = index_masks(folder)
    for clash in clashes:
        reading.error("two masks", clash, folder)
    return masks


def _add_pairs(
    reading: Reading, images: list[Path], base: Path, masks: dict[str, Path] | None, category: str, defect: str
) -> None:
    used: set[Path] = set()
    for path in images:
        if masks is None:
            reading.add(path, 1, None, category, defect)
            continue
        mask = masks.get(_key(path, base))
        used.update([mask] if mask else [])
        add_masked(reading, path, mask, category, defect)
    every = dict.fromkeys((masks or {}).values())
    report_unused(reading, (mask for mask in every if mask not in used))


def _key(path: Path, base: Path) -> str:
    """What an image and its mask have in common: the folder below `base`, and the name without extension."""
    return path.relative_to(base).with_suffix("").as_posix()


def _unique(pairs: Iterable[tuple[str, Path]], clashes: list[str]) -> dict[str, Path]:
    index: dict[str, Path] = {}
    for key, path in pairs:
        if key in index:
            clashes.append(f"two masks fit the image {key}: {index[key]} and {path}; remove one")
        else:
            index[key] = path
    return index
