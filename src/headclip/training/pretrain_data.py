"""An endless stream of rendered image-caption batches for pretraining; batch n depends on the seed and n alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from headclip.data.synthetic import caption_pair, render_batch
from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.photographs import Photographs
from headclip.training.teacher import Teacher, TeacherTokens
from headclip.training.workers import start_in_gaps

Sizes = tuple[tuple[int, int], ...]
PAIRS = 4
SEED_STRIDE = 1_000_003  # keeps the images of one pretraining seed apart from those of the next


@dataclass
class PretrainBatch:
    """images (B, 3, H, W) uint8, masks (B, H, W) bool, labels (B,), a caption each; and a few (normal, abnormal)
    pairs of sentences that name objects of the batch, or just "object". With a teacher, also its tokens."""

    images: Tensor
    masks: Tensor
    labels: Tensor
    captions: list[str]
    pairs: list[tuple[str, str]]
    teacher: TeacherTokens | None = None


class RenderStream(IterableDataset[PretrainBatch]):
    """Renders batch after batch, from batch `start` to before `stop`; a teacher on the CPU sees them here.

    Every batch draws one (height, width): batches before `early[0]` one of `early[1]`, later ones of `late_sizes`.
    """

    def __init__(
        self,
        *,
        seed: int,
        batch_size: int,
        early: tuple[int, Sizes],
        late_sizes: Sizes,
        start: int,
        stop: int,
        defect_rate: float,
        teacher: Teacher | None = None,
        patch_size: int = 16,
        photographs: Photographs | None = None,
    ) -> None:
        super().__init__()
        self.teacher, self.patch_size, self.photographs = teacher, patch_size, photographs
        self.seed, self.batch_size, self.early, self.late_sizes = seed, batch_size, early, late_sizes
        self.start, self.stop, self.defect_rate = start, stop, defect_rate

    def __iter__(self) -> Iterator[PretrainBatch]:
        worker = get_worker_info()
        if worker is not None:
            torch.set_num_threads(1)
        first, step = (self.start, 1) if worker is None else (self.start + worker.id, worker.num_workers)
        for number in range(first, self.stop, step):
            yield self.batch(number)

    def batch(self, number: int) -> PretrainBatch:
        sizes = self.early[1] if number < self.early[0] else self.late_sizes
        size = sizes[np.random.default_rng([self.seed, number]).integers(len(sizes))]
        first = self.seed * SEED_STRIDE + number * self.batch_size
        settings = {"defect_rate": self.defect_rate, "photographs": self.photographs}
        samples = render_batch(range(first, first + self.batch_size), size, **settings)
        images = torch.stack([sample.image for sample in samples])
        grid = (size[0] // self.patch_size, size[1] // self.patch_size)
        return PretrainBatch(
            images,
            torch.stack([sample.mask for sample in samples]),
            torch.tensor([sample.label for sample in samples]),
            [sample.caption for sample in samples],
            [caption_pair(sample.noun, Rng(sample.seed)) for sample in samples[:PAIRS]],
            None if self.teacher is None else self.teacher(images, grid),
        )


def stream(dataset: RenderStream, workers: int) -> Iterator[PretrainBatch]:
    """Batches in order, rendered by `workers` processes in the gaps of the training (0 renders in this one)."""
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=start_in_gaps,
    )
    return iter(loader)
