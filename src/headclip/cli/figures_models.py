"""From `--method a,b` and `--checkpoint FILE` to one loaded detector for each column of a figure."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headclip.inference.detector import Detector


@dataclass
class Column:
    """What one column shows. A method without a checkpoint takes the one that ships with the backbone, if any."""

    method: str | None
    checkpoint: Path | None = None


def open_columns(method: str | None, checkpoints: list[str], *, backbone: str, **options: Any) -> dict[str, Detector]:
    """Title -> detector, on one loaded backbone. A method that learns and has no checkpoint is titled as untrained.

    Raises:
        HeadclipError: an unknown method, or a file that is no checkpoint or belongs to another backbone.
    """
    from headclip.clip.weights import load_backbone
    from headclip.inference.detector import Detector
    from headclip.methods.titles import HEADINGS

    columns = plan_columns(method, checkpoints)  # before the backbone is loaded, which takes longer
    loaded = load_backbone(backbone)
    found: dict[str, Detector] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="no checkpoint")  # the title says it
        for column in columns:
            detector = Detector(loaded, column.checkpoint, method=column.method, **options)
            name = detector.method.name
            title = HEADINGS.get(name, name)
            twice = sum(other.method == name for other in columns) > 1
            if twice and column.checkpoint is not None:
                title += f" ({column.checkpoint.stem})"
            if type(detector.method).learns and detector.info is None:
                title += " (untrained)"
            while title in found:
                title += "'"
            found[title] = detector
    return found


def plan_columns(method: str | None, checkpoints: list[str]) -> list[Column]:
    """The columns in order: the methods named, then checkpoints that fit none of them or come on top."""
    from headclip.errors import InputError
    from headclip.methods import list_methods
    from headclip.methods.base import method_class

    names = [name.strip() for name in method.split(",") if name.strip()] if method else []
    for name in names:
        method_class(name)  # an unknown one is an error that lists all
    columns = [Column(name) for name in names]
    for text in checkpoints:
        prefix, sign, rest = text.partition("=")
        owner, path = (prefix, Path(rest)) if sign and prefix in list_methods() else (None, Path(text))
        if not path.is_file():
            raise InputError(f"no checkpoint at {path}")
        owner = owner or _owner(path, names)
        free = next((column for column in columns if column.method == owner and column.checkpoint is None), None)
        if free is None:
            columns.append(Column(owner, path))
        else:
            free.checkpoint = path
    return columns or [Column(None)]


def _owner(path: Path, names: list[str]) -> str:
    """The method that a checkpoint belongs to."""
    from headclip.errors import InputError
    from headclip.methods.checkpoint import OFFICIAL_SUFFIXES, read_info

    if path.suffix not in OFFICIAL_SUFFIXES:
        return read_info(path).method
    if len(names) == 1:
        return names[0]
    raise InputError(f"{path} does not say which method it belongs to; write --checkpoint METHOD={path}")
