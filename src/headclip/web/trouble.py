"""What keeps going wrong: tried again less and less often, and said once and then less and less often."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_PAUSE = 60.0  # seconds between two attempts
FIRST_SILENCE, LONGEST_SILENCE = 60.0, 3600.0  # seconds until the same words are said again


class Trouble:
    """The state of one job that is done again and again. first_pause: seconds after the first failure."""

    def __init__(self, first_pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first_pause = first_pause
        self.pause = first_pause
        self._words: str | None = None
        self._silence = FIRST_SILENCE
        self._speak = 0.0

    def met(self, words: str) -> bool:
        """Note a failure: `pause` is how long to wait before the next attempt, the value whether to say the words."""
        self.pause = self._first_pause if self._words is None else min(LONGEST_PAUSE, 2.0 * self.pause)
        now = self._clock()
        if words != self._words:
            self._words, self._silence = words, FIRST_SILENCE
        elif now < self._speak:
            return False
        else:
            self._silence = min(LONGEST_SILENCE, 2.0 * self._silence)
        self._speak = now + self._silence
        return True

    def over(self) -> bool:
        """Note a success; whether there was trouble before it."""
        was, self._words = self._words is not None, None
        return was
