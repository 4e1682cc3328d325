"""What scoring needs to know of every image, wherever its judgement came from; and its true mask."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headclip.data.datasets import Dataset
from headclip.data.discover import ImageFile, ImageSet, printable
from headclip.data.records import ImageRecord, read_mask
from headclip.data.records import resize_mask as resize_nearest
from headclip.data.volumes.lone import LoneImage
from headclip.errors import ImageError
from headclip.files import content_hash
from headclip.metrics.state import PixelState

Resolution = Literal["image", "tower"]
Status = Literal["ok", "failed", "unlabelled", "missing"]
Size = tuple[int, int]


@dataclass(frozen=True)
class JudgedImage:
    """One image of a dataset with what was found in it.

    name: relative to the dataset; status: "missing" where a run has no row for it; reason: why there is no score,
    or what is odd about its mask. load: reads its pixel counts; None where there are none, since its defects are
    not known or the dataset has no pixel metrics. load_map: its anomaly map (H, W) in [0, 1], for pictures.
    """

    record: ImageRecord
    name: str
    status: Status
    score: float | None = None
    reason: str | None = None
    load: Callable[[], PixelState] | None = None
    load_map: Callable[[], NDArray[np.float32]] | None = None

    @property
    def ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True)
class Truth:
    """The defects of an image at the size of its map.

    mask: (H, W) bool, None for a normal image or where `known` is False; note: what its reader should know.
    """

    mask: NDArray[np.bool_] | None
    known: bool
    note: str | None = None


def read_truth(record: ImageRecord, threshold: int, image: Size, output: Size) -> Truth:
    """The mask of a record, brought to `output` = (height, width) of its map.

    A mask of another size than the image is brought to the image's by nearest neighbour, with a note. From there to
    the size of the tower it goes as the published codes do it (bilinear, above half).
    """
    if record.label == 0:
        return Truth(None, True)
    if not record.has_mask:
        return Truth(None, False, "no mask: not in the pixel metrics")
    try:
        mask = record.outline.draw() if record.outline is not None else read_mask(_file(record), None, threshold)
    except ImageError as error:
        return Truth(None, False, f"{error}: not in the pixel metrics")
    notes = []
    if mask.shape != image:
        notes.append(
            f"the mask is {mask.shape[1]} x {mask.shape[0]}, the image {image[1]} x {image[0]}: the mask was resized"
        )
        mask = resize_nearest(mask, image)
    if not mask.any():
        notes.append("anomalous, but its mask is empty")
    if mask.shape != output:
        from headclip.clip.preprocess import resize_mask

        had, mask = mask.any(), resize_mask(mask, output).numpy()
        if had and not mask.any():
            notes.append(f"its defects are too small to be seen at {output[1]} x {output[0]}")
    return Truth(mask, True, "; ".join(notes) or None)


def _file(record: ImageRecord) -> Path:
    assert record.mask is not None
    return record.mask


def truth_fingerprint(record: ImageRecord) -> list[Any]:
    """Label and mask in short, so that changed annotations are noticed when an evaluation goes on.

    Of a mask's file it is the content's hash, of a folder of masks that of each, of an outline its own.
    """
    if record.outline is not None:
        return [record.label, hashlib.sha256(repr(record.outline).encode()).hexdigest()]
    if record.mask is None:
        return [record.label]
    try:
        files = sorted(record.mask.iterdir()) if record.mask.is_dir() else [record.mask]
    except OSError:
        return [record.label, None]
    return [record.label, *(content_hash(file) for file in files)]


def name_images(records: Sequence[ImageRecord], root: Path) -> ImageSet:
    """The images of a dataset with names that are unique: below `root`, or the folder above all of them.

    An image that is listed twice gets a name of its own for the second time.
    """
    paths = [_absolute(record.path) for record in records]
    base = _absolute(root)
    if not all(path.is_relative_to(base) for path in paths):
        base = Path(os.path.commonpath([base, *(path.parent for path in paths)]))
    seen: Counter[str] = Counter()
    files: list[ImageFile] = []
    for path in paths:
        name = printable(path.relative_to(base).as_posix())
        seen[name] += 1
        files.append(LoneImage(path, name if seen[name] == 1 else f"{name}~{seen[name]}"))
    return ImageSet(base, tuple(files))


def _absolute(path: Path) -> Path:
    """Not resolve(): a link keeps its name."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def dataset_key(dataset: Dataset) -> str:
    """What an evaluation calls a dataset: its registered name; the user's own data go by their folder's."""
    return dataset.info.family if dataset.info.domain == "any" else dataset.name


def choose(dataset: Dataset, limit: int | None) -> list[ImageRecord]:
    """The records to judge: all, or at most `limit` of each category, evenly spaced, half of them anomalous."""
    if limit is None:
        return list(dataset.records)
    chosen: list[ImageRecord] = []
    for category in dataset.categories:
        records = dataset.of(category)
        normal = [record for record in records if record.label == 0]
        anomalous = [record for record in records if record.label == 1]
        few = min(len(normal), max(limit // 2, limit - len(anomalous)))
        kept = {id(record) for record in _spaced(normal, few) + _spaced(anomalous, limit - few)}
        chosen += [record for record in records if id(record) in kept]
    return chosen


def _spaced(records: list[ImageRecord], count: int) -> list[ImageRecord]:
    """`count` records at even distances."""
    count = max(0, min(count, len(records)))
    return [records[index * len(records) // count] for index in range(count)]
