"""Batches of a training set, read or rendered by processes beside the training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader, Dataset

from headclip.errors import HeadclipError, InputError
from headclip.training.batches import Batch, collate
from headclip.training.sets import TrainingItem, TrainingSet
from headclip.training.workers import end_with_parent


class _Reported(Dataset[TrainingItem | str]):
    """A training set whose own errors come back as their words: raised in a process beside this one, they would
    arrive with its traceback as their message."""

    def __init__(self, data: TrainingSet) -> None:
        self.data = data

    def __getitem__(self, number: int) -> TrainingItem | str:
        try:
            return self.data[number]
        except HeadclipError as error:
            return str(error)


def _join(items: list[TrainingItem | str]) -> Batch | str:
    """A batch, or what is wrong with the first image that has a fault."""
    fault = next((item for item in items if isinstance(item, str)), None)
    return collate([item for item in items if not isinstance(item, str)]) if fault is None else fault


def read_batches(data: TrainingSet, chunks: list[list[int]], workers: int) -> Iterator[Batch]:
    """Batches of the images of these numbers, in order, made by `workers` processes, 0 for none but this one.

    Raises:
        InputError: an image cannot be read any more.
    """
    loader: DataLoader[Any] = DataLoader(
        _Reported(data),
        batch_sampler=chunks,
        collate_fn=_join,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=end_with_parent,
    )
    batches = iter(loader)
    try:
        for numbers, batch in zip(chunks, batches, strict=True):
            if isinstance(batch, str):
                raise InputError(batch)
            yield replace(batch, numbers=numbers)
    finally:  # also where an error holds on to this frame: its processes leave SIGTERM to the parent, which would wait
        end_workers(batches)


def end_workers(batches: Any) -> None:
    """Stop the processes of a DataLoader's iterator now, rather than when it is forgotten."""
    stop = getattr(batches, "_shutdown_workers", None)
    if stop is not None:
        stop()
