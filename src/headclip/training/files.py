"""Files of a training run: written whole or not at all, and a log that never repeats a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def save_torch(content: Any, path: Path) -> None:
    """Write tensors and plain values for `torch.load(weights_only=True)`, atomically."""
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    partial.replace(path)


def append_json_line(path: Path, entry: dict[str, Any]) -> None:
    """Add one line of JSON and hand it to the operating system at once."""
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(entry) + "\n")


def trim_log(path: Path, key: str, last: int) -> None:
    """Drop log lines after `last` (a run that was killed logged steps it will repeat) and a torn last line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry.get(key, 0) <= last:
            kept.append(line)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    partial.replace(path)
