"""Labels and masks of every dataset layout."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headclip.data.folders import read_dataset, read_mask
from headclip.errors import ImageError, InputError
from headclip.inference.predict import predict_run
from inference.fake_detector import FakeDetector


def write(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(path)
    return root


def table(root: Path, **options) -> list[tuple[str, int | None, str | None, str]]:
    return [
        (
            record.path.relative_to(root).as_posix(),
            record.label,
            None if record.mask is None else record.mask.relative_to(root).as_posix(),
            record.category,
        )
        for record in read_dataset(root, **options)
    ]


def test_mvtec_with_several_categories(tmp_path):
    for category in ("bottle", "metal nut"):
        write(
            tmp_path / category,
            "train/good/000.png",
            "test/good/000.png",
            "test/crack/000.png",
            "test/crack/001.png",
            "ground_truth/crack/000_mask.png",
            "ground_truth/crack/001_mask.png",
        )
    rows = table(tmp_path)
    assert len(rows) == 6
    assert rows[1] == ("bottle/test/crack/001.png", 1, "bottle/ground_truth/crack/001_mask.png", "bottle")
    assert rows[5] == ("metal nut/test/good/000.png", 0, None, "metal nut")
    assert not any("train" in row[0] for row in rows)


def test_single_category_and_masks_by_name_not_by_order(tmp_path):
    write(tmp_path / "cup", "test/ok/1.jpg", "test/bad/2.jpg", "test/bad/10.jpg", "test/bad/9.jpg")
    write(tmp_path / "cup", *(f"ground_truth/bad/{name}_mask.png" for name in (10, 2, 9, 77)))
    masks = {Path(path).stem: mask for path, label, mask, _ in table(tmp_path / "cup") if label == 1}
    assert masks == {name: f"ground_truth/bad/{name}_mask.png" for name in ("2", "9", "10")}


def test_missing_masks_are_reported(tmp_path):
    write(tmp_path, "test/good/0.png", "test/cut/1.png", "test/cut/2.png", "ground_truth/cut/1_mask.png")
    with pytest.raises(InputError, match=r"1 anomalous image.* no mask: test/cut/2.png"):
        read_dataset(tmp_path)
    assert [row[2] for row in table(tmp_path, allow_missing_masks=True)] == [
        "ground_truth/cut/1_mask.png",
        None,
        None,
    ]


def test_a_category_without_mask_folder_has_labels_only(tmp_path):
    write(tmp_path, "test/good/0.png", "test/cut/1.png")
    assert [(row[1], row[2]) for row in table(tmp_path)] == [(1, None), (0, None)]


def test_two_masks_for_one_image_are_an_error(tmp_path):
    write(tmp_path, "images/1.png", "masks/1_mask.png", "masks/1_segmentation.png")
    with pytest.raises(InputError, match="two masks fit"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(("mask", "suffix"), [("", "jpg"), ("_mask", "png"), ("_segmentation", "png")])
def test_images_beside_masks(tmp_path, mask, suffix):
    write(
        tmp_path,
        "images/a.jpg",
        "images/deep/a.jpg",
        f"masks/a{mask}.{suffix}",
        f"masks/deep/a{mask}.{suffix}",
    )
    assert table(tmp_path) == [
        ("images/a.jpg", 1, f"masks/a{mask}.{suffix}", tmp_path.name),
        ("images/deep/a.jpg", 1, f"masks/deep/a{mask}.{suffix}", tmp_path.name),
    ]


def test_an_exact_mask_name_goes_first(tmp_path):
    write(tmp_path, "images/a.png", "images/a_mask.png", "masks/a.png", "masks/a_mask.png")
    assert [(row[0], row[2]) for row in table(tmp_path)] == [
        ("images/a.png", "masks/a.png"),
        ("images/a_mask.png", "masks/a_mask.png"),
    ]


@pytest.mark.parametrize(("normal", "other"), [("no", "yes"), ("good", "bad"), ("Normal", "scratch")])
def test_normal_beside_anomalous(tmp_path, normal, other):
    write(tmp_path, f"{normal}/1.png", f"{other}/1.png", f"{other}/2.png", "train/0.png")
    labels = {row[0]: row[1] for row in table(tmp_path)}
    assert labels == {f"{normal}/1.png": 0, f"{other}/1.png": 1, f"{other}/2.png": 1}


def test_plain_folder_has_no_labels(tmp_path):
    write(tmp_path, "x/10.png", "x/9.png", "1.png")
    assert [row[:3] for row in table(tmp_path)] == [
        ("1.png", None, None),
        ("x/9.png", None, None),
        ("x/10.png", None, None),
    ]


def test_wrong_folders(tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        read_dataset(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_dataset(tmp_path / "nowhere")


def test_masks_become_bool(tmp_path):
    values = np.zeros((8, 8), np.uint8)
    values[2:4, 2:6] = 200
    values[6, 6] = 100  # what JPEG leaves around an edge
    path = tmp_path / "m.png"
    Image.fromarray(values).save(path)
    mask = read_mask(path)
    assert mask.dtype == np.bool_
    assert mask.sum() == 8
    np.testing.assert_array_equal(read_mask(path, threshold=50), values > 50)
    large = read_mask(path, size=(16, 24))
    assert large.shape == (16, 24)
    assert large.mean() == mask.mean()


def test_masks_of_other_kinds(tmp_path):
    truth = np.zeros((8, 8), bool)
    truth[1:3, 1:5] = True
    transparent = np.zeros((8, 8, 4), np.uint8)
    transparent[truth] = 255
    for number, content in enumerate(
        (truth, truth.astype(np.uint8), truth.astype(np.uint16) * 65535, transparent, truth * np.uint8(255))
    ):
        path = tmp_path / f"{number}.png"
        Image.fromarray(content).save(path)
        np.testing.assert_array_equal(read_mask(path), truth)
    empty = tmp_path / "empty.png"
    Image.new("L", (8, 8)).save(empty)
    assert not read_mask(empty).any()


def test_masks_of_class_numbers(tmp_path):
    values = np.zeros((8, 8), np.uint8)
    values[1:3, 1:5] = 2
    values[5, 5] = 100
    Image.fromarray(values).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), values > 0)


def test_a_broken_mask_is_named(tmp_path):
    (tmp_path / "m.png").write_text("no mask")
    with pytest.raises(ImageError, match=r"m\.png cannot be used"):
        read_mask(tmp_path / "m.png")


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("folder", "normal", "anomalous", "masks"),
    [("SDD", 347, 52, 52), ("BrainMRI", 98, 155, 0), ("Kvasir-SEG", 0, 160, 160), ("ISIC2018", 0, 80, 80)],
)
def test_real_sets(folder, normal, anomalous, masks):
    base = os.environ.get("HEADCLIP_REAL_DATA")
    if base is None or not (Path(base) / folder).is_dir():
        pytest.skip(f"HEADCLIP_REAL_DATA names no folder with {folder}")
    records = read_dataset(Path(base) / folder)
    assert sum(record.label == 0 for record in records) == normal
    assert sum(record.label == 1 for record in records) == anomalous
    assert sum(record.mask is not None for record in records) == masks


@pytest.mark.parametrize(
    "names",
    [
        ("good/1.png", "bad/2.png"),
        ("cup/test/good/1.png", "cup/test/bad/2.png"),
        ("test/good/1.png", "test/bad/2.png", "ground_truth/bad/2.png"),
        ("images/1.png", "masks/1.png"),
        ("1.png", "sub/2.png"),
    ],
)
def test_a_run_among_the_images_is_none_of_them(tmp_path, names):
    write(tmp_path, *names)
    before = table(tmp_path)
    for path in sorted({tmp_path, *(path.parent for path in tmp_path.rglob("*.png"))}):
        predict_run(FakeDetector(), [tmp_path / names[0]], path / "run")
    assert table(tmp_path) == before
    with pytest.raises(InputError, match=r"run is a run of headclip: .*name the images"):
        read_dataset(tmp_path / "run")
