"""Lists of images in files: CSV, JSON, the `meta.json` of the official codes, and COCO.

CSV: a header and one row per image. JSON: a list of objects, or an object with such a list under `records`.
Both use the same names: `image`, and if known `label` (0 or 1, or a word such as normal, good, defect), `mask`,
`category`, `defect`, `split`. Where there is a split, only `test` rows are read; the others are noted. Paths are
relative to the file. Several spellings of the names are understood (see `_NAMES`).
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headclip.data.coco import is_coco, read_coco
from headclip.data.reading import Reading
from headclip.errors import InputError
from headclip.files import load_json

_NAMES = {
    "image": ("image", "image_path", "img_path", "path", "file", "filename", "file_name"),
    "label": ("label", "anomaly", "anomalous", "is_anomaly", "target", "label_index"),
    "mask": ("mask", "mask_path", "ground_truth", "gt"),
    "category": ("category", "cls_name", "object", "class", "class_name"),
    "defect": ("defect", "specie_name", "anomaly_class", "anomaly_type", "defect_type"),
    "split": ("split", "set", "subset"),
}
_NORMAL = frozenset({"0", "0.0", "false", "normal", "good", "ok", "no", "negative"})
_UNKNOWN = frozenset({"", "none", "nan", "null", "unknown", "?", "-1"})
_TRUE = frozenset({"1", "1.0", "true", "yes"})


def read_manifest(reading: Reading, file: Path, *, base: Path | None = None) -> None:
    """Add what a manifest lists. base: where relative paths start; the file's folder by default.

    A file that does not exist is an error that names it, and the row is left out.

    Raises:
        InputError: the file cannot be read, or is no manifest.
    """
    start = file.parent if base is None else base
    if file.suffix.lower() in (".csv", ".tsv", ".txt"):
        _add_rows(reading, _csv_rows(file), file, start)
        return
    content = _json(file)
    if is_coco(content):
        read_coco(reading, content, start)
    elif isinstance(content, dict) and "records" not in content:
        _add_rows(reading, _meta_rows(content, file), file, start)
    else:
        rows = content["records"] if isinstance(content, dict) else content
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{file} is no manifest; expected a list of objects with the key image")
        _add_rows(reading, rows, file, start)


def _csv_rows(file: Path) -> list[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            sample = handle.readline()
            handle.seek(0)
            delimiter = max(",;\t", key=sample.count)
            reader = csv.DictReader(handle, delimiter=delimiter)
            return [{key.strip(): value for key, value in row.items() if key is not None} for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read as CSV: {error}") from None


def _json(file: Path) -> Any:
    try:
        return load_json(file)
    except (OSError, UnicodeError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON: {error}") from None


def _meta_rows(content: Mapping[str, Any], file: Path) -> list[dict[str, Any]]:
    """The rows of a `meta.json`: {"train": {category: [...]}, "test": {category: [...]}}."""
    rows: list[dict[str, Any]] = []
    splits = {name.lower(): categories for name, categories in content.items()}
    if not isinstance(splits.get("test"), dict):
        raise InputError(f"{file} is no manifest; expected a list, COCO, or meta.json with 'test'")
    for split, categories in splits.items():
        if split not in ("train", "test") or not isinstance(categories, dict):
            continue
        for category, records in categories.items():
            if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
                raise InputError(f"{file} is no manifest; '{split}', '{category}' should be a list of objects")
            rows += [{"cls_name": category, **record, "split": split} for record in records]
    return rows


def _add_rows(reading: Reading, rows: Iterable[Mapping[str, Any]], file: Path, base: Path) -> None:
    others: Counter[str] = Counter()
    seen: set[Path] = set()
    for number, row in enumerate(rows, 2 if file.suffix.lower() != ".json" else 1):
        texts = {
            name: next((str(row[key]) for key in keys if row.get(key) is not None), "") for name, keys in _NAMES.items()
        }
        values = {name: text.strip() for name, text in texts.items()}
        # A blank after a comma is none of the name, unless there is such a file.
        values |= {name: texts[name] for name in ("image", "mask") if values[name] and _is_file(base / texts[name])}
        where = f"{file.name}, {'row' if file.suffix.lower() == '.json' else 'line'} {number}"
        if values["split"] and values["split"].lower() not in ("test", "testing", "eval"):
            others[values["split"]] += 1
            continue
        if not values["image"]:
            raise InputError(f"{where}: no image; known names of that column are {', '.join(_NAMES['image'])}")
        _add_row(reading, values, where, base, seen)
    for split, count in others.items():
        reading.note("other split", f"{count} row(s) of {file.name} belong to '{split}' and are not read")


def _add_row(reading: Reading, values: dict[str, str], where: str, base: Path, seen: set[Path]) -> None:
    path = base / values["image"]
    if not _is_file(path):
        reading.error("missing image", f"{where}: the image {path} does not exist", path)
        return
    if path in seen:
        reading.problem("listed twice", f"{where}: {reading.shown(path)} is listed a second time", path)
    seen.add(path)
    mask = base / values["mask"] if values["mask"].lower() not in _UNKNOWN else None
    if mask is not None and not _is_file(mask):
        reading.error("missing mask", f"{where}: the mask {mask} of {values['image']} does not exist", mask)
        mask = None
    label = _label(values["label"], mask)
    if label == 0 and mask is not None:
        reading.note("mask of a normal image", f"{where}: {values['image']} is normal; its mask is not read", path)
        mask = None
    category = values["category"] or reading.root.resolve().name
    reading.add(path, label, mask, category, values["defect"] or _defect(values["label"], label))


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - unlike the method, it takes any text for a path


def _label(text: str, mask: Path | None) -> int | None:
    if text.lower() in _UNKNOWN:
        return None if mask is None else 1
    return 0 if text.lower() in _NORMAL else 1


def _defect(text: str, label: int | None) -> str:
    """A label that is a word names the defect (VisA's list does this)."""
    return text if label == 1 and text.lower() not in _TRUE | _UNKNOWN else ""
