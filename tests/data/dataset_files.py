"""Tiny copies of every dataset's official layout."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (12, 10)  # width, height


def picture(path: Path, number: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """An image file of its own content for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, quality=95)
    return path


def mask(path: Path, value: int = 255, size: tuple[int, int] = SIZE, box: tuple[int, ...] = (2, 3, 5, 6)) -> Path:
    """A mask whose rows 2:5 and columns 3:6 hold `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((size[1], size[0]), np.uint8)
    values[box[0] : box[2], box[1] : box[3]] = value
    Image.fromarray(values).save(path, quality=95)
    return path


def mvtec(root: Path, categories: list[str], normal: str = "good", defect: str = "bad", suffix: str = "_mask"):
    for number, category in enumerate(categories):
        base = root / category
        for index in range(2):
            picture(base / "train" / normal / f"{index}.png", 900 + 10 * number + index)
            picture(base / "test" / normal / f"{index}.png", 100 + 10 * number + index)
        picture(base / "test" / defect / "7.png", 107 + 10 * number)
        mask(base / "ground_truth" / defect / f"7{suffix}.png")


def pairs(root: Path, images: str, masks: str, suffix: str = "", image: str = "png", truth: str = "png") -> None:
    for index in range(3):
        picture(root / images / f"a{index}.{image}", index)
        mask(root / masks / f"a{index}{suffix}.{truth}")


def labelled(root: Path, normal: str, anomalous: str, *others: str) -> None:
    for number, name in enumerate((normal, anomalous, *others)):
        for index in range(2 + number):
            picture(root / name / f"{name[:1]}{index} x.jpg", 10 * number + index)


def visa(root: Path, categories: list[str]) -> None:
    rows = [("object", "split", "label", "image", "mask")]
    for number, name in enumerate(categories):
        data = Path(name) / "Data"
        for index, split in enumerate(("train", "test", "test")):
            path = data / "Images" / "Normal" / f"{index:04d}.JPG"
            picture(root / path, 10 * number + index)
            rows.append((name, split, "normal", path.as_posix(), ""))
        path, truth = data / "Images" / "Anomaly" / "000.JPG", data / "Masks" / "Anomaly" / "000.png"
        picture(root / path, 10 * number + 5)
        mask(root / truth, value=2 + number)  # the number of the defect, not 255
        rows.append((name, "test", "bent", path.as_posix(), truth.as_posix()))
    (root / "split_csv").mkdir(parents=True)
    with (root / "split_csv" / "1cls.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)


def kolektor(root: Path) -> None:
    for part in range(2):
        for index in range(3):
            stem = root / f"kos{part + 1:02d}" / f"Part{index}"
            picture(stem.with_suffix(".jpg"), 10 * part + index)
            mask(stem.with_name(f"Part{index}_label.bmp"), value=255 if index == 2 and part == 0 else 0)


def dagm(root: Path, categories: list[str]) -> None:
    for number, name in enumerate(categories):
        for index in range(3):
            picture(root / name / "Test" / f"{index:04d}.PNG", 10 * number + index)
            picture(root / name / "Train" / f"{index:04d}.PNG", 500 + 10 * number + index)
        mask(root / name / "Test" / "Label" / "0001_label.PNG")
        mask(root / name / "Train" / "Label" / "0001_label.PNG")


def loco(root: Path, categories: list[str]) -> None:
    for number, name in enumerate(categories):
        picture(root / name / "test" / "good" / "000.png", 10 * number)
        for kind in ("logical_anomalies", "structural_anomalies"):
            picture(root / name / "test" / kind / "000.png", 10 * number + len(kind))
            mask(root / name / "ground_truth" / kind / "000" / "000.png", value=240)
            mask(root / name / "ground_truth" / kind / "000" / "001.png", value=7, box=(6, 0, 9, 2))


def ad2(root: Path, categories: list[str]) -> None:
    for number, name in enumerate(categories):
        test = root / name / "test_public"
        picture(test / "good" / "000_regular.png", 10 * number)
        picture(test / "bad" / "000_regular.png", 10 * number + 1)
        mask(test / "ground_truth" / "bad" / "000_regular_mask.png")
        picture(root / name / "test_private" / "000.png", 10 * number + 2)


def real_iad(root: Path, categories: list[str]) -> None:
    for number, name in enumerate(categories):
        rows = []
        for size in ("realiad_256", "realiad_512"):
            base = root / size / name
            picture(base / "OK" / "S1" / "ok.jpg", 10 * number)
            picture(base / "NG" / "AK" / "S2" / "ng.jpg", 10 * number + 1)
            mask(base / "NG" / "AK" / "S2" / "ng.png")
        rows.append({"category": name, "anomaly_class": "OK", "image_path": "OK/S1/ok.jpg", "mask_path": None})
        bad = {"category": name, "anomaly_class": "AK", "image_path": "NG/AK/S2/ng.jpg"}
        rows.append({**bad, "mask_path": "NG/AK/S2/ng.png"})
        lists = root / "realiad_jsons" / "realiad_jsons"
        lists.mkdir(parents=True, exist_ok=True)
        content = {"meta": {"prefix": f"{name}/", "normal_class": "OK"}, "train": rows[:1], "test": rows}
        (lists / f"{name}.json").write_text(json.dumps(content))


def headct(root: Path) -> None:
    for index in range(4):
        picture(root / "head_ct" / "head_ct" / f"{index:03d}.png", index)
    (root / "labels.csv").write_text("id, hemorrhage\n0, 1\n1, 1\n2, 1\n3, 0\n")


def bmad(root: Path) -> None:
    picture(root / "test" / "good" / "img" / "1.png", 1)
    picture(root / "test" / "Ungood" / "img" / "2.png", 2)
    mask(root / "test" / "Ungood" / "label" / "2.png")


def elpv(root: Path) -> None:
    lines = ["images/cell1.png  1.0  mono", "images/cell2.png  0.0  poly", "images/cell3.png  0.3333333333333333  poly"]
    for index in range(3):
        picture(root / "data" / "images" / f"cell{index + 1}.png", index)
    (root / "data" / "labels.csv").write_text("\n".join(lines) + "\n")


def coco(file: Path) -> None:
    for index in range(3):
        picture(file.parent / f"{index}.jpg", index)
    width, height = SIZE
    images = [{"id": i, "file_name": f"{i}.jpg", "width": width, "height": height} for i in range(3)]
    runs = {"size": [height, width], "counts": [width * height - 20, 20]}
    annotations = [
        {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [[2, 2, 8, 2, 8, 6, 2, 6]]},
        {"id": 2, "image_id": 0, "category_id": 1, "segmentation": runs, "iscrowd": 1},
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "scratch"}]}
    file.write_text(json.dumps(content))


def manifest(file: Path) -> None:
    picture(file.parent / "a.png", 1)
    picture(file.parent / "b.png", 2)
    mask(file.parent / "b_mask.png")
    file.write_text("image,label,mask,category\na.png,0,,cup\nb.png,1,b_mask.png,cup\n")


# name: (writer(root, categories of the entry), expected normal, anomalous and masked images in its first category)
Writer = Callable[[Path, list[str]], None]
LAYOUTS: dict[str, tuple[Writer, tuple[int, int, int]]] = {
    "mvtec": (mvtec, (2, 1, 1)),
    "mvtec-ad2": (ad2, (1, 1, 1)),
    "mvtec-loco": (loco, (1, 2, 2)),
    "visa": (visa, (2, 1, 1)),
    "mpdd": (mvtec, (2, 1, 1)),
    "btad": (lambda root, names: mvtec(root, names, "ok", "ko", ""), (2, 1, 1)),
    "dtd-synthetic": (mvtec, (2, 1, 1)),
    "sdd": (lambda root, _: kolektor(root), (5, 1, 1)),
    "sdd-anomalyclip": (mvtec, (2, 1, 1)),
    "sdd-dra": (mvtec, (2, 1, 1)),
    "sdd-adaclip": (mvtec, (2, 1, 1)),
    "dagm": (dagm, (2, 1, 1)),
    "dagm-adaclip": (lambda root, _: mvtec(root, ["Class1"]), (2, 1, 1)),
    "dagm-bayes": (lambda root, _: mvtec(root, ["Class1"]), (2, 1, 1)),
    "real-iad": (real_iad, (1, 1, 1)),
    "elpv": (lambda root, _: elpv(root), (1, 1, 0)),
    "conformal": (
        lambda root, _: labelled(root / "data" / "textile_images" / "simulated", "nominal", "local", "global"),
        (2, 3, 0),
    ),
    "isic": (
        lambda root, _: pairs(
            root,
            "ISBI2016_ISIC_Part1_Test_Data",
            "ISBI2016_ISIC_Part1_Test_GroundTruth",
            "_Segmentation",
            "jpg",
        ),
        (0, 3, 3),
    ),
    "isic2018": (
        lambda root, _: pairs(
            root, "ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth", "_segmentation", "jpg"
        ),
        (0, 3, 3),
    ),
    "cvc-colondb": (lambda root, _: pairs(root, "images", "masks"), (0, 3, 3)),
    "cvc-clinicdb": (
        lambda root, _: pairs(root, "Original", "Ground Truth", image="tif", truth="tif"),
        (0, 3, 3),
    ),
    "kvasir": (lambda root, _: pairs(root, "images", "masks", image="jpg", truth="jpg"), (0, 3, 3)),
    "endo": (lambda root, _: pairs(root, "images", "masks", image="jpg", truth="jpg"), (0, 3, 3)),
    "tn3k": (lambda root, _: pairs(root, "test-image", "test-mask", image="jpg", truth="jpg"), (0, 3, 3)),
    "headct": (lambda root, _: headct(root), (1, 3, 0)),
    "brainmri": (lambda root, _: labelled(root / "brain_tumor_dataset", "no", "yes"), (2, 3, 0)),
    "brainmri-bayes": (lambda root, _: mvtec(root, ["brain"]), (2, 1, 0)),
    "bmad-brain": (lambda root, _: bmad(root), (1, 1, 1)),
    "br35h": (lambda root, _: labelled(root, "no", "yes", "pred"), (2, 3, 0)),
    "covid-19": (lambda root, _: labelled(root, "NORMAL", "COVID-19", "Viral Pneumonia"), (2, 3, 0)),
    "covid-19-2021": (lambda root, _: labelled(root, "Normal", "COVID", "Lung_Opacity"), (2, 3, 0)),
    "folder": (lambda root, _: mvtec(root, ["cup"]), (2, 1, 1)),
    "manifest": (lambda root, _: manifest(root / "manifest.csv"), (1, 1, 1)),
    "coco": (lambda root, _: coco(root / "annotations.json"), (2, 1, 1)),
}


def write_layout(name: str, root: Path, categories: list[str]) -> tuple[int, int, int]:
    """Write a tiny copy of the dataset; what its first category should hold."""
    root.mkdir(parents=True, exist_ok=True)
    writer, expected = LAYOUTS[name]
    writer(root, categories)
    return expected
