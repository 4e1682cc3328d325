"""What reads foreign input, each with sound files to start from and the way in which they are damaged.

A target is a function of bytes. It returns, or raises a HeadclipError; anything else is a fault of headclip.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzzing.mutate import (
    damage_bytes,
    damage_csv,
    damage_json,
    damage_png,
    damage_tiff,
)
from headclip.data.formats import HAS_AVIF
from headclip.errors import HeadclipError

Damage = Callable[[bytes, random.Random], bytes]
MAX_PIXELS = 4_000_000  # of an image in these tests, so that what is refused and what is decoded both happen


@dataclass(frozen=True)
class Target:
    """seeds: sound files; damages: which way each may be damaged; read: takes the content of a damaged one."""

    name: str
    seeds: Sequence[bytes]
    damages: Sequence[Damage]
    read: Callable[[bytes], object]

    def make(self, chance: random.Random) -> bytes:
        """One input: now and then a sound one or nothing but noise, mostly a damaged one."""
        what = chance.random()
        if what < 0.01:
            return chance.choice(self.seeds)
        if what < 0.04:
            return chance.randbytes(chance.choice((0, 1, 7, 100, 5000)))
        content = chance.choice(self.seeds)
        for _ in range(chance.choice((1, 1, 2))):
            try:
                content = chance.choice(self.damages)(content, chance)
            except Exception:  # too damaged for its own structure
                content = damage_bytes(content, chance)
        return content

    def try_one(self, content: bytes) -> bool:
        """True for a result, False for a HeadclipError.

        Raises:
            Exception: whatever else comes out, which is what is looked for.
        """
        try:
            self.read(content)
        except HeadclipError as error:
            if not str(error).strip():
                raise AssertionError(f"{type(error).__name__} without a word") from error
            return False
        return True


def make_targets(folder: Path) -> dict[str, Target]:
    """All targets by name; they work in `folder`."""
    from fuzzing import targets_merge, targets_models, targets_runs, targets_volumes, targets_web

    targets = [
        *_image_targets(),
        *_manifest_targets(folder / "manifests"),
        *targets_models.make(folder / "models"),
        *targets_runs.make(folder / "runs"),
        *targets_merge.make(folder / "merge"),
        *targets_volumes.make(folder / "volumes"),
        *targets_web.make(),
    ]
    return {target.name: target for target in targets}


# --- images


def _image_targets() -> list[Target]:
    seeds = image_seeds()
    groups: dict[str, tuple[Damage, ...]] = {
        "PNG": (damage_bytes, damage_png, damage_png),
        "TIFF": (damage_bytes, damage_tiff, damage_tiff),
        "JPEG": (damage_bytes,),
        "BMP": (damage_bytes,),
        "WEBP": (damage_bytes,),
        **({"AVIF": (damage_bytes,)} if HAS_AVIF else {}),
    }
    return [Target(f"decode {kind}", seeds[kind], damages, _decode) for kind, damages in groups.items()]


def _decode(content: bytes) -> None:
    from headclip.data.decode import decode

    pixels = decode(content, max_pixels=MAX_PIXELS)
    assert pixels.dtype == np.uint8, pixels.dtype
    assert pixels.ndim == 3, pixels.shape
    assert pixels.shape[2] == 3, pixels.shape
    assert pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS, pixels.shape


def image_seeds() -> dict[str, list[bytes]]:
    """Small pictures in the forms that the formats have."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 255, (24, 30, 3), dtype=np.uint8))
    grey, alpha, deep = (
        colour.convert("L"),
        colour.convert("RGBA"),
        Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)),
    )
    floats = Image.fromarray(rng.random((20, 30)).astype(np.float32))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    frames: dict[str, Any] = {"save_all": True, "append_images": [colour.rotate(90), colour.rotate(180)]}
    plain: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        "PNG": [(colour, {}), (grey, {}), (alpha, {}), (deep, {}), (colour.quantize(8), {"transparency": 0}),
                (colour.convert("1"), {}), (colour, {"exif": exif, "icc_profile": b"\0" * 200}), (colour, frames)],
        "TIFF": [(colour, {}), (deep, {}), (floats, {}), (alpha, {}), (grey, {"compression": "tiff_lzw"}),
                 (colour, {"compression": "jpeg"}), (deep, {"compression": "tiff_adobe_deflate"}),
                 (colour.convert("1"), {"compression": "group4"}), (colour, {"big_tiff": True}), (colour, frames),
                 (colour, {"exif": exif}), (colour.convert("CMYK"), {})],
        "JPEG": [(colour, {}), (grey, {}), (colour, {"progressive": True}), (colour.convert("CMYK"), {}),
                 (colour, {"exif": exif, "icc_profile": b"\0" * 200})],
        "BMP": [(colour, {}), (grey, {}), (colour.quantize(8), {}), (colour.convert("1"), {}), (alpha, {})],
        "WEBP": [(colour, {}), (alpha, {"lossless": True}), (colour, frames), (colour, {"exif": exif})],
        **({"AVIF": [(colour, {}), (alpha, {}), (colour, frames), (colour, {"exif": exif})]} if HAS_AVIF else {}),
    }  # fmt: skip
    found: dict[str, list[bytes]] = {}
    for kind, pictures in plain.items():
        for picture, options in pictures:
            buffer = io.BytesIO()
            picture.save(buffer, kind, **options)
            found.setdefault(kind, []).append(buffer.getvalue())
    return found


