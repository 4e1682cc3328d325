"""Decoding ahead of the model, in background threads, within a fixed amount of memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headclip.data.discover import ImageFile
from headclip.errors import ImageError

BATCH_PIXELS = 32_000_000  # pixels of a batch; each costs 4 bytes of map besides its colours


@dataclass(frozen=True)
class Decoded:
    """One input on its way to the model: pixels (H, W, 3) uint8, or the reason why there are none.

    sha256: of the file (hex), taken before the pixels were read; None where it cannot be.
    """

    file: ImageFile
    pixels: NDArray[np.uint8] | None
    reason: str | None
    size: int  # bytes of the file; 0 where it cannot be asked
    mtime_ns: int
    sha256: str | None = None


def decode_ahead(
    files: Sequence[ImageFile],
    *,
    max_pixels: int,
    workers: int = 2,
    max_images: int = 16,
    max_bytes: int = 400_000_000,
    read: Callable[[ImageFile, int], Decoded] | None = None,
) -> Generator[Decoded, None, None]:
    """Yield every file decoded, in order, while up to `max_images` or `max_bytes` of later ones get ready.

    At most `workers` images more than `max_bytes` are held. Leaving the loop early stops the threads. read: makes a
    `Decoded` of a file and the most pixels allowed, for files that are not on a disk; it must not raise.
    """
    queue = _Queue(files, max_pixels, max_images, max_bytes, read or _decode_one)
    threads = [threading.Thread(target=queue.work, daemon=True, name="headclip-decode") for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for index in range(len(files)):
            yield queue.take(index)
    finally:
        queue.stop()
        for thread in threads:
            thread.join()


def readable_batches(
    decoded: Iterable[Decoded], batch_size: Callable[[], int], refuse: Callable[[Decoded], None]
) -> Iterator[list[Decoded]]:
    """Group images up to the batch size, which may change on the way, or BATCH_PIXELS; those without pixels go to
    `refuse` as they come."""
    batch: list[Decoded] = []
    pixels = 0
    for item in decoded:
        if item.pixels is None:
            refuse(item)
            continue
        count = item.pixels.shape[0] * item.pixels.shape[1]
        if batch and (len(batch) >= batch_size() or pixels + count > BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(item)
        pixels += count
    if batch:
        yield batch


class _Queue:
    """Indices are handed out in order while there is room: the lowest one missing is always on its way."""

    def __init__(
        self,
        files: Sequence[ImageFile],
        max_pixels: int,
        max_images: int,
        max_bytes: int,
        read: Callable[[ImageFile, int], Decoded],
    ) -> None:
        self._files = files
        self._read = read
        self._max_pixels = max_pixels
        self._max_images = max_images
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._ready: dict[int, Decoded] = {}
        self._bytes = 0
        self._next = 0
        self._stopped = False

    def work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._has_room())
                if self._stopped or self._next >= len(self._files):
                    return
                index = self._next
                self._next += 1
            item = self._read(self._files[index], self._max_pixels)
            with self._changed:
                self._ready[index] = item
                self._bytes += _bytes_of(item)
                self._changed.notify_all()

    def take(self, index: int) -> Decoded:
        with self._changed:
            self._changed.wait_for(lambda: index in self._ready)
            item = self._ready.pop(index)
            self._bytes -= _bytes_of(item)
            self._changed.notify_all()
            return item

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        if self._next >= len(self._files):
            return True  # nothing left: let the worker see it and end
        return len(self._ready) < self._max_images and self._bytes < self._max_bytes


def _bytes_of(item: Decoded) -> int:
    return 0 if item.pixels is None else item.pixels.nbytes


def _decode_one(file: ImageFile, max_pixels: int) -> Decoded:
    size = mtime_ns = 0
    sha256 = None
    try:
        size, mtime_ns = file.state()
        # Before the pixels: of a file that is replaced in between, the hash is the old one, and --resume judges it.
        sha256 = file.content()
    except OSError:
        pass  # decode says why, in its own words
    try:
        return Decoded(file, file.decode(max_pixels=max_pixels), None, size, mtime_ns, sha256)
    except ImageError as error:
        return Decoded(file, None, str(error), size, mtime_ns, sha256)
    except Exception as error:  # a thread that dies would leave the run waiting for ever
        return Decoded(file, None, f"unexpected {type(error).__name__}: {error}", size, mtime_ns, sha256)
