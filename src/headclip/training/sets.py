"""Training sets: the rendered auxiliary set and labelled folders behind one interface."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from headclip.clip.preprocess import resize, resize_mask
from headclip.data.datasets import Dataset as LabelledDataset
from headclip.data.datasets import open_spec
from headclip.data.datasets.custom import MANIFESTS
from headclip.data.decode import decode
from headclip.data.folders import read_dataset
from headclip.data.hashing import perceptual_hash
from headclip.data.records import ImageRecord, read_mask, record_mask
from headclip.data.synthetic import SyntheticDataset
from headclip.data.synthetic.photographs import Photographs
from headclip.data.volumes.lone import decode_lone
from headclip.errors import ImageError, InputError
from headclip.files import expanded, file_hash

log = logging.getLogger(__name__)


@dataclass
class TrainingItem:
    """image (3, S, S) uint8; mask (S, S) bool; label 0 or 1; has_mask is False where defects are not marked;
    category: what the image shows, for methods that put it into words."""

    image: Tensor
    mask: Tensor
    label: int
    has_mask: bool
    category: str = "object"


class TrainingSet(Protocol):
    """What the trainer reads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> TrainingItem: ...

    def describe(self) -> dict[str, Any]:
        """Name, size and fingerprint, for the checkpoint."""
        ...


MaskOf = Callable[[ImageRecord, tuple[int, int]], NDArray[np.bool_] | None]
"""From a record and the size of its image to the mask; None where the anomalous pixels are not known."""


def _pixels(path: Path) -> NDArray[np.uint8]:
    """The image of a file, (H, W, 3).

    Raises:
        ImageError: it cannot be read any more; the message names the file.
    """
    try:
        return decode(path)
    except ImageError as error:
        raise ImageError(f"the training image {path} cannot be read: {error}") from error


class SyntheticTrainingSet(Dataset[TrainingItem]):
    """`count` rendered images of `size` px, half with defects; four in ten on photographs, if there are some."""

    def __init__(self, seed: int, count: int, size: int, photographs: Photographs | None = None) -> None:
        self.rendered = SyntheticDataset(seed, count, size, photographs=photographs)

    def __len__(self) -> int:
        return len(self.rendered)

    def __getitem__(self, index: int) -> TrainingItem:
        sample = self.rendered[index]
        return TrainingItem(sample.image, sample.mask, sample.label, True, sample.noun)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "synthetic",
            "images": len(self),
            "seed": self.rendered.seed,
            "fingerprint": self.rendered.fingerprint(),
        }


class FolderTrainingSet(Dataset[TrainingItem]):
    """A labelled folder, resized to squares of `size` px as the published codes do.

    Raises:
        InputError: no labels, or only one kind of image without any mask.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.records = readable(read_dataset(folder))
        if any(record.label is None for record in self.records):
            raise InputError(
                f"{folder} has no labels to train on; use an MVTec-style folder (test/good, test/DEFECT, "
                "ground_truth/DEFECT), images/ beside masks/, or good/ beside bad/"
            )
        labels = {record.label for record in self.records}
        if labels == {0}:
            raise InputError(f"{folder} has normal images only; training needs anomalous ones too")
        if labels == {1} and all(record.mask is None for record in self.records):
            raise InputError(f"{folder} has anomalous images only and no masks; there is nothing to tell apart")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> TrainingItem:
        return labelled_item(self.records[index], record_mask, self.size)

    def describe(self) -> dict[str, Any]:
        return self._description

    @cached_property
    def _description(self) -> dict[str, Any]:
        paths = {record.path.relative_to(self.folder).as_posix(): record.path for record in self.records}
        return describe_files(self.folder.resolve().name, paths)


class DatasetTrainingSet(Dataset[TrainingItem]):
    """The labelled images of an opened dataset (A23), resized to squares of `size` px.

    Raises:
        InputError: nothing in it can be read, nothing is anomalous, or everything is and no mask says where.
    """

    def __init__(self, dataset: LabelledDataset, size: int) -> None:
        self.dataset, self.size = dataset, size
        self.records = readable([record for record in dataset.records if record.label is not None])
        where, labels = f"{dataset.info.title} in {dataset.root}", {record.label for record in self.records}
        if labels == {0}:
            raise InputError(f"{where} has normal images only; training needs others")
        if labels == {1} and not any(record.has_mask for record in self.records):
            raise InputError(f"{where} has anomalous images only and no masks; there is nothing to tell apart")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> TrainingItem:
        return labelled_item(self.records[index], self.dataset.mask, self.size)

    def describe(self) -> dict[str, Any]:
        return self._description

    @cached_property
    def _description(self) -> dict[str, Any]:
        paths = {self.dataset.relative(record.path): record.path for record in self.records}
        info = self.dataset.info
        return describe_files(info.title if info.domain == "any" else info.name, paths)


def open_labelled(source: str, size: int) -> FolderTrainingSet | DatasetTrainingSet:
    """What `--data` names beside the rendered set: a labelled folder, the file of a manifest, `NAME=PATH` of a dataset.

    In a folder a manifest goes first, as in evaluations.

    Raises:
        InputError: it is none of them, or there is nothing in it to learn from.
    """
    path = expanded(source)
    if path.is_dir() and not any((path / name).is_file() for name in MANIFESTS):
        return FolderTrainingSet(path, size)
    if not path.exists() and "=" not in source:
        raise InputError(
            f"--data {source}: write synthetic, a labelled folder, or NAME=PATH of a dataset; there is no such path"
        )
    return DatasetTrainingSet(open_spec(source), size)


def labelled_item(record: ImageRecord, mask_of: MaskOf, side: int) -> TrainingItem:
    """A labelled image and its mask as a square of `side` px.

    Raises:
        ImageError: the image or its mask cannot be read any more.
    """
    image, size = _pixels(record.path), (side, side)
    found = mask_of(record, (image.shape[0], image.shape[1]))
    mask = torch.zeros(size, dtype=torch.bool) if found is None else resize_mask(found, size)
    return TrainingItem(
        resize(image, size), mask, int(record.label or 0), found is not None, record.category or "object"
    )


def describe_files(name: str, paths: dict[str, Path]) -> dict[str, Any]:
    """What a checkpoint keeps of a set of files; reads each twice, so callers keep the answer."""
    files = {relative: file_hash(path) for relative, path in paths.items()}
    return {
        "name": name,
        "images": len(paths),
        "fingerprint": hashlib.sha256("".join(sorted(files.values())).encode()).hexdigest(),
        "files": files,
        "looks": {relative: look for relative, path in paths.items() if (look := look_of(path))},
    }


def look_of(path: Path) -> str | None:
    """Perceptual hash in hex, for leakage checks; None for a flat picture."""
    value = perceptual_hash(decode(path))
    return None if value is None else f"{value:016x}"


def readable(records: list[ImageRecord]) -> list[ImageRecord]:
    """Records whose image (and mask) can be decoded; each other one is reported and left out.

    A mask that is empty although its image is anomalous is reported, and counts as unknown.
    """
    kept = []
    for record in records:
        try:
            decode_lone(record.path)
            if record.mask is not None and not read_mask(record.mask).any() and record.label == 1:
                log.warning("%s is anomalous, but its mask %s is empty: no pixels of it", record.path, record.mask)
                record = replace(record, mask=None)
            kept.append(record)
        except ImageError as error:
            log.warning("left out of training: %s (%s)", record.path, error)
    if not kept:
        raise InputError("none of the training images can be read")
    return kept
