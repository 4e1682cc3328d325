"""Lists of images: CSV, JSON, meta.json, COCO."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.dataset_files import coco, mask, picture
from headclip.data.coco import CocoOutline, decode_runs
from headclip.data.datasets import open_dataset, open_spec
from headclip.errors import ImageError, InputError


@pytest.fixture
def folder(tmp_path) -> Path:
    for number, name in enumerate(("a", "b", "c")):
        picture(tmp_path / "in" / f"{name}.png", number)
    mask(tmp_path / "gt" / "b.png")
    return tmp_path


def rows(file: Path) -> list[tuple[str, int | None, str | None, str, str]]:
    return [
        (record.path.stem, record.label, record.mask and record.mask.stem, record.category, record.defect)
        for record in open_spec(str(file)).records
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv(folder, separator):
    lines = ["image,label,mask,category", "in/a.png,good,,cup", "in/b.png,dent,gt/b.png,cup", "in/c.png,,,mug"]
    file = folder / "list.csv"
    file.write_text("\n".join(lines).replace(",", separator))
    assert rows(file) == [
        ("a", 0, None, "cup", ""),
        ("b", 1, "b", "cup", "dent"),
        ("c", None, None, "mug", ""),
    ]
    notes = [finding.message for finding in open_spec(str(file)).findings]
    assert notes == ["1 image(s) of mug have no label and cannot be scored"]


def test_a_mask_alone_makes_an_image_anomalous(folder):
    file = folder / "list.csv"
    file.write_text("img_path,mask_path\nin/b.png,gt/b.png\nin/a.png,\n")
    assert [row[:3] for row in rows(file)] == [("b", 1, "b"), ("a", None, None)]


def test_json_list_and_records(folder):
    content = [
        {"image": "in/a.png", "label": 0},
        {"image": "in/b.png", "label": 1, "mask": "gt/b.png", "defect": "dent", "category": "cup"},
        {"image": "in/c.png", "label": True, "mask": None},
    ]
    for name, document in (("list.json", content), ("records.json", {"records": content})):
        (folder / name).write_text(json.dumps(document))
        expected = [("a", 0, None), ("b", 1, "b"), ("c", 1, None)]
        assert [row[:3] for row in rows(folder / name)] == expected
    assert rows(folder / "list.json")[1][3:] == ("cup", "dent")


def test_official_meta_json(folder):
    normal = {"img_path": "in/a.png", "mask_path": "", "cls_name": "cup", "specie_name": "good", "anomaly": 0}
    bad = {"img_path": "in/b.png", "mask_path": "gt/b.png", "cls_name": "cup", "specie_name": "dent", "anomaly": 1}
    train = {**normal, "img_path": "in/c.png"}
    (folder / "meta.json").write_text(json.dumps({"train": {"cup": [train]}, "test": {"cup": [normal, bad]}}))
    expected = [("a", 0, None, "cup", "good"), ("b", 1, "b", "cup", "dent")]
    assert rows(folder / "meta.json")[1] == expected[1]
    assert [row[0] for row in rows(folder)] == ["a", "b"]  # the folder finds its meta.json
    data = open_spec(str(folder))
    assert data.info.title == folder.name
    assert [f.message for f in data.findings] == ["1 row(s) of meta.json belong to 'train' and are not read"]
    # a dataset that is not in its official layout is read through meta.json; DAGM's script writes capitals
    dagm = [{**row, "cls_name": "Class1"} for row in (normal, bad)]
    (folder / "meta.json").write_text(json.dumps({"Train": {}, "Test": {"Class1": dagm}}))
    assert open_dataset("dagm", folder).total() == (1, 1)


def test_a_file_that_is_missing_is_named_with_its_line(folder):
    file = folder / "list.csv"
    file.write_text("image,label,mask\nin/a.png,0,\nin/gone.png,1,\nin/b.png,1,gt/gone.png\n")
    with pytest.raises(InputError) as caught:
        open_spec(str(file))
    assert "list.csv, line 3: the image" in str(caught.value)
    assert "line 4: the mask" in str(caught.value)
    assert len(open_dataset("manifest", file, lenient=True)) == 2


def test_twice_and_masks_of_normal_images_are_named(folder):
    file = folder / "list.csv"
    file.write_text("image,label,mask\nin/a.png,0,gt/b.png\nin/a.png,0,\nin/b.png,1,gt/b.png\n")
    kinds = [finding.kind for finding in open_spec(str(file)).findings]
    assert kinds == ["mask of a normal image", "listed twice"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("x.csv", "picture,label\na.png,0\n", "line 2: no image; known names"),
        ("x.json", "{", "cannot be read as JSON"),
        ("x.json", "{}", "expected a list, COCO, or meta.json"),
        ("x.json", "[1, 2]", "expected a list of objects"),
        ("x.json", '{"images": [{"id": 1}], "annotations": []}', "lacks a field"),
        ("x.csv", "image\n", "does not look like"),
    ],
)
def test_files_that_are_no_list(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=reason):
        open_spec(str(tmp_path / name))


def test_coco(tmp_path):
    coco(tmp_path / "annotations.json")
    data = open_dataset("coco", tmp_path / "annotations.json")
    assert data.total() == (2, 1)
    assert data.info.level == "both"
    record = data.records[0]
    assert record.defect == "scratch"
    pixels = data.mask(record, (10, 12))
    assert pixels is not None
    assert pixels[2:6, 2:8].all()  # the polygon: its numbers are edges, so that 2 to 8 are six pixels
    assert pixels[:, 10:].all()  # the runs: the last 20 of 120 pixels, column by column
    assert pixels.sum() == 24 + 20
    assert data.mask(record, (20, 24)).sum() == 4 * pixels.sum()


def test_coco_that_does_not_fit(tmp_path):
    file = tmp_path / "annotations.json"
    coco(file)
    content = json.loads(file.read_text())
    content["annotations"] += [{"image_id": 1, "category_id": 1}, {"image_id": 77, "segmentation": []}]
    content["images"].append({"id": 9, "file_name": "gone.jpg", "width": 1, "height": 1})
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"1\.jpg has 1 annotation\(s\) without a segmentation; the image .*gone"):
        open_dataset("coco", file)
    kinds = [finding.kind for finding in open_dataset("coco", file, lenient=True).findings]
    assert kinds == ["image without mask", "missing image", "mask without image"]


def test_coco_category_good_is_normal(tmp_path):
    file = tmp_path / "annotations.json"
    coco(file)
    file.write_text(file.read_text().replace("scratch", "good"))
    assert open_dataset("coco", file).total() == (3, 0)


def pack(counts: list[int]) -> str:
    """The text form of run lengths, as the COCO tools write it."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_run_lengths(height, width, random):
    truth = np.array([[random.random() < 0.4 for _ in range(width)] for _ in range(height)])
    counts, value = [0], False
    for pixel in truth.T.ravel():
        if pixel != value:
            counts.append(0)
            value = bool(pixel)
        counts[-1] += 1
    for form in (counts, pack(counts)):
        np.testing.assert_array_equal(decode_runs({"size": [height, width], "counts": form}), truth)


