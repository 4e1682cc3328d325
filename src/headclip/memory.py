"""Running out of memory, and how much there is; without importing torch, so that anything may ask."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
GROUP = Path("/sys/fs/cgroup")  # of a container
_log = logging.getLogger(__name__)


def is_memory_error(error: BaseException) -> bool:
    """MemoryError, or what torch raises instead (`torch.OutOfMemoryError`, or a RuntimeError told by its words)."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def in_halves(
    run: Callable[[Sequence[Any]], list[T]], items: Sequence[Any], on_halving: Callable[[int], None]
) -> list[T]:
    """What `run` makes of all items, in order; where memory does not suffice, of half of them at a time, and so on.

    on_halving: is told how many items at a time are tried next, before they are.

    Raises:
        MemoryError, RuntimeError: memory does not suffice for a single item.
    """
    try:
        return run(items)
    except Exception as error:
        if len(items) < 2 or not is_memory_error(error):
            raise
    # Outside the handler: the error is gone by now, and with it the tensors that its frames held.
    half = (len(items) + 1) // 2
    _log.warning("out of memory with %d images a pass; going on with %d", len(items), half)
    on_halving(half)
    return in_halves(run, items[:half], on_halving) + in_halves(run, items[half:], on_halving)


def available_memory() -> int | None:
    """Bytes of main memory that could still be used, within the limit of a container; None where nobody says.

    Linux only.
    """
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    with suppress(OSError, ValueError):  # "max": no limit
        limit, used = (int((GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        found.append(limit - used + _cached())
    return max(0, min(found)) if found else None


def _cached() -> int:
    """Bytes of files that the container has read and that the system lets go of first; they count as used."""
    with suppress(OSError, ValueError, IndexError):
        lines = (GROUP / "memory.stat").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return 0
