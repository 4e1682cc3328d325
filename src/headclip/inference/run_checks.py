"""Whether what a run folder says has the form that it should have: run folders are passed on from one to another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

FORMAT = "headclip-run"
MAX_TABLE = 4 << 30  # bytes of results.parquet when it is unpacked; ten million rows have some 2 GiB

_Kind = type | tuple[type, ...]
_NUMBER: _Kind = (int, float)
_NEEDED: dict[str, _Kind] = {"status": str, "version": int, "settings": dict, "root": str}
_OPTIONAL: dict[str, _Kind] = {
    "created": str,
    "label": str,
    "judgement": dict,
    "scale": dict,
    "timing": dict,
    "counts": dict,
    "versions": dict,
    "arguments": dict,
    "shard": dict,
}
_WITHIN: dict[str, dict[str, _Kind]] = {
    "scale": {"low": _NUMBER, "high": _NUMBER},
    "timing": {"earlier_seconds": _NUMBER, "seconds": _NUMBER},
    "judgement": {"criteria": dict},
}
_WORDS = ("path", "status", "reason", "map", "verdict", "sha256")
_COUNTS = ("height", "width", "regions")
_VALUES = ("score", "global_score", "local_score", "peak", "seconds")


def is_sound(facts: Any) -> bool:
    """Whether run.json is that of a run, with every field that readers rely on of its kind."""
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        return False
    if not all(_is(facts.get(name), kind) for name, kind in _NEEDED.items()):
        return False
    if not all(facts.get(name) is None or _is(facts[name], kind) for name, kind in _OPTIONAL.items()):
        return False
    for name, kinds in _WITHIN.items():
        held = facts.get(name)
        if held is not None and not all(_is(held.get(key), kind) for key, kind in kinds.items()):
            return False
    evaluation = facts["settings"].get("evaluation")
    return (evaluation is None or isinstance(evaluation, dict)) and "\0" not in facts["root"]


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
    kinds = {**dict.fromkeys(_WORDS, str), **dict.fromkeys(_COUNTS, int), **dict.fromkeys(_VALUES, _NUMBER)}
    for name, value in values.items():
        if value is not None and name in kinds and not _is(value, kinds[name]):
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
    path = PurePath(name)
    return not (path.is_absolute() or path.drive or path.root or ".." in path.parts)


def is_text(value: Any) -> bool:
    """Whether it is a text that can be written as UTF-8, without a null."""
    return _is(value, str) and "\0" not in value


def _is(value: Any, kind: _Kind) -> bool:
    """A bool is no number here, nor is anything that is not finite or that does not fit into 64 bits."""
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    if isinstance(value, str):
        return value.isprintable() or value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    return not isinstance(value, int | float) or abs(value) < 2**63