def test_long_run_lengths():
    counts = [5000, 3, 70000, 2, 1, 24994]
    mask = decode_runs({"size": [400, 250], "counts": pack(counts)})
    np.testing.assert_array_equal(mask, decode_runs({"size": [400, 250], "counts": counts}))
    assert mask.sum() == 3 + 2 + 24994


def test_damaged_regions():
    with pytest.raises(ImageError, match="do not add up to 2 x 2"):
        decode_runs({"size": [2, 2], "counts": [1, 2]})
    with pytest.raises(ImageError, match="end too early"):
        decode_runs({"size": [2, 2], "counts": "o"})
    with pytest.raises(ImageError, match="not an outline"):
        CocoOutline(5, 5, ([[1, 1, 2, 2]],)).draw()
    with pytest.raises(ImageError, match="do not fit"):
        CocoOutline(5, 5, ({"size": [4, 4], "counts": [16]},)).draw()


def test_a_blank_after_the_comma_is_none_of_the_name(folder):
    file = folder / "list.csv"
    file.write_text("image, label , mask, category\nin/a.png, 0, , cup\nin/b.png, dent, gt/b.png, cup\n")
    assert rows(file) == [("a", 0, None, "cup", ""), ("b", 1, "b", "cup", "dent")]


def test_a_file_whose_name_has_blanks_is_found(folder):
    for name in ("in/c.png", "gt/b.png"):  # copies under names that no writer of images would take
        content = (folder / name).read_bytes()
        for copy in ((folder / name).with_name(" c.png "), (folder / name).with_name("c.png")):
            copy.write_bytes(content)
    file = folder / "list.json"
    images = [{"image": f"in/{name}", "label": 1, "mask": f"gt/{name}"} for name in (" c.png ", "c.png", "a.png")]
    images[2] = {"image": " in/a.png\n", "label": 0}
    file.write_text(json.dumps(images))
    paths = [(record.path.name, record.mask and record.mask.name) for record in open_spec(str(file)).records]
    assert paths == [(" c.png ", " c.png "), ("c.png", "c.png"), ("a.png", None)]
