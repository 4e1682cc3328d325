"""Running out of memory, and how much there is; without importing torch, so that anything may ask."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
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
    try:
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # "max": no limit
        pass
    return max(0, min(found)) if found else None
