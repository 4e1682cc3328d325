"""A pool of rendered samples on disk: rendered once by several processes, read many times through memory
maps."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headclip.data.synthetic.renderer import RENDERER_VERSION, Sample, check_size, item_seed, render
from headclip.errors import InputError

CHUNK = 32
"""Samples per unit of work; after each the progress is on disk."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Spec:
    """What a pool holds; a folder started with another one is not continued."""

    seed: int
    count: int
    height: int
    width: int
    defect_rate: float
    family: str | None
    renderer: int = RENDERER_VERSION

    def facts(self) -> dict[str, Any]:
        return dict(self.__dict__)


class RenderPool:
    """The finished samples of a pool folder: `pool[i]` is the sample `render(item_seed(seed, i))`.

    images: (n, 3, H, W) uint8 and masks: (n, H, W) uint8 (0 or 1), NumPy memory maps, read-only; meta: one
    dict per sample (caption, label, family, noun, defect, seed). A pool that is still being written shows
    what is finished.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.spec, self.done = _read_progress(self.folder)
        with (self.folder / "meta.jsonl").open(encoding="utf-8") as lines:
            self.meta = [json.loads(line) for line, _ in zip(lines, range(self.done), strict=False)]
        self.images = np.load(self.folder / "images.npy", mmap_mode="r")[: self.done]
        self.masks = np.load(self.folder / "masks.npy", mmap_mode="r")[: self.done]

    def __len__(self) -> int:
        return self.done

    @property
    def complete(self) -> bool:
        return self.done == self.spec.count

    def __getitem__(self, index: int) -> Sample:
        if not -self.done <= index < self.done:
            raise IndexError(f"item {index} of {self.done}")
        image = torch.from_numpy(np.array(self.images[index]))
        mask = torch.from_numpy(np.array(self.masks[index])).bool()
        return Sample(image=image, mask=mask, **self.meta[index])


def open_pool(folder: str | Path) -> RenderPool:
    """Open a pool for reading. InputError when the folder holds none."""
    return RenderPool(folder)


def write_pool(
    folder: str | Path,
    *,
    seed: int,
    count: int,
    size: int | tuple[int, int] = 224,
    workers: int = 1,
    defect_rate: float = 0.5,
    family: str | None = None,
    progress: Progress | None = None,
) -> RenderPool:
    """Render `count` samples into a folder, or go on where an earlier call with the same settings stopped.

    workers: processes; with 1 everything is rendered in this one. progress(done, count) is called after each
    chunk. Files: images.npy, masks.npy, meta.jsonl (one line per sample), progress.json (replaced atomically,
    written last: what it counts is on disk). The arrays do not depend on workers or interruptions. Workers
    are spawned, so a script that calls this with more than one needs the usual `if __name__ == "__main__":`.
    Raises InputError when the folder holds a pool of other settings.
    """
    height, width = check_size(size)
    spec = _Spec(seed, count, height, width, defect_rate, family)
    if count < 1:
        raise InputError(f"A pool of {count} samples is empty. Ask for at least one.")
    folder = Path(folder)
    done = _prepare(folder, spec)
    if progress is not None:
        progress(done, count)
    starts = range(done, count, CHUNK)
    with _truncated_meta(folder, done) as meta, _mapper(workers) as run:
        jobs = [(str(folder), spec, start, min(start + CHUNK, count)) for start in starts]
        for job, lines in zip(jobs, run(_render_chunk, jobs), strict=True):
            meta.write(lines)
            meta.flush()
            _write_progress(folder, spec, job[3])
            if progress is not None:
                progress(job[3], count)
    return RenderPool(folder)


def _render_chunk(job: tuple[str, _Spec, int, int]) -> str:
    """Render samples start..stop into the arrays; returns their lines of meta.jsonl."""
    name, spec, start, stop = job
    images = np.load(Path(name) / "images.npy", mmap_mode="r+")
    masks = np.load(Path(name) / "masks.npy", mmap_mode="r+")
    lines = []
    for index in range(start, stop):
        sample = render(
            item_seed(spec.seed, index),
            (spec.height, spec.width),
            defect_rate=spec.defect_rate,
            family=spec.family,
        )
        images[index], masks[index] = sample.image.numpy(), sample.mask.numpy()
        facts = ("caption", "label", "family", "noun", "defect", "seed")
        lines.append(json.dumps({fact: getattr(sample, fact) for fact in facts}) + "\n")
    images.flush()
    masks.flush()
    return "".join(lines)


def _one_thread() -> None:
    torch.set_num_threads(1)  # processes are the parallelism; threads within them would only fight


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Any]]:
    """An ordered map over jobs: the built-in one, or one over worker processes."""
    if workers <= 1:
        yield map
        return
    # Spawned, not forked: a forked child of a process whose OpenMP threads have run may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread)
    try:
        yield pool.map
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare(folder: Path, spec: _Spec) -> int:
    """Make the files of a new pool, or check those of an old one; returns how many samples are finished."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "progress.json").exists():
        held, done = _read_progress(folder)
        if held != spec:
            differing = [name for name, value in spec.facts().items() if held.facts()[name] != value]
            raise InputError(
                f"The pool in {folder} was started with another {', '.join(differing)}. "
                "Use the same settings to go on with it, or another folder."
            )
        return done
    shape = (spec.count, 3, spec.height, spec.width)
    np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    np.lib.format.open_memmap(folder / "masks.npy", mode="w+", dtype=np.uint8, shape=(shape[0], *shape[2:]))
    (folder / "meta.jsonl").write_text("", encoding="utf-8")
    _write_progress(folder, spec, 0)
    return 0


@contextmanager
def _truncated_meta(folder: Path, done: int) -> Iterator[Any]:
    """meta.jsonl opened for appending after its first `done` lines; what a killed run wrote beyond them
    goes."""
    path = folder / "meta.jsonl"
    with path.open("r+b") as file:
        for _ in range(done):
            file.readline()
        file.truncate(file.tell())
    with path.open("a", encoding="utf-8") as file:
        yield file


def _read_progress(folder: Path) -> tuple[_Spec, int]:
    try:
        held = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        return _Spec(**held["spec"]), int(held["done"])
    except FileNotFoundError:
        raise InputError(f"{folder} holds no pool of rendered samples. Write one first.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The pool in {folder} cannot be read ({error}). Delete the folder and write it again."
        ) from None


def _write_progress(folder: Path, spec: _Spec, done: int) -> None:
    fresh = folder / "progress.json.new"
    fresh.write_text(json.dumps({"spec": spec.facts(), "done": done}), encoding="utf-8")
    fresh.replace(folder / "progress.json")
