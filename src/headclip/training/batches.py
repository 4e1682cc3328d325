"""Training images in batches, and what is remembered of each image whose features are kept."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor

from headclip.training.sets import TrainingItem


@dataclass
class Batch:
    """images (B, 3, S, S) uint8, or None where they were seen before; masks (B, S, S) bool, labels (B,), has_mask (B,)
    bool, categories B names; numbers of the images in the set; keys: of their kept features. Where several processes
    share a batch: whole, the images of all of them (0: there are no others); idle, that this one has none of its own
    and was lent one, which must not count."""

    images: Tensor | None
    masks: Tensor
    labels: Tensor
    has_mask: Tensor
    categories: list[str]
    numbers: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    whole: int = 0
    idle: bool = False

    @property
    def share(self) -> float:
        """How much of the whole batch these images are."""
        return 0.0 if self.idle else len(self.labels) / (self.whole or len(self.labels))


@dataclass
class SeenItem:
    """What later epochs need of a `TrainingItem` beside its kept features. mask: (S, S) packed to bits."""

    key: str
    mask: np.ndarray
    size: tuple[int, int]
    label: int
    has_mask: bool
    category: str

    def unpacked(self) -> Tensor:
        """The mask (S, S) bool."""
        bits = np.unpackbits(self.mask, count=self.size[0] * self.size[1])
        return torch.from_numpy(bits).bool().view(self.size)


def collate(items: list[TrainingItem]) -> Batch:
    return Batch(
        torch.stack([item.image for item in items]),
        torch.stack([item.mask for item in items]),
        torch.tensor([item.label for item in items]),
        torch.tensor([item.has_mask for item in items]),
        [item.category for item in items],
    )


def seen_batch(items: Sequence[SeenItem], numbers: list[int]) -> Batch:
    """A batch without images, of items whose features are kept."""
    return Batch(
        None,
        torch.stack([item.unpacked() for item in items]),
        torch.tensor([item.label for item in items]),
        torch.tensor([item.has_mask for item in items]),
        [item.category for item in items],
        numbers,
        [item.key for item in items],
    )


def remember(batch: Batch, keys: Sequence[str]) -> dict[int, SeenItem]:
    """What later epochs need of each image beside the features, by its number in the set."""
    found = {}
    for row, (number, key) in enumerate(zip(batch.numbers, keys, strict=True)):
        mask, label, marked = batch.masks[row], int(batch.labels[row]), bool(batch.has_mask[row])
        size = (mask.shape[0], mask.shape[1])
        found[number] = SeenItem(key, np.packbits(mask.numpy()), size, label, marked, batch.categories[row])
    return found


def pack_items(items: Mapping[int, SeenItem]) -> bytes:
    """Items by number, to be sent to another process."""
    plain = {
        number: {**asdict(item), "mask": base64.b64encode(item.mask.tobytes()).decode()}
        for number, item in items.items()
    }
    return json.dumps(plain).encode()


def unpack_items(content: bytes) -> dict[int, SeenItem]:
    """What `pack_items` packed."""
    found = {}
    for number, plain in json.loads(content).items():
        mask = np.frombuffer(base64.b64decode(plain["mask"]), np.uint8)
        found[int(number)] = SeenItem(**{**plain, "mask": mask, "size": tuple(plain["size"])})
    return found
