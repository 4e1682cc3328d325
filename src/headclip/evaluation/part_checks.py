"""Whether the results.json of a shard has the form that merging relies on: shards come from other machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from headclip.errors import InputError
from headclip.evaluation.evaluate import Options
from headclip.runs.checks import is_inside, is_text
from headclip.runs.parts import is_digest

MOST_DRAWS = 100_000  # of the bootstrap, of which each is kept
_KINDS: dict[str, type | tuple[type, ...]] = {
    "seconds": (int, float),
    "command": str,
    "arguments": dict,
    "options": dict,
    "detectors": dict,
    "datasets": dict,
}
_LISTS = ("labels", "leakage", "runs")


def part_fault(facts: Mapping[str, Any]) -> str:
    """What is wrong with a shard's results.json, or "". One that is not finished has little in it yet."""
    for name, needed in (("shard", dict), ("status", str)):
        if not isinstance(facts.get(name), needed):
            return f"{name} is missing or of the wrong kind"
    if facts["status"] != "finished":
        return ""
    try:
        json.dumps(facts, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return "it holds text or numbers that are none"
    for name, kind in _KINDS.items():
        value = facts.get(name)
        if isinstance(value, bool) or not isinstance(value, kind):
            return f"{name} is missing or of the wrong kind"
    if not 0 <= facts["seconds"] < 2**53:
        return "seconds is out of range"
    if not all(isinstance(known, dict) for known in facts["detectors"].values()):
        return "a detector is no object"
    for key, about in facts["datasets"].items():
        if fault := _dataset_fault(key, about, facts["detectors"]):
            return fault
    try:
        read_options(facts["options"])
    except InputError as error:
        return str(error)
    return ""


def _dataset_fault(key: str, about: Any, detectors: Mapping[str, Any]) -> str:
    """What is wrong with the entry of a dataset."""
    if not isinstance(about, dict) or not is_inside(key):
        return "a dataset is no object, or its name leads elsewhere"
    if not is_text(about.get("name")) or not is_text(about.get("root")) or not is_digest(about.get("listing")):
        return f"the dataset {key[:80]} lacks its name, its folder or its list of images"
    lists: list[Any] = [about.get(name) for name in _LISTS]
    if not all(isinstance(known, list) and all(map(is_text, known)) for known in lists):
        return f"the methods of {key[:80]} are missing or of the wrong kind"
    if len(set(map(len, lists))) > 1 or any(label not in detectors for label in about["labels"]):
        return f"the methods of {key[:80]} do not belong together"
    if not all(map(is_inside, about["runs"])):
        return f"a run of {key[:80]} leads out of the folder"
    return ""


def read_options(values: Mapping[str, Any]) -> Options:
    """The options of a shard, as results.json keeps them; what is not known is left out.

    Raises:
        InputError: an option is of the wrong kind or out of range.
    """
    known = {item.name: item.type for item in fields(Options)}
    chosen = {name: value for name, value in values.items() if name in known and name != "shard"}
    for name, value in chosen.items():
        if not _fits(value, str(known[name])):
            raise InputError(f"the option {name} is {str(value)[:40]!r}")
    options = Options(**chosen | {"remarks": tuple(chosen.get("remarks", ()))})
    if options.bootstrap > MOST_DRAWS:
        raise InputError(f"{options.bootstrap:,} bootstrap draws are more than {MOST_DRAWS:,}")
    return options


def _fits(value: Any, kind: str) -> bool:
    """Whether a JSON value is of the kind that a field of `Options` is annotated with."""
    if value is None:
        return "None" in kind
    if kind.startswith("bool"):
        return isinstance(value, bool)
    if kind.startswith("int"):
        return isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31
    if kind.startswith("float"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind.startswith("tuple"):
        return isinstance(value, list) and all(map(is_text, value))
    return is_text(value)
