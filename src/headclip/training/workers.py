"""Processes that make batches beside a training."""

from __future__ import annotations

import os
import signal


def end_with_parent(number: int) -> None:
    """For a worker's start: leave Ctrl-C and SIGTERM, which schedulers send to all processes of a job, to the parent.

    It saves what it has, and then ends its workers; one that died on its own would make the parent fail meanwhile.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)


def start_in_gaps(number: int) -> None:
    """As above, at the lowest priority: rendering takes what time the training's own threads leave, and no more."""
    end_with_parent(number)
    os.nice(19)
