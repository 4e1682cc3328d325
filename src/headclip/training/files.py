"""Files of a training run: written whole or not at all, and a log that never repeats a step."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from headclip.clip.files import check_archive
from headclip.errors import HeadclipError, InputError
from headclip.files import cannot_write, whole_file, write_atomically

_FEW, _MANY = 16, 64  # values that a message shows of a list; fields of a table that it looks into


def save_torch(content: Any, path: Path) -> None:
    """Write tensors and plain values for `load_torch`, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    with whole_file(path) as handle:
        sink = _Sink(handle)
        try:
            torch.save(content, sink)  # type: ignore[arg-type]
        except RuntimeError:
            if sink.error is None:
                raise
            raise sink.error from None


def load_torch(path: Path) -> dict[str, Any]:
    """What `save_torch` wrote, on the CPU, every byte checked; nothing in the file is ever executed.

    Raises:
        InputError: the file is missing, damaged, or no state of a training run.
    """
    with reading_state(path):
        with zipfile.ZipFile(path) as archive:  # torch itself leaves the check sums alone
            check_archive(archive, path.stat().st_size)
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} does not match its check sum")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
        return content


@contextmanager
def reading_state(path: Path) -> Iterator[None]:
    """Turn whatever a damaged or foreign state file leads to into an InputError."""
    try:
        yield
    except HeadclipError:
        raise
    except Exception as error:  # damage makes readers fail in many ways
        reason = re.split(r"\n|\. ", str(error).strip())[0] or type(error).__name__
        raise InputError(
            f"{path} cannot be resumed from ({reason}): it is damaged or no state of a training run; "
            "remove it and start anew without --resume"
        ) from error


def changes(name: str, there: Any, now: Any) -> list[str]:
    """What a setting of a run that is resumed was and is, field by field; of long lists and tables only that they
    differ.

    >>> changes("training", {"rate": 0.1, "seed": 1}, {"rate": 0.2, "seed": 1})
    ['training.rate was 0.1, now 0.2']
    """
    if isinstance(there, dict) and isinstance(now, dict) and len(there) < _MANY > len(now):
        keys = [key for key in {**there, **now} if there.get(key) != now.get(key)]
        return [text for key in keys for text in changes(f"{name}.{key}", there.get(key), now.get(key))]
    if any(isinstance(value, dict | list | tuple) and len(value) > _FEW for value in (there, now)):
        return [f"{name} is another"]
    if any(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) for value in (there, now)):
        return [f"{name} is another"]  # a hash tells nobody more
    return [f"{name} was {there}, now {now}"]


class _Sink:
    """A file for torch.save that keeps the words of a full disk: torch itself only says that writing failed."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._handle.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._handle.flush()


def append_json_line(path: Path, entry: dict[str, Any]) -> None:
    """Add one line of JSON and hand it to the operating system at once.

    Raises:
        OutputError: the line cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def trim_log(path: Path, key: str, last: int) -> None:
    """Drop log lines after `last` (a run that was killed logged steps it will repeat) and a torn last line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get(key, 0) <= last:
            kept.append(line)
    write_atomically(path, "".join(line + "\n" for line in kept))
