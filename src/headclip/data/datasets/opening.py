"""From a name and a path to an opened dataset."""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from headclip.data.datasets.base import Dataset, DatasetInfo
from headclip.data.datasets.registry import find_dataset, reader_of
from headclip.data.discover import printable
from headclip.data.layouts import subfolders
from headclip.data.manifest import read_manifest
from headclip.data.reading import Reading, some
from headclip.errors import InputError
from headclip.files import cannot_use, expanded

log = logging.getLogger(__name__)

META = "meta.json"
GENERAL = frozenset({"folder", "manifest", "coco"})
"""Names that stand for a kind of layout; the dataset takes its title from the path."""


def open_dataset(name: str, path: str | Path, *, lenient: bool = False) -> Dataset:
    """Open a dataset by its registered name.

    A folder that does not have the official layout but an official `meta.json` is read through that file.
    What is wrong with this copy, and what was left out of the test images, is in `findings` and, in short,
    in the log.

    Args:
        path: the dataset's folder, or the file of a manifest.
        lenient: keep errors, such as an anomalous image without its mask, as findings.

    Raises:
        InputError: unknown name; the path does not exist, cannot be read or is not this dataset; errors, unless
            lenient.
    """
    info, root = find_dataset(name), expanded(path)
    try:
        return _open(info, root, lenient)
    except OSError as error:
        raise cannot_use(root, error) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{info.title}: a list in {root} is not UTF-8 ({error.reason}); save it as UTF-8") from error


def _open(info: DatasetInfo, root: Path, lenient: bool) -> Dataset:
    if not root.exists():
        raise InputError(f"{info.title}: {root} does not exist; check the path")
    if root.is_file() and info.name not in GENERAL:
        raise InputError(f"{info.title}: {root} is a file; name the folder that holds {info.layout}")
    reading = Reading(root if root.is_dir() else root.parent)
    reader_of(info)(root, reading, info)
    if not reading.records and (root / META).is_file():
        read_manifest(reading, root / META)
    if not reading.records:
        reading.raise_errors(info.title)
        raise InputError(_not_found(info, root))
    if info.name in GENERAL:
        info = _describe(info, root, reading)
    _compare_labels(reading, info)
    if not lenient:
        reading.raise_errors(info.title)
    _log(info, reading)
    return Dataset(info, reading.root, reading.records, tuple(reading.findings), root if root.is_file() else None)


def parse_spec(text: str) -> tuple[str, Path]:
    """Split `NAME=PATH`. A path alone is opened as what it is: a folder, or a manifest (CSV, JSON, COCO).

    Raises:
        InputError: the name is unknown, a part is empty, or the path alone does not exist.

    >>> parse_spec("mvtec=/data/mvtec")
    ('mvtec', PosixPath('/data/mvtec'))
    """
    if os.path.exists(text):  # noqa: PTH110 - unlike the method, it takes any text for a path
        return ("folder" if Path(text).is_dir() else "manifest"), Path(text)
    name, separator, path = text.partition("=")
    if not separator:
        raise InputError(f"'{text}' is neither NAME=PATH nor an existing path, e.g. mvtec=/data/mvtec")
    if not name or not path:
        raise InputError(f"'{text}' lacks a {'path' if name else 'name'}; write NAME=PATH, e.g. mvtec=/data/mvtec")
    return find_dataset(name).name, Path(path)


def open_spec(text: str, *, lenient: bool = False) -> Dataset:
    """`open_dataset` for `NAME=PATH`, or a path alone."""
    name, path = parse_spec(text)
    return open_dataset(name, path, lenient=lenient)


def _not_found(info: DatasetInfo, root: Path) -> str:
    found = ", ".join(f"{folder.name}/" for folder in subfolders(root)[:8]) or "no folders"
    return f"{root} does not look like {info.title}: expected {info.layout}; found {found}"


def _describe(info: DatasetInfo, root: Path, reading: Reading) -> DatasetInfo:
    """Title, family and level of a dataset that is known by its layout only."""
    stem = root.resolve().name if root.is_dir() else root.resolve().stem
    title = root.resolve().parent.name if root.is_file() and stem in ("meta", "manifest", "annotations") else stem
    title = printable(title)
    labels = {record.label for record in reading.records}
    has_masks = any(record.has_mask for record in reading.records)
    level = "both" if has_masks and 0 in labels else "pixel" if has_masks else "image"
    return replace(info, title=title, family=title, level=level)  # type: ignore[arg-type]


def _compare_labels(reading: Reading, info: DatasetInfo) -> None:
    """Categories in which a metric is not defined, or that are missing, are never passed over in silence."""
    found = reading.labels()
    masked = {record.category for record in reading.records if record.has_mask}
    known = {_plain(category) for category in info.categories}
    if len(known) > 1 and found and not known & {_plain(category) for category in found}:
        shown = f"{some(list(found))} in the place of {some(info.categories)}"
        reading.error(
            "another dataset", f"none of its categories is here: {shown}; name your own data by the path alone"
        )
    for category in info.categories:
        if category not in found:
            reading.problem("missing category", f"the category {category} is missing from {reading.root}")
    for category, labels in found.items():
        if labels[None]:
            reading.note("no labels", f"{labels[None]} image(s) of {category} have no label and cannot be scored")
        elif info.level != "pixel" and not labels[1]:
            reading.problem("only normal", f"{category} has normal images only: no metric is defined for it")
        elif info.level != "pixel" and not labels[0]:
            reading.problem("only anomalous", f"{category} has no normal image: no image metric is defined for it")
        if info.level != "image" and labels[1] and category not in masked:
            reading.problem("no masks", f"{category} has no masks: no pixel metric is defined for it")


def _plain(category: str) -> str:
    return "".join(letter for letter in category.casefold() if letter.isalnum())


def _log(info: DatasetInfo, reading: Reading) -> None:
    kinds = Counter(finding.kind for finding in reading.findings if finding.severity != "note")
    for kind, count in kinds.items():
        first = next(finding.message for finding in reading.findings if finding.kind == kind)
        more = f" (and {count - 1} more of this kind)" if count > 1 else ""
        log.warning("%s: %s%s", info.title, first, more)
