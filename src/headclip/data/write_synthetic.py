"""The synthetic set as files: MVTec layout, masks, captions. Can be stopped and continued at any point."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from headclip.csv_text import CsvText
from headclip.data.synthetic import Sample, SyntheticDataset
from headclip.data.synthetic.photographs import Photographs
from headclip.data.synthetic.renderer import RENDERER_VERSION
from headclip.errors import InputError
from headclip.files import load_json, parse_json, write_atomically

SETTINGS, METADATA, CAPTIONS = "synthetic.json", "metadata.jsonl", "captions.csv"
_FIELDS = ("image", "mask", "label", "defect", "family", "noun", "seed", "caption")


@dataclass(frozen=True)
class Written:
    """How many pictures are there now, and how many of them this call made."""

    total: int
    new: int


def write_synthetic(
    out: str | Path,
    count: int,
    size: int = 224,
    seed: int = 0,
    defect_rate: float = 0.5,
    *,
    family: str | None = None,
    defect: str | None = None,
    photographs: Photographs | None = None,
    progress: Callable[[int], None] | None = None,
) -> Written:
    """Write `count` rendered pictures of `size` px below `out`; family, defect: of this kind alone; photographs: what
    is shown in place of rendered scenes, as often as their `share` says.

    `test/good/NNNNNN.png`, `test/DEFECT/NNNNNN.png`, `ground_truth/DEFECT/NNNNNN_mask.png`; `metadata.jsonl`
    and `captions.csv` say of each what it shows; `synthetic.json` keeps the settings. Picture N is item N of the
    `SyntheticDataset` of the same settings, so a larger count continues a smaller one. What is there already is
    kept; every file appears whole or not at all.

    Raises:
        InputError: `out` holds a set with other settings, or files that are not such a set; a bad number, an unknown
            family or defect; a family beside photographs; `out` lies among the photographs.
        ImageError: no photograph can be read.
    """
    folder = Path(out)
    samples = SyntheticDataset(seed, count, size, defect_rate, family=family, defect=defect, photographs=photographs)
    facts = {"seed": seed, "size": size, "defect_rate": defect_rate, "renderer": RENDERER_VERSION}
    kinds = {"family": family, "defect": defect}
    if photographs is not None:
        if folder.resolve().is_relative_to(photographs.folder.resolve()):
            raise InputError(f"{folder} lies among the photographs, and would be taken for some; choose another folder")
        kinds["photographs"] = photographs.fingerprint()
    _settle(folder, facts | {key: value for key, value in kinds.items() if value is not None})
    rows = {index: row for index, row in _read_rows(folder).items() if (folder / row["image"]).is_file()}
    _write_rows(folder, rows)
    new = 0
    with (folder / METADATA).open("a", encoding="utf-8") as log:
        for index in range(count):
            if index not in rows:
                rows[index] = _write(folder, index, samples[index])
                log.write(json.dumps(rows[index]) + "\n")
                log.flush()
                new += 1
            if progress is not None:
                progress(index + 1)
    _write_rows(folder, rows)  # in order
    _write_captions(folder, rows)
    return Written(len(rows), new)


def _settle(folder: Path, settings: dict[str, Any]) -> None:
    """Keep the settings, or see that they are those of the set that is there."""
    file = folder / SETTINGS
    if file.is_file():
        try:
            found = load_json(file)
        except ValueError as error:
            raise InputError(f"{file} is damaged: {error}; choose another folder, or empty this one") from error
        if not isinstance(found, dict):
            raise InputError(f"{file} holds no settings; choose another folder, or empty this one")
        if found != settings:
            different = ", ".join(
                f"{key} {found.get(key)} (now {value})" for key, value in settings.items() if found.get(key) != value
            )
            raise InputError(f"{folder} holds a set with other settings: {different}; choose another folder")
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no synthetic set; choose another folder")
    else:
        write_atomically(file, json.dumps(settings, indent=1) + "\n")


def write_picture(folder: Path, name: str, image: Tensor, mask: Tensor, defect: str) -> tuple[str, str]:
    """One picture (3, H, W) uint8 and, with a defect, its mask (H, W) bool as MVTec files; "" is a sound one.

    Their places below `folder`, "" for no mask. The picture comes last: where it is, all of it is.
    """
    kind = defect.replace(" ", "_") or "good"
    picture, truth = f"test/{kind}/{name}.png", f"ground_truth/{kind}/{name}_mask.png" if defect else ""
    if truth:
        write_atomically(folder / truth, _png(mask.numpy().astype(np.uint8) * 255))
    write_atomically(folder / picture, _png(image.permute(1, 2, 0).contiguous().numpy()))  # to (H, W, 3)
    return picture, truth


def _write(folder: Path, index: int, sample: Sample) -> dict[str, Any]:
    image, mask = write_picture(folder, f"{index:06d}", sample.image, sample.mask, sample.defect)
    facts = (image, mask, sample.label, sample.defect, sample.family, sample.noun, sample.seed, sample.caption)
    return {"index": index, **dict(zip(_FIELDS, facts, strict=True))}


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _read_rows(folder: Path) -> dict[int, dict[str, Any]]:
    """The rows written so far; a damaged line, such as a last one that a kill cut short, is left out and made again."""
    file = folder / METADATA
    rows: dict[int, dict[str, Any]] = {}
    for line in file.read_bytes().splitlines() if file.is_file() else []:
        try:
            row = parse_json(line)
            if set(row) == {"index", *_FIELDS} and isinstance(row["image"], str):
                rows[int(row["index"])] = row
        except (ValueError, KeyError, TypeError):
            continue
    return rows


def _write_rows(folder: Path, rows: dict[int, dict[str, Any]]) -> None:
    lines = [json.dumps(rows[index]) + "\n" for index in sorted(rows)]
    write_atomically(folder / METADATA, "".join(lines))


def _write_captions(folder: Path, rows: dict[int, dict[str, Any]]) -> None:
    text = CsvText()
    writer = csv.DictWriter(text, _FIELDS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows[index] for index in sorted(rows))
    write_atomically(folder / CAPTIONS, text.getvalue())