# --- manifests


def _manifest_targets(folder: Path) -> list[Target]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.png", "m.png"):
        Image.fromarray(np.full((20, 30), 200, np.uint8)).save(folder / name)
    rows = [
        {"image": "a.png", "label": 0, "category": "cup", "split": "test"},
        {"image": "b.png", "label": "scratch", "mask": "m.png", "category": "cup", "split": "test"},
    ]
    listed = [
        {"img_path": "a.png", "mask_path": "", "anomaly": 0},
        {"img_path": "b.png", "mask_path": "m.png", "anomaly": 1},
    ]
    meta = {"train": {"cup": []}, "test": {"cup": listed}}
    outline = [
        {"id": 1, "image_id": 2, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]]},
        {"id": 2, "image_id": 2, "category_id": 1, "segmentation": {"size": [20, 30], "counts": [100, 20, 480]}},
        {"id": 3, "image_id": 2, "category_id": 1, "segmentation": {"size": [20, 30], "counts": "T3d0P?"}},
    ]
    coco = {
        "images": [
            {"id": number, "file_name": name, "height": 20, "width": 30}
            for number, name in ((1, "a.png"), (2, "b.png"))
        ],
        "annotations": outline[:2],
        "categories": [{"id": 1, "name": "scratch"}],
    }
    header = list(rows[1])
    table = "\n".join(",".join(str(row.get(key, "")) for key in header) for row in ({k: k for k in header}, *rows))

    def read(ending: str) -> Callable[[bytes], None]:
        def read_one(content: bytes) -> None:
            file = folder / f"list{ending}"
            file.write_bytes(content)
            _read_manifest(file)

        return read_one

    as_json = [
        json.dumps(value).encode()
        for value in (rows, {"records": rows}, meta, coco, {**coco, "annotations": outline[2:]})
    ]
    return [
        Target("manifest CSV", [table.encode() + b"\n"], (damage_csv, damage_csv, damage_bytes), read(".csv")),
        Target("manifest JSON", as_json, (damage_json,), read(".json")),
    ]


def _read_manifest(file: Path) -> None:
    from headclip.data.manifest import read_manifest
    from headclip.data.reading import Reading
    from headclip.data.records import record_mask

    reading = Reading(file.parent)
    read_manifest(reading, file)
    for record in reading.records:
        assert record.label in (0, 1, None), record.label
        mask = record_mask(record, (20, 30))
        assert mask is None or mask.shape == (20, 30)
    reading.labels()


def rewrite_zip(content: bytes, chance: random.Random) -> bytes:
    """A zip archive with one entry damaged and the check sums right again, or claims of other sizes."""
    what = chance.random()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    name = chance.choice(list(entries))
    pack = zipfile.ZIP_STORED
    if what < 0.6:
        entries[name] = damage_bytes(entries[name], chance)
    elif what < 0.7:
        del entries[name]
    elif what < 0.8:
        pack = zipfile.ZIP_DEFLATED
        entries[name] = bytes(chance.choice((100, 1 << 20, 32 << 20)))
    else:
        return damage_bytes(content, chance)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", pack) as archive:
        for key, value in entries.items():
            archive.writestr(key, value)
    return buffer.getvalue()


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
