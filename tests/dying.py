"""For scripts that tests run as processes of their own: death at a chosen moment."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def die_before_file(number: int, *, by_signal: bool = True) -> None:
    """Let this process die before it puts file `number` (from 1) in place: by SIGKILL, or by an exit with status 9."""
    count, replace = 0, Path.replace

    def counting(self: Path, target: str | Path) -> Path:
        nonlocal count
        count += 1
        if count == number and by_signal:
            os.kill(os.getpid(), signal.SIGKILL)
        if count == number:
            os._exit(9)
        return replace(self, target)

    Path.replace = counting  # type: ignore[method-assign, assignment]
