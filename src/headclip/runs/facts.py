"""What run.json says of a run, as JSON files and pages can hold it, and whether two runs were made alike."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from headclip.data.discover import ImageSet, printable
from headclip.data.run_folder import FORMAT
from headclip.runs.files import RunFolderError
from headclip.same_settings import differing, valued
from headclip.version import software_versions

FORMAT_VERSION = 1
_PACKAGES = ("torch", "numpy", "pillow", "pyarrow")
# Where and in what portions images were judged does not change what they are worth; thresholds come afterwards.
_FREE_SETTINGS = frozenset(
    {"calibration", "checkpoint", "device", "device_name", "batch_size", "threads", "versions", "patch"}
)


def as_facts(values: dict[str, Any]) -> dict[str, Any]:
    """JSON-able values as run.json gives them back; bytes of paths that are no UTF-8 become escapes."""
    facts: dict[str, Any] = _printable(json.loads(json.dumps(values)))
    return facts


def _printable(value: Any) -> Any:
    if isinstance(value, dict):
        return {printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def new_facts(
    images: ImageSet, settings: dict[str, Any], arguments: dict[str, Any] | None, old: dict[str, Any] | None
) -> dict[str, Any]:
    """run.json of a run that begins, or goes on from `old`."""
    earlier = float((old or {}).get("timing", {}).get("seconds", 0.0))
    judgement = {"judgement": old["judgement"]} if old and old.get("judgement") else {}
    return judgement | {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "status": "running",
        "created": (old or {}).get("created") or now(),
        "root": images.shown_root,
        "arguments": as_facts(arguments or {}),
        "settings": settings,
        "versions": software_versions(*_PACKAGES),
        "timing": {"earlier_seconds": earlier},
    }


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def check_same(old: dict[str, Any], settings: dict[str, Any], images: ImageSet, folder: Path) -> None:
    """A run holds images of one root judged by one model; no other table would mean anything."""
    advice = "use the same, --overwrite the run, or choose another folder"
    if old["root"] != images.shown_root:
        raise RunFolderError(
            f"the run in {folder} judged images under {old['root']}, not under {images.shown_root}; {advice}"
        )
    changed = changed_settings(old["settings"], settings)
    if changed:
        shown = "; ".join(f"{key} {before!r} there, {now!r} now" for key, before, now in changed[:3])
        raise RunFolderError(f"the run in {folder} was made with other settings ({shown}); {advice}")


def changed_settings(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """The settings (dotted names) that change results and in which two detectors differ, with both values."""
    names = [name for name in differing(one, other) if not _FREE_SETTINGS.intersection(name.split("."))]
    return [(name, valued(one, name), valued(other, name)) for name in names]
