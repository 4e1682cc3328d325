"""Ground truth for single images: looked up in opened datasets, or by name in a folder of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headclip.data.datasets import Dataset, ImageRecord
from headclip.data.discover import ImageFile
from headclip.data.layouts import MASK_SUFFIXES, index_masks
from headclip.data.records import read_mask
from headclip.errors import InputError


@dataclass(frozen=True)
class Truth:
    """What is known of one image. label: 0 normal, 1 anomalous, None unknown; mask: (H, W) bool or None;
    category: what it shows, where a dataset says so."""

    label: int | None = None
    mask: NDArray[np.bool_] | None = None
    category: str | None = None


class TruthFinder:
    """Finds the ground truth of images.

    Args:
        datasets: opened datasets; an image is found by its path.
        masks: a folder of masks named as the images are, also with an ending such as `_mask`; an image without a
            mask in it is unknown.

    Raises:
        InputError: the folder holds no masks, or two for one name.
    """

    def __init__(self, datasets: Sequence[Dataset] = (), masks: Path | None = None) -> None:
        self._records: dict[Path, tuple[Dataset, ImageRecord]] = {
            record.path.resolve(): (dataset, record) for dataset in datasets for record in dataset.records
        }
        self._datasets = tuple(datasets)
        self._masks, clashes = ({}, []) if masks is None else index_masks(masks)
        if masks is not None and not self._masks:
            raise InputError(f"no mask in {masks}; give a folder of mask images named as the images are")
        if clashes:
            raise InputError(clashes[0])
        names: dict[str, list[str]] = {}
        for key in self._masks:
            names.setdefault(Path(key).name, []).append(key)
        self._by_name = {name: keys[0] for name, keys in names.items() if len(keys) == 1}
        self.folder = masks

    def __bool__(self) -> bool:
        return bool(self._records or self._masks)

    @property
    def images(self) -> list[ImageFile]:
        """Every image of the datasets, in their order."""
        found = [
            (dataset, record, dataset.relative(record.path)) for dataset in self._datasets for record in dataset.records
        ]
        several = len(self._datasets) > 1
        return [
            ImageFile(record.path, f"{dataset.name}/{name}" if several else name) for dataset, record, name in found
        ]

    def category(self, image: ImageFile) -> str | None:
        """What a dataset says that the image shows."""
        found = self._records.get(image.path.resolve())
        return found[1].category if found else None

    def label(self, image: ImageFile) -> int | None:
        """1 (anomalous) or 0 (normal) by a dataset, None where none knows the image."""
        found = self._records.get(image.path.resolve())
        return found[1].label if found else None

    def knows(self, image: ImageFile) -> bool:
        """Whether there is anything about this image."""
        return image.path.resolve() in self._records or self._mask_file(image) is not None

    def find(self, image: ImageFile, size: tuple[int, int]) -> Truth:
        """What is known, the mask at `size` = (height, width).

        Raises:
            ImageError: a mask cannot be read.
        """
        found = self._records.get(image.path.resolve())
        if found:
            dataset, record = found
            return Truth(record.label, dataset.mask(record, size), record.category)
        file = self._mask_file(image)
        if file is None:
            return Truth()
        mask = read_mask(file, size)
        return Truth(int(mask.any()), mask)

    def check(self, images: Sequence[ImageFile]) -> None:
        """Raise InputError where one mask fits two images, such as 0.png of masks good/0.png and bad/0.png."""
        owners: dict[Path, ImageFile] = {}
        for image in images if self._masks else ():
            file = None if image.path.resolve() in self._records else self._mask_file(image)
            if file is not None and owners.setdefault(file, image).path != image.path:
                raise InputError(
                    f"the mask {file} fits both {owners[file].name} and {image.name}; "
                    "put the masks into the same folders as the images"
                )

    def _mask_file(self, image: ImageFile) -> Path | None:
        """By as many of the folders above the image as the mask has; for an image alone also without any, where only
        one mask has its name."""
        parts = Path(image.name).with_suffix("").parts
        for start in range(len(parts)):
            key = "/".join(parts[start:])
            if key in self._masks:
                return self._masks[key]
        name = self._by_name.get(parts[-1]) if len(parts) == 1 else None
        return None if name is None else self._masks[name]


def without_masks(images: Sequence[ImageFile]) -> list[ImageFile]:
    """The images that are no mask of another one among them, such as `a_mask.png` beside `a.png`."""
    names = {image.path.with_suffix("").as_posix() for image in images}

    def is_mask(image: ImageFile) -> bool:
        stem = image.path.with_suffix("").as_posix()
        return any(stem.endswith(suffix) and stem.removesuffix(suffix) in names for suffix in MASK_SUFFIXES)

    return [image for image in images if not is_mask(image)]
