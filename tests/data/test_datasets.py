"""Every registered dataset opens in its official layout; what does not fit is named."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.dataset_files import LAYOUTS, kolektor, labelled, mask, mvtec, pairs, picture, real_iad, write_layout
from headclip.data.datasets import (
    Dataset,
    dataset,
    datasets,
    find_dataset,
    open_dataset,
    open_spec,
    parse_spec,
    same_dataset,
)
from headclip.data.datasets.registry import _TABLE
from headclip.errors import InputError

NAMES = [info.name for info in datasets()]
PAPER = [
    "mvtec",
    "visa",
    "mpdd",
    "btad",
    "sdd-anomalyclip",
    "dagm",
    "dtd-synthetic",
    "isic",
    "cvc-colondb",
    "cvc-clinicdb",
    "kvasir",
    "endo",
    "tn3k",
    "headct",
    "brainmri",
    "br35h",
    "covid-19",
]


def messages(data: Dataset, kind: str) -> list[str]:
    return [finding.message for finding in data.findings if finding.kind == kind]


def write(name: str, root: Path) -> Path:
    write_layout(name, root, list(find_dataset(name).categories))
    return root


def test_every_dataset_has_a_tiny_copy_here():
    assert set(LAYOUTS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_official_layout(name, tmp_path):
    info = find_dataset(name)
    normal, anomalous, masked = write_layout(name, tmp_path / "copy", list(info.categories))
    data = open_dataset(name, tmp_path / "copy")
    assert data.missing_categories == []
    if info.categories:
        assert data.categories == list(info.categories)
    records = data.of(data.categories[0])
    assert [sum(record.label == label for record in records) for label in (0, 1)] == [normal, anomalous]
    assert sum(record.has_mask for record in records) == masked
    assert all(record.path.is_file() for record in data.records)
    assert not any("train" in data.relative(record.path).casefold().split("/") for record in data.records)
    for record in records:
        pixels = data.mask(record, (10, 12))
        if record.label == 0:
            assert pixels is not None
            assert not pixels.any()
        elif record.has_mask:
            assert pixels is not None
            assert pixels.any()
            assert not pixels.all()
    assert not [finding for finding in data.findings if finding.severity == "error"]


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_refused(name, tmp_path):
    with pytest.raises(InputError, match=str(tmp_path.name)):
        open_dataset(name, tmp_path)


@pytest.mark.parametrize("info", datasets(), ids=lambda info: info.name)
def test_what_is_known_fits_together(info):
    assert info.title
    assert info.licence
    assert info.layout
    if info.counts:
        assert tuple(info.counts) == info.categories
        assert sum(pair[0] for pair in info.counts.values()) == info.normal
        assert sum(pair[1] for pair in info.counts.values()) == info.anomalous
    if info.level == "pixel":
        assert info.normal == 0
    assert find_dataset(info.title).name == info.name
    assert find_dataset(info.family).family == info.family


def test_the_seventeen_of_the_paper():
    assert sorted(info.name for info in datasets() if info.paper) == sorted(PAPER)
    levels = {level: sum(find_dataset(name).level == level for name in PAPER) for level in ("both", "pixel", "image")}
    assert levels == {"both": 7, "pixel": 6, "image": 4}
    assert find_dataset("mvtec").counts["transistor"] == (60, 40)


def test_names_forgive_spelling_and_suggest():
    assert find_dataset("MVTec_AD").name == "mvtec"
    assert find_dataset("Kvasir-SEG").name == "kvasir"
    assert find_dataset("CVC ColonDB").name == "cvc-colondb"
    with pytest.raises(InputError, match="did you mean mvtec"):
        find_dataset("mvtek")
    with pytest.raises(InputError, match=r"unknown dataset 'zzzz'; `headclip data list`"):
        find_dataset("zzzz")
    assert same_dataset("SDD of AnomalyCLIP", "KSDD")
    assert not same_dataset("cvc-colondb", "cvc-clinicdb")
    assert same_dataset("my parts", "My_Parts")


def test_a_dataset_of_ones_own(tmp_path):
    @dataset("parts", title="Parts", domain="industrial", level="image", layout="a.png", counts={"part": (0, 1)})
    def read(root, reading, info):
        reading.add(picture(root / "a.png"), 1, None, "part")

    try:
        assert open_dataset("parts", tmp_path).total() == (0, 1)
    finally:
        del _TABLE["parts"]


def test_name_and_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    assert parse_spec("mvtec=x=y/z") == ("mvtec", Path("x=y/z"))
    assert parse_spec("a=b") == ("folder", Path("a=b"))
    for text, reason in {"mvtec": "neither", "mvtec=": "lacks a path", "=x": "lacks a name"}.items():
        with pytest.raises(InputError, match=reason):
            parse_spec(text)
    with pytest.raises(InputError, match="unknown dataset"):
        parse_spec("nothing=x")


def test_paths_that_are_no_dataset(tmp_path):
    with pytest.raises(InputError, match=r"MVTec AD: .*nowhere does not exist"):
        open_dataset("mvtec", tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a file"):
        open_dataset("mvtec", picture(tmp_path / "a.png"))
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"does not look like Kvasir-SEG: expected images/ and masks/; found other/"):
        open_dataset("kvasir", tmp_path)


def test_a_missing_category_is_named(tmp_path, caplog):
    mvtec(tmp_path, ["bottle", "cable"])
    with caplog.at_level(logging.WARNING, logger="headclip.data.datasets"):
        data = open_dataset("mvtec", tmp_path)
    assert data.categories == ["bottle", "cable"]
    assert len(data.missing_categories) == 13
    assert any("the category wood is missing" in text for text in messages(data, "missing category"))
    assert "and 12 more of this kind" in caplog.text


def test_the_folder_of_one_category(tmp_path):
    mvtec(tmp_path, ["bottle"])
    assert open_dataset("mvtec", tmp_path / "bottle").categories == ["bottle"]


def test_an_unknown_category_is_read_and_named(tmp_path):
    mvtec(tmp_path, ["bottle", "teapot"])
    data = open_dataset("mvtec", tmp_path)
    assert data.categories == ["bottle", "teapot"]
    assert messages(data, "unknown category") == ["the category teapot is not one of this dataset"]


def test_a_folder_of_other_categories_is_another_dataset(tmp_path):
    write("sdd-anomalyclip", tmp_path)  # MVTec folders of another set
    with pytest.raises(InputError, match="none of its categories is here: electrical commutators in the place of bott"):
        open_dataset("mvtec", tmp_path)
    assert messages(open_dataset("mvtec", tmp_path, lenient=True), "another dataset")


def test_an_image_without_mask_is_an_error_that_names_it(tmp_path):
    mvtec(tmp_path, ["bottle"])
    picture(tmp_path / "bottle/test/bad/8.png", 8)
    with pytest.raises(InputError, match=r"bottle/test/bad/8\.png has no mask"):
        open_dataset("mvtec", tmp_path)
    data = open_dataset("mvtec", tmp_path, lenient=True)
    assert [record.has_mask for record in data.records if record.label == 1] == [True, False]
    assert data.mask(data.records[1], (4, 4)) is None


def test_a_mask_without_image_is_named(tmp_path):
    mvtec(tmp_path, ["bottle"])
    mask(tmp_path / "bottle/ground_truth/bad/99_mask.png")
    mask(tmp_path / "bottle/ground_truth/ghost/1_mask.png")
    data = open_dataset("mvtec", tmp_path)
    assert messages(data, "mask without image") == [
        "the mask bottle/ground_truth/bad/99_mask.png belongs to no image",
        "bottle/ground_truth/ghost holds masks, but there is no test/ghost",
    ]


def test_masks_go_by_name_even_where_the_order_differs(tmp_path):
    pairs(tmp_path, "images", "masks")
    (tmp_path / "masks/a0.png").unlink()
    mask(tmp_path / "masks/zzz.png")  # as many masks as images: pairing by order would hide it
    with pytest.raises(InputError, match=r"images/a0\.png has no mask"):
        open_dataset("cvc-colondb", tmp_path)
    data = open_dataset("cvc-colondb", tmp_path, lenient=True)
    assert [record.mask and record.mask.name for record in data.records] == [None, "a1.png", "a2.png"]
    assert messages(data, "mask without image") == ["the mask masks/zzz.png belongs to no image"]


def test_two_masks_for_one_image(tmp_path):
    pairs(tmp_path, "images", "masks", "_mask")
    mask(tmp_path / "masks/a1_segmentation.png")
    with pytest.raises(InputError, match="two masks fit the image a1"):
        open_dataset("cvc-colondb", tmp_path)


def test_categories_with_one_kind_of_image(tmp_path):
    mvtec(tmp_path, ["bottle", "cable"])
    (tmp_path / "bottle/test/bad/7.png").unlink()
    for path in (tmp_path / "cable/test/good").iterdir():
        path.unlink()
    data = open_dataset("mvtec", tmp_path)
    assert messages(data, "only normal") == ["bottle has normal images only: no metric is defined for it"]
    assert messages(data, "only anomalous") == ["cable has no normal image: no image metric is defined for it"]
    assert messages(data, "empty folder") == ["bottle/test/bad holds no image"]


def test_a_category_without_masks(tmp_path):
    mvtec(tmp_path, ["bottle"])
    (tmp_path / "bottle/ground_truth").rename(tmp_path / "elsewhere")
    data = open_dataset("mvtec", tmp_path / "bottle")
    assert messages(data, "no masks") == ["bottle has no masks: no pixel metric is defined for it"]


def test_a_missing_mask_folder(tmp_path):
    pairs(tmp_path, "test-image", "test-mask")
    for path in (tmp_path / "test-mask").iterdir():
        path.unlink()
    (tmp_path / "test-mask").rmdir()
    with pytest.raises(InputError, match=r"expected test-image/ and test-mask/; found test-image/"):
        open_dataset("tn3k", tmp_path)


@pytest.mark.parametrize(("name", "other"), [("br35h", "pred"), ("covid-19", "Viral Pneumonia")])
def test_other_folders_are_noted_not_scored(name, other, tmp_path):
    labelled(tmp_path, "no" if name == "br35h" else "NORMAL", "yes" if name == "br35h" else "COVID-19", other)
    data = open_dataset(name, tmp_path)
    assert data.total() == (2, 3)
    assert messages(data, "other folder") == [f"{other}/ does not belong to the test images"]


def test_the_lung_masks_of_covid_are_not_images(tmp_path):
    for label in ("COVID", "Normal"):
        picture(tmp_path / label / "images" / "1.png", len(label))
        mask(tmp_path / label / "masks" / "1.png")
    assert open_dataset("covid-19-2021", tmp_path).total() == (1, 1)


def test_kolektor_labels_decide(tmp_path):
    kolektor(tmp_path)
    (tmp_path / "kos02/Part1_label.bmp").unlink()
    with pytest.raises(InputError, match=r"kos02/Part1\.jpg has no mask \(no Part1_label\.bmp\)"):
        open_dataset("sdd", tmp_path)
    (tmp_path / "kos01/Part0_label.bmp").write_text("broken")
    kinds = {finding.kind for finding in open_dataset("sdd", tmp_path, lenient=True).findings}
    assert {"image without mask", "unreadable mask"} <= kinds


def test_dagm_without_labels_is_not_all_normal(tmp_path):
    for index in range(3):
        picture(tmp_path / "Class1/Test" / f"{index}.PNG", index)
    with pytest.raises(InputError, match=r"Class1/Test has no Label/ folder"):
        open_dataset("dagm", tmp_path)


def test_loco_masks_are_united(tmp_path):
    data = open_dataset("mvtec-loco", write("mvtec-loco", tmp_path))
    record = next(record for record in data.records if record.label == 1)
    expected = np.zeros((10, 12), bool)
    expected[2:5, 3:6] = True
    expected[6:9, 0:2] = True
    np.testing.assert_array_equal(data.mask(record, (10, 12)), expected)


def test_visa_masks_hold_numbers(tmp_path):
    data = open_dataset("visa", write("visa", tmp_path))
    bent = [record for record in data.records if record.label == 1]
    assert {record.defect for record in bent} == {"bent"}
    assert {int(data.mask(record, (10, 12)).sum()) for record in bent} == {9}
    assert any("12 row(s) of 1cls.csv belong to 'train'" in text for text in messages(data, "other split"))


def test_jpeg_specks_are_not_anomalous(tmp_path):
    pairs(tmp_path, "images", "masks", image="jpg", truth="jpg")
    values = np.zeros((10, 12), np.uint8)
    values[2:5, 3:6] = 255
    Image.fromarray(values).save(tmp_path / "masks/a0.jpg", quality=30)
    stored = np.asarray(Image.open(tmp_path / "masks/a0.jpg"))
    assert (stored > 0).sum() > 9  # the specks are there
    data = open_dataset("kvasir", tmp_path)
    np.testing.assert_array_equal(data.mask(data.records[0], (10, 12)), stored > 127)


def test_a_dataset_is_shown_in_a_line(tmp_path):
    write("headct", tmp_path)
    shown = repr(open_dataset("headct", tmp_path))
    assert "title='HeadCT'" in shown
    assert "ImageRecord" not in shown


def test_headct_list(tmp_path):
    write("headct", tmp_path)
    (tmp_path / "labels.csv").write_text("id, hemorrhage\n0, 1\n1, 0\n9, 1\n")
    with pytest.raises(InputError, match="names the image 009"):
        open_dataset("headct", tmp_path)
    data = open_dataset("headct", tmp_path, lenient=True)
    assert len(messages(data, "image without label")) == 2
    for strange in ("maybe", "2"):
        (tmp_path / "labels.csv").write_text(f"id, hemorrhage\n0, {strange}\n")
        with pytest.raises(InputError, match=r"labels\.csv, line 2"):
            open_dataset("headct", tmp_path)
    (tmp_path / "labels.csv").write_text(f"id, hemorrhage\n0, {'1' * 200_000}\n")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        open_dataset("headct", tmp_path)


def test_isic_passes_over_hidden_folders(tmp_path):
    pairs(tmp_path, "skin/test/bad", "skin/ground_truth", "_segmentation", "jpg")
    (tmp_path / "skin/test/.ipynb_checkpoints").mkdir()
    assert open_dataset("isic", tmp_path).total() == (0, 3)


@pytest.mark.parametrize(("name", "file"), [("elpv", "data/labels.csv"), ("headct", "labels.csv")])
def test_a_list_that_is_not_utf8(tmp_path, name, file):
    write(name, tmp_path)
    list_file = next(tmp_path.rglob(file))
    list_file.write_bytes(list_file.read_bytes() + b"part\xe9\n")
    with pytest.raises(InputError, match="is not UTF-8"):
        open_dataset(name, tmp_path)


def test_a_list_of_real_iad_that_is_nested_too_deeply(tmp_path):
    real_iad(tmp_path, ["toy"])
    list_file = next(file for file in tmp_path.rglob("*.json"))
    list_file.write_text("[" * 100_000)
    with pytest.raises(InputError, match="is not a list of Real-IAD"):
        open_dataset("real-iad", tmp_path)


def test_real_iad_reads_the_largest_size(tmp_path):
    real_iad(tmp_path, ["toy", "usb"])
    data = open_dataset("real-iad", tmp_path)
    assert data.records[0].path.is_relative_to(tmp_path / "realiad_512" / "toy")
    assert messages(data, "resolution") == ["images are read from realiad_512; also there: realiad_256"]
    (tmp_path / "realiad_512/usb/NG/AK/S2/ng.png").unlink()
    with pytest.raises(InputError, match=r"names the mask realiad_512/usb/NG/AK/S2/ng\.png"):
        open_dataset("real-iad", tmp_path)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("spec", "total", "masks"),
    [
        ("sdd=SDD", (347, 52), 52),
        ("brainmri=BrainMRI", (98, 155), 0),
        ("kvasir=Kvasir-SEG", (0, 160), 160),
        ("isic2018=ISIC2018", (0, 80), 80),
    ],
)
def test_real_sets(spec, total, masks):
    name, folder = spec.split("=")
    base = os.environ.get("HEADCLIP_REAL_DATA")
    if base is None or not (Path(base) / folder).is_dir():
        pytest.skip(f"HEADCLIP_REAL_DATA names no folder with {folder}")
    data = open_spec(f"{name}={Path(base) / folder}")
    assert data.total() == total
    assert sum(record.has_mask for record in data.records) == masks
    record = next(record for record in data.records if record.label == 1)
    if masks:
        assert 0 < data.mask(record, (64, 64)).mean() < 0.9
