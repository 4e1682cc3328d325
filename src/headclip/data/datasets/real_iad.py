"""Real-IAD: thirty objects from five cameras, by its JSON lists."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import add_masked
from headclip.data.reading import Reading
from headclip.errors import InputError
from headclip.files import load_json

SIZES = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw")
LISTS = ("realiad_jsons/realiad_jsons", "realiad_jsons")


@dataset(
    "real-iad",
    title="Real-IAD",
    aliases=("realiad",),
    domain="industrial",
    level="both",
    layout="realiad_jsons/CATEGORY.json and one of realiad_1024/, realiad_512/, realiad_256/",
    categories=(
        "audiojack",
        "bottle_cap",
        "button_battery",
        "end_cap",
        "eraser",
        "fire_hood",
        "mint",
        "mounts",
        "pcb",
        "phone_battery",
        "plastic_nut",
        "plastic_plug",
        "porcelain_doll",
        "regulator",
        "rolled_strip_base",
        "sim_card_set",
        "switch",
        "tape",
        "terminalblock",
        "toothbrush",
        "toy",
        "toy_brick",
        "transistor1",
        "u_block",
        "usb",
        "usb_adaptor",
        "vcpill",
        "wooden_beads",
        "woodstick",
        "zipper",
    ),
    normal=63_256,
    anomalous=51_329,
    licence="CC BY-NC-SA 4.0",
    source="Wang et al., CVPR 2024; realiad4ad.github.io",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """The test rows of each category's list; the largest resolution present is read, and noted."""
    sizes = [name for name in SIZES if (root / name).is_dir()]
    lists = next((root / name for name in LISTS if list((root / name).glob("*.json"))), None)
    if not sizes or lists is None:
        return
    reading.note("resolution", f"images are read from {sizes[0]}; also there: {', '.join(sizes[1:]) or 'none'}")
    for file in sorted(lists.glob("*.json")):
        if (root / sizes[0] / file.stem).is_dir():
            _read_list(reading, file, root / sizes[0])
        else:
            reading.problem("missing folder", f"{sizes[0]}/{file.stem} is missing, although {file.name} is there")


def _read_list(reading: Reading, file: Path, images: Path) -> None:
    try:
        content = load_json(file)
        base = images / content.get("meta", {}).get("prefix", f"{file.stem}/")
        normal = content.get("meta", {}).get("normal_class", "OK")
        rows = [(row["image_path"], row["anomaly_class"], row.get("mask_path")) for row in content["test"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not a list of Real-IAD: {type(error).__name__} {error}") from None
    for image, kind, mask in rows:
        path, mask_path = base / image, base / mask if mask else None
        if not path.is_file():
            reading.error("missing image", f"{file.name} names {reading.shown(path)}, which does not exist", path)
        elif kind == normal:
            reading.add(path, 0, None, file.stem)
        elif mask_path is not None and not mask_path.is_file():
            where = f"{file.name} names the mask {reading.shown(mask_path)}, which does not exist"
            reading.error("missing mask", where, mask_path)
            reading.add(path, 1, None, file.stem, kind)
        else:
            add_masked(reading, path, mask_path, file.stem, kind)
