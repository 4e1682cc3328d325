"""Whether what a run folder says has the form that it should have: run folders are passed on from one to another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from headclip.data.run_folder import NUMBER, is_kind

MAX_TABLE = 4 << 30  # bytes of results.parquet when it is unpacked; ten million rows have some 2 GiB

_WORDS = ("path", "status", "reason", "map", "verdict", "sha256")
_COUNTS = ("height", "width", "regions")
_VALUES = ("score", "global_score", "local_score", "peak", "seconds")
_KINDS = {**dict.fromkeys(_WORDS, str), **dict.fromkeys(_COUNTS, int), **dict.fromkeys(_VALUES, NUMBER)}


def row_fault(values: Any) -> str:
    """What is wrong with the fields of a row, or ""."""
    if not isinstance(values, Mapping):
        return "a row is no object"
    if not isinstance(values.get("path"), str) or not values["path"] or "\0" in values["path"]:
        return "a row has no path"
    if values.get("status") not in ("ok", "failed"):
        return f"the status of {values['path'][:80]!r} is neither ok nor failed"
    if not is_inside(values["path"]):
        return f"the path {values['path'][:80]!r} leads out of the run"
    for name, value in values.items():
        if value is not None and name in _KINDS and not is_kind(value, _KINDS[name]):
            return f"{name} of {values['path'][:80]!r} is {type(value).__name__} {str(value)[:40]}"
    if values.get("map") is not None and not is_inside(values["map"]):
        return f"the map of {values['path'][:80]!r} leads out of the run"
    if values["status"] == "ok" and values.get("score") is None:
        return f"{values['path'][:80]!r} is ok and has no score"
    return ""


def is_inside(name: str) -> bool:
    """Whether a name that a file states, relative to a folder, stays within that folder.

    >>> is_inside("left/a.png"), is_inside("../a.png"), is_inside("/a.png"), is_inside("left/../../a.png")
    (True, False, False, False)
    """
    if not name.startswith("/") and not any(mark in name for mark in ("..", "\\", ":")):
        return True  # most names; a PurePath takes some microseconds, and tables may have a million rows
    path = PurePath(name)
    return not (path.is_absolute() or path.drive or path.root or ".." in path.parts)


def is_text(value: Any) -> bool:
    """Whether it is a text that can be written as UTF-8, without a null."""
    return is_kind(value, str) and "\0" not in value
