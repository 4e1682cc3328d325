"""Locks against a second writer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from headclip.errors import InputError
from headclip.files import cannot_write


def try_lock(handle: IO[Any] | int) -> bool:
    """Hold an open file against other processes until it is closed; False where another one holds it.

    Windows and network file systems without advisory locks are let through.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Let one process at a time write what belongs to `path`, by means of a file `path`.lock that goes at the end.

    Raises:
        InputError: another process is at it.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _open_lock(lock)
    except OSError as error:
        raise cannot_write(lock, error) from error
    if handle is None:
        raise InputError(f"another process is writing {path}; wait for it or stop it")
    _held.add(handle)
    try:
        yield
    finally:
        _held.discard(handle)
        with suppress(OSError):
            lock.unlink(missing_ok=True)
        os.close(handle)


def _open_lock(lock: Path) -> int | None:
    """The lock file, opened and held; None where another process holds it."""
    while True:
        handle = os.open(lock, os.O_WRONLY | os.O_CREAT, 0o644)
        if not try_lock(handle):
            os.close(handle)
            return None
        try:
            if os.name != "posix" or os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)  # its holder took it away at that moment: what is held now is no longer the lock


_held: set[int] = set()


def _release_in_child() -> None:
    """A forked worker must not hold the lock: it would outlive a killed parent, and keep --resume out."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
