"""Which folders are runs of ours: what lies in them was made from images, and is not looked for as images."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from headclip.errors import InputError
from headclip.files import cannot_use, load_json

RUN_JSON = "run.json"
FORMAT = "headclip-run"
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})

Kind = type | tuple[type, ...]
NUMBER: Kind = (int, float)
_NEEDED: dict[str, Kind] = {"status": str, "version": int, "settings": dict, "root": str}
_OPTIONAL: dict[str, Kind] = {
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
_WITHIN: dict[str, dict[str, Kind]] = {
    "scale": {"low": NUMBER, "high": NUMBER},
    "timing": {"earlier_seconds": NUMBER, "seconds": NUMBER},
    "judgement": {"criteria": dict},
}


def is_run_folder(folder: Path) -> bool:
    """Whether `folder` holds a run of ours; errors as `read_facts`."""
    return read_facts(folder) is not None


def read_facts(folder: Path) -> dict[str, Any] | None:
    """run.json of a folder, or None where there is none of ours.

    Raises:
        InputError: that cannot be told, for the file may not be read, or the disk fails.
    """
    path = folder / RUN_JSON
    try:
        facts = load_json(path)
    except ValueError:
        return None
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise cannot_use(path, error) from error
    return facts if is_sound(facts) else None


def refuse_run(folder: Path) -> None:
    """For folders of images that a user names.

    Raises:
        InputError: it is a run.
    """
    if is_run_folder(folder):
        raise is_no_input(folder)


def is_no_input(place: str | Path) -> InputError:
    """The error to raise where a run was named in place of images."""
    return InputError(
        f"{place} is a run of headclip: its pictures are maps and overlays, not images to look at; "
        "name the images that it judged"
    )


def is_sound(facts: Any) -> bool:
    """Whether run.json is that of a run, with every field that readers rely on of its kind."""
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        return False
    if not all(is_kind(facts.get(name), kind) for name, kind in _NEEDED.items()):
        return False
    if not all(facts.get(name) is None or is_kind(facts[name], kind) for name, kind in _OPTIONAL.items()):
        return False
    for name, kinds in _WITHIN.items():
        held = facts.get(name)
        if held is not None and not all(is_kind(held.get(key), kind) for key, kind in kinds.items()):
            return False
    evaluation = facts["settings"].get("evaluation")
    return (evaluation is None or isinstance(evaluation, dict)) and "\0" not in facts["root"]


def is_kind(value: Any, kind: Kind) -> bool:
    """A bool is no number here, nor is anything that is not finite or that does not fit into 64 bits."""
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    if isinstance(value, str):
        return value.isprintable() or value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    return not isinstance(value, int | float) or abs(value) < 2**63
