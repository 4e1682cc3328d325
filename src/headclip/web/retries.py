"""Which images that failed are tried again without having changed, and when."""

from __future__ import annotations

import time
from collections.abc import Callable

from headclip.runs.run import Entry

FIRST, LONGEST = 2.0, 600.0  # seconds
_PASSING = ("not enough memory", "cannot be saved", "the file cannot be read", "unexpected ", "the model failed")
State = tuple[int, int]
"""Size in bytes and time in ns of a file."""


def may_pass(entry: Entry) -> bool:
    """Whether an image failed for a reason outside its content: no permission, a share that was away, no memory."""
    if entry.row.status == "ok":
        return False
    return entry.sha256 is None or (entry.row.reason or "").startswith(_PASSING)


class Retries:
    """Pauses that double with each failure of a file; a file that has changed is due at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[str, tuple[State, float, float]] = {}  # by name: as it was, pause, due

    def failed(self, name: str, state: State) -> None:
        """Note another failure of the file."""
        before = self._waiting.get(name)
        pause = FIRST if before is None or before[0] != state else min(LONGEST, 2.0 * before[1])
        self._waiting[name] = (state, pause, self._clock() + pause)

    def forget(self, name: str) -> None:
        """The file has been judged."""
        self._waiting.pop(name, None)

    def is_due(self, name: str, state: State) -> bool:
        """Whether a file may be tried; one that has not failed always may."""
        known = self._waiting.get(name)
        return known is None or known[0] != state or self._clock() >= known[2]
