"""Files that appear whole or not at all, their fingerprints, and locks against a second writer."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from headclip.errors import InputError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write beside the target, flush to disk, then rename over it; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("wb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def try_lock(handle: IO[Any]) -> bool:
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
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(path.name + ".lock")
    with lock.open("ab") as handle:
        if not try_lock(handle):
            raise InputError(f"another process is writing {path}; wait for it or stop it")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def results_in(out: Path, name: str, mark: str, kind: str) -> dict[str, Any] | None:
    """What the results file `name` of a folder to write to holds; None where the folder is empty or does not exist.

    Args:
        mark: "format" of results of ours. kind: what they are, for the message.

    Raises:
        InputError: `out` is a file, or holds something else.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out needs a folder")
    if not out.exists() or not any(out.iterdir()):
        return None
    try:
        found = json.loads((out / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != mark:
        raise InputError(f"{out} is not empty and holds no {kind}; choose an empty or a new folder")
    return found
