"""What `check_dataset` says of copies that are not what they should be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data.dataset_files import labelled, mask, mvtec, pairs, picture
from data.volume_files import write_tiff
from headclip.data.check import CheckReport, check_dataset, known_version
from headclip.data.datasets import datasets, find_dataset, open_dataset


def checked(name: str, root: Path, **options) -> CheckReport:
    return check_dataset(open_dataset(name, root, lenient=True), **options)


def messages(report: CheckReport, kind: str) -> list[str]:
    return [finding.message for finding in report.findings if finding.kind == kind]


@pytest.fixture
def cup(tmp_path) -> Path:
    mvtec(tmp_path, ["cup"])
    return tmp_path / "cup"


def test_a_sound_folder(cup):
    steps = []
    report = checked("folder", cup, progress=lambda done, total: steps.append((done, total)))
    assert report.ok
    assert report.findings == ()
    assert report.version == "no counts are known to compare with"
    assert (report.rows[0].found, report.rows[0].expected, report.rows[0].masks) == ((2, 1), None, 1)
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_damaged_files(cup):
    (cup / "test/good/0.png").write_bytes((cup / "test/good/0.png").read_bytes()[:60])
    (cup / "ground_truth/bad/7_mask.png").write_text("no mask")
    report = checked("folder", cup)
    assert not report.ok
    assert "test/good/0.png cannot be read" in messages(report, "unreadable image")[0]
    assert "7_mask.png cannot be used" in messages(report, "unreadable mask")[0]
    assert checked("folder", cup, pixels=False).ok


def test_a_stack_is_a_problem(cup):
    write_tiff(cup / "test/good/8.tif", [np.full((20, 20), value, np.uint8) for value in (10, 200)])
    report = checked("folder", cup)
    assert not report.ok
    assert "test/good/8.tif cannot be read: a TIFF of 2 pages" in messages(report, "unreadable image")[0]


def test_masks_of_another_size_and_empty_masks(cup):
    mask(cup / "ground_truth/bad/7_mask.png", size=(24, 20))
    picture(cup / "test/bad/8.png", 8)
    mask(cup / "ground_truth/bad/8_mask.png", value=0)
    report = checked("folder", cup)
    (size,) = messages(report, "mask of another size")
    assert size == "the mask of test/bad/7.png is 24 x 20, the image 12 x 10: ground_truth/bad/7_mask.png"
    assert messages(report, "empty mask") == ["test/bad/8.png is anomalous, but its mask has no value above 0"]


def test_identical_files(cup):
    shutil.copy(cup / "test/good/0.png", cup / "test/good/5.png")
    report = checked("folder", cup)
    assert report.ok  # counted twice, but nothing that the user could repair in an official archive
    assert messages(report, "identical files") == ["test/good/0.png = test/good/5.png"]
    shutil.copy(cup / "test/good/1.png", cup / "test/bad/8.png")
    mask(cup / "ground_truth/bad/8_mask.png")
    report = checked("folder", cup)
    assert not report.ok
    assert messages(report, "identical, normal and anomalous") == ["test/bad/8.png = test/good/1.png"]


def test_counts_against_the_expected(tmp_path):
    mvtec(tmp_path, ["bottle"])
    report = checked("mvtec", tmp_path)
    assert report.version == "a part of MVTec AD"
    assert "bottle: 2 / 1 normal / anomalous images, expected 20 / 63" in messages(report, "other counts")
    assert "2 / 1 normal / anomalous images in all, expected 467 / 1,258" in messages(report, "other counts")
    assert len(messages(report, "missing category")) == 14


def write_brains(root: Path, normal: int, anomalous: int) -> None:
    for name, count in (("no", normal), ("yes", anomalous)):
        for index in range(count):
            picture(root / name / f"{index}.png", 1000 * len(name) + index)


def test_a_complete_copy_and_another_version(tmp_path):
    write_brains(tmp_path, 98, 155)
    report = checked("brainmri", tmp_path)
    assert report.ok
    assert report.version == "BrainMRI, complete"
    shutil.rmtree(tmp_path / "no")
    shutil.rmtree(tmp_path / "yes")
    write_brains(tmp_path, 85, 68)
    report = checked("brainmri", tmp_path)
    assert report.version == "BrainMRI of AdaCLIP and Bayes-PFL"
    (message,) = messages(report, "another version")
    assert f"open it as brainmri-bayes={tmp_path}" in message


def test_more_than_expected_is_no_known_version(tmp_path):
    for index in range(201):
        picture(tmp_path / "images" / f"{index}.png", index)
        mask(tmp_path / "masks" / f"{index}.png")
    report = checked("endo", tmp_path, pixels=False)
    assert report.version == "no known version of Endo (EndoTect 2020)"


def test_versions_are_told_apart_by_their_counts():
    assert known_version(find_dataset("sdd-anomalyclip"), (347, 52)) == ("KolektorSDD", "sdd")
    assert known_version(find_dataset("sdd"), (286, 54)) == ("SDD, the conversion of DRA", "sdd-dra")
    assert known_version(find_dataset("kvasir"), (0, 100))[1] == ""
    assert known_version(find_dataset("sdd"), (1, 1)) == ("", "")
    for info in datasets():
        if info.normal is not None:
            assert known_version(info, (info.normal, info.anomalous)) == (info.title, info.name)


def test_findings_of_opening_come_first_by_weight(tmp_path):
    pairs(tmp_path, "images", "masks")
    picture(tmp_path / "images/extra.png", 9)
    mask(tmp_path / "masks/ghost.png")
    report = checked("cvc-colondb", tmp_path)
    assert [finding.severity for finding in report.findings] == ["error", "problem", "problem"]
    assert report.problems[0].message == "images/extra.png has no mask"


def test_notes_are_no_problems(tmp_path):
    labelled(tmp_path, "no", "yes", "pred")
    report = checked("br35h", tmp_path)
    assert [finding.kind for finding in report.findings if finding.severity == "note"] == ["other folder"]
    assert all(finding.severity != "note" for finding in report.problems)
