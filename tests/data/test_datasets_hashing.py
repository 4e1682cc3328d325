"""Fingerprints and leakage between training and target sets."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.dataset_files import mvtec, picture
from headclip.data.datasets import open_dataset, open_spec
from headclip.data.decode import decode
from headclip.data.hashing import (
    NEAR_DISTANCE,
    TrainingHashes,
    _count_bits,
    file_hash,
    leakage,
    near_pairs,
    perceptual_hash,
)
from headclip.errors import InputError


def smooth(seed: int, side: int = 256) -> np.ndarray:
    """A picture with structure at every scale, as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side))
    for cells in (3, 6, 12, 24):
        grid = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        total += np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC)) / cells**0.5
    total = (total - total.min()) / np.ptp(total) * 255
    return np.repeat(total.astype(np.uint8)[:, :, None], 3, axis=2)


def copied(image: np.ndarray, quality: int = 60) -> np.ndarray:
    buffer = io.BytesIO()
    half = Image.fromarray(image).resize((image.shape[1] // 2, image.shape[0] // 2), Image.Resampling.BICUBIC)
    half.save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def bits(first: int | None, second: int | None) -> int:
    assert first is not None
    assert second is not None
    return (first ^ second).bit_count()


def test_file_hash(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_copies_are_near_and_others_far():
    pictures = [smooth(seed) for seed in range(20)]
    looks = [perceptual_hash(image) for image in pictures]
    assert max(bits(look, perceptual_hash(copied(image))) for look, image in zip(looks, pictures, strict=True)) <= 4
    apart = [bits(looks[i], looks[j]) for i in range(20) for j in range(i)]
    assert min(apart) > NEAR_DISTANCE
    assert all(look is not None and look < 1 << 63 for look in looks)


def test_brightness_and_contrast_do_not_matter():
    image = smooth(1)
    darker = (image * 0.5 + 20).astype(np.uint8)
    assert bits(perceptual_hash(image), perceptual_hash(darker)) <= NEAR_DISTANCE


def test_flat_pictures_have_no_look():
    assert perceptual_hash(np.full((20, 30, 3), 77, np.uint8)) is None


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=8), st.lists(st.integers(0, 2**64 - 1), max_size=8))
def test_near_pairs_are_all_pairs_within_the_distance(first, second):
    for distance in (0, 4, 30, 64):
        expected = {
            (i, j, (a ^ b).bit_count())
            for i, a in enumerate(first)
            for j, b in enumerate(second)
            if (a ^ b).bit_count() <= distance
        }
        assert set(near_pairs(first, second, distance)) == expected


def test_near_pairs_in_blocks(monkeypatch):
    monkeypatch.setattr("headclip.data.hashing._CHUNK", 4)
    values = [number * 0x9E3779B97F4A7C15 % 2**64 for number in range(50)]
    assert near_pairs(values, values, 0) == [(i, i, 0) for i in range(50)]


def test_bits_without_the_function_of_new_numpy(monkeypatch):
    values = np.array([[0, 1, 2**64 - 1], [2**63, 0xF0F0, 12345678901234567]], dtype=np.uint64)
    expected = [[int(value).bit_count() for value in row] for row in values]
    assert _count_bits(values).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert _count_bits(values).tolist() == expected


@pytest.fixture
def target(tmp_path) -> Path:
    mvtec(tmp_path, ["cup"])
    for index in range(2):
        Image.fromarray(smooth(index)).save(tmp_path / f"cup/test/good/{index}.png")
    return tmp_path / "cup"


def training_of(paths: list[Path], name: str = "other") -> TrainingHashes:
    data = {
        "name": name,
        "files": {path.name: file_hash(path) for path in paths},
        "looks": {path.name: f"{perceptual_hash(decode(path)):016x}" for path in paths},
    }
    return TrainingHashes.from_metadata(data)


def test_leakage_by_file_by_look_and_by_name(target, tmp_path):
    same = tmp_path / "same.png"
    same.write_bytes((target / "test/good/0.png").read_bytes())
    Image.fromarray(copied(smooth(1))).save(tmp_path / "near.jpg", quality=90)
    fresh = picture(tmp_path / "fresh.png", 77)
    data = open_dataset("folder", target)
    done = []
    found = leakage(
        training_of([same, tmp_path / "near.jpg", fresh]), data.info.title, data.records, progress=done.append
    )
    assert [(shared.training, shared.target.name, shared.bits) for shared in found.exact] == [("same.png", "0.png", 0)]
    assert [(shared.training, shared.target.name) for shared in found.near] == [("near.jpg", "1.png")]
    assert found.found
    assert found.same_name is None
    assert found.compared == (True, True)
    assert done == [1, 2, 3]
    text = found.sentence()
    assert "1 identical image(s)" in text
    assert "1 near-identical image(s)" in text


def test_no_leakage(target, tmp_path):
    data = open_dataset("folder", target)
    found = leakage(training_of([picture(tmp_path / "fresh.png", 77)]), "cup", data.records)
    assert not found.found
    assert found.sentence() == ""


@pytest.mark.parametrize(
    ("name", "target_name", "same"),
    [
        ("mvtec_anomaly_detection", "mvtec", True),
        ("SDD of AnomalyCLIP", "sdd", True),
        ("VisA", "mvtec", False),
        ("synthetic", "mvtec", False),
    ],
)
def test_leakage_by_name_alone(name, target_name, same):
    found = leakage(TrainingHashes.from_metadata({"name": name, "fingerprint": "x"}), target_name, [])
    assert found.found is same
    assert found.compared == (False, False)
    assert ("the same dataset" in found.sentence()) is same


@pytest.mark.parametrize(("name", "same"), [("data", False), ("folder", False), ("coco", False), ("MVTec AD", True)])
def test_folders_of_one_name_are_not_one_dataset(target, tmp_path, name, same):
    """Where there are fingerprints to compare, only the name of a published dataset says something."""
    records = open_dataset("folder", target).records
    training = training_of([picture(tmp_path / "fresh.png", 77)], name)
    found = leakage(training, name, records)
    assert found.found is same
    assert ("the same dataset" in found.sentence()) is same
    assert leakage(TrainingHashes(names=(name,), files=training.files), name, records).found is same


def test_a_damaged_training_record():
    with pytest.raises(InputError, match="damaged"):
        TrainingHashes.from_metadata({"name": "a", "looks": {"x": "no hex"}})
    with pytest.raises(InputError, match="64 bits"):
        TrainingHashes.from_metadata({"name": "a", "looks": {"x": "1" + 16 * "0"}})


@pytest.mark.realdata
@pytest.mark.parametrize("folder", ["Kvasir-SEG", "ISIC2018"])
def test_real_images(folder):
    base = os.environ.get("HEADCLIP_REAL_DATA")
    if base is None or not (Path(base) / folder).is_dir():
        pytest.skip(f"HEADCLIP_REAL_DATA names no folder with {folder}")
    images = [decode(record.path) for record in open_spec(str(Path(base) / folder)).records[:60]]
    looks = [perceptual_hash(image) for image in images]
    copies = [bits(look, perceptual_hash(copied(image))) for look, image in zip(looks, images, strict=True)]
    assert np.mean(np.array(copies) <= NEAR_DISTANCE) >= 0.95
    assert min(bits(looks[i], looks[j]) for i in range(len(looks)) for j in range(i)) > NEAR_DISTANCE


def test_what_was_learnt_before_counts_as_well():
    first = {"name": "one", "files": {"a.png": "1" * 64}, "looks": {"a.png": "f" * 16}}
    second = {"name": "two", "files": {"a.png": "2" * 64}, "earlier": first}
    found = TrainingHashes.from_metadata({"name": "synthetic", "earlier": second})
    assert found.names == ("synthetic", "two", "one")
    assert found.files == {"two: a.png": "2" * 64, "one: a.png": "1" * 64}
    assert found.looks == {"one: a.png": 2**64 - 1}
