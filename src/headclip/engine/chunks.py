"""What travels between the machine that keeps the record and those that judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headclip.runs.run import Entry

_MOST_BATCHES = 8  # in a chunk: what a lost worker costs
_SHARES = 6  # chunks for each actor at least, so that a slow one does not hold up the end


@dataclass(frozen=True)
class FileRef:
    """One image to judge. path: on disk, or below the prefix of the input; size, mtime_ns: as listed, 0 if local."""

    name: str
    path: str
    size: int = 0
    mtime_ns: int = 0
    category: str | None = None
    extra: Any = None


@dataclass(frozen=True)
class Chunk:
    """Images that one actor judges in one go. number: which chunk, never used twice in a run."""

    number: int
    files: tuple[FileRef, ...]


@dataclass
class Result:
    """What became of a chunk.

    entries: a record for every image; payload: what the kind of work adds; files: those that the worker could not
    put in place itself, by name below the output; fatal: why nothing can go on, such as a full disk; error: why this
    chunk gave nothing, so that its images are tried one by one; worker: host and process.
    """

    number: int
    entries: list[Entry] = field(default_factory=list)
    payload: Any = None
    files: dict[str, bytes] = field(default_factory=dict)
    fatal: str | None = None
    error: str | None = None
    worker: str = ""


def plan(files: Sequence[FileRef], batch_size: int, actors: int, start: int = 0) -> list[Chunk]:
    """Cut `files` into chunks of whole batches, in order, so that batches are those of a run on one machine.

    >>> [len(chunk.files) for chunk in plan([FileRef(str(n), "") for n in range(10)], 4, 1)]
    [4, 4, 2]
    """
    batches = math.ceil(len(files) / batch_size)
    size = batch_size * max(1, min(_MOST_BATCHES, batches // (_SHARES * actors)))
    return [
        Chunk(start + number, tuple(files[first : first + size]))
        for number, first in enumerate(range(0, len(files), size))
    ]
