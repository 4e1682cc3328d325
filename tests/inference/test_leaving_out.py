"""Thresholds from the reference images themselves, each of which is judged beside the others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from commands import run
from headclip import Detector
from headclip.data.discover import discover
from headclip.data.hashing import pixel_hash
from headclip.inference.given import read
from headclip.inference.leaving_out import LeaveOneOut, score_beside_others
from headclip.judgement import Calibration
from headclip.judgement.regions import RegionRules
from headclip.runs.run import Run
from inference.test_peers import write_alike


@pytest.fixture(scope="module")
def detector():
    return Detector(device="cpu", batch_size=4)


@pytest.fixture
def good(tmp_path):
    return write_alike(tmp_path / "good", 6, spot=())


@pytest.fixture
def parts(tmp_path):
    folder = write_alike(tmp_path / "parts", 12, spot=(8,))
    for index in range(6):  # their noise is that of the normal ones
        (folder / f"{index}.png").unlink()
    return folder


def test_a_reference_is_judged_as_if_it_were_none(detector, good, parts):
    files = sorted(good.glob("*.png"))
    arrays = [read(path) for path in [files[2], parts / "8.png", files[4], parts / "9.png"]]
    expected = []
    for array, left_out in zip(arrays, [2, None, 4, None], strict=True):
        detector.set_references([path for place, path in enumerate(files) if place != left_out])
        expected += detector.predict_arrays([array])
    detector.set_references(files)
    judge = LeaveOneOut(detector)
    found = judge.predict_arrays(arrays)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, atol=1e-5)
        assert ours.score == pytest.approx(theirs.score, abs=1e-5)
    assert judge.judged == {pixel_hash(arrays[0]), pixel_hash(arrays[2])}
    among_all = detector.predict_arrays(arrays[:1])[0]  # all six say what is usual: another score
    assert among_all.score != pytest.approx(found[0].score, abs=1e-5)
    detector.set_references(None)


def test_copies_of_a_reference_are_left_out_with_it(detector, good):
    files = sorted(good.glob("*.png"))
    array = read(files[0])
    detector.set_references(files[1:])
    expected = detector.predict_arrays([array])[0]
    detector.set_references([*files, files[0]])
    assert LeaveOneOut(detector).predict_arrays([array])[0].score == pytest.approx(expected.score, abs=1e-5)
    detector.set_references(None)


@pytest.mark.parametrize(("method", "count"), [("headclip", 2), ("winclip", 1)])
def test_one_that_has_too_few_others_is_judged_as_ever_and_does_not_count(detector, good, method, count):
    few = sorted(good.glob("*.png"))[:count]
    one = Detector(detector.backbone, method=method, device="cpu", references=few)
    judge = LeaveOneOut(one)
    array = read(few[0])
    assert judge.predict_arrays([array])[0].score == one.predict_arrays([array])[0].score
    assert judge.judged == set()


def test_winclip_leaves_one_out_too(detector, good):
    """A reference is at distance zero from itself, so its few-shot map is lower than beside the others."""
    files = sorted(good.glob("*.png"))[:3]
    one = Detector(detector.backbone, method="winclip", device="cpu", references=files)
    scored = score_beside_others(one, discover([good]).files[:4], RegionRules())
    assert len(scored.left_out) == 3
    as_ever = one.predict(files)
    assert all(mine > theirs.score for mine, theirs in zip(scored.scores[:3], as_ever, strict=True))


def test_a_calibration_needs_no_other_images(good, parts, tmp_path, capsys):
    line = tmp_path / "line.json"
    assert run("calibrate", "--reference", good, "--false-alarms", "0.2", "--out", line) == 0
    said = capsys.readouterr().out
    assert "About 20 % of normal images raise an alarm, on average; calibrated on 6 reference images, each" in said
    found = Calibration.load(line)
    assert (found.image.images, found.data["left_out"], found.data["references"]) == (6, 6, 0)
    more = write_alike(tmp_path / "more", 7, spot=())
    assert run("calibrate", more, "--reference", good, "--false-alarms", "0.2", "--out", line) == 0
    assert "7 normal images, 6 of them references, each judged beside" in capsys.readouterr().out
    assert run("predict", parts, "--reference", good, "--calibration", line, "--out", tmp_path / "run") == 0


def test_predict_finds_the_same_thresholds_by_itself(good, parts, tmp_path, capsys):
    line, out = tmp_path / "line.json", tmp_path / "run"
    assert run("calibrate", "--reference", good, "--false-alarms", "0.2", "--min-area", "9", "--out", line) == 0
    command = ("predict", parts, "--reference", good, "--false-alarms", "0.2", "--min-area", "9", "--out", out)
    assert run(*command) == 0
    judged, found = Run.open(out).judgement, Calibration.load(line)
    assert judged["criteria"]["threshold"] == pytest.approx(found.image.threshold, abs=1e-6)
    assert judged["criteria"]["pixel"] == pytest.approx(found.pixel.threshold, abs=1e-6)
    assert judged["note"].startswith("About 20 %")
    assert {row.path for row in Run.open(out).ok if row.verdict != "ok"} >= {"8.png"}
    assert run(*command, "--resume") == 0
    assert Run.open(out).judgement["criteria"] == judged["criteria"]
    capsys.readouterr()


def test_normal_images_among_those_to_judge_are_pointed_out(good, tmp_path, capsys):
    assert run("predict", good, "--reference", good, "--false-alarms", "0.2", "--out", tmp_path / "run") == 0
    assert "6 of these images were used for the calibration" in " ".join(capsys.readouterr().err.split())


def test_too_few_normal_images_say_what_they_can(good, parts, tmp_path, capsys):
    assert run("predict", parts, "--reference", good, "--false-alarms", "0.05", "--out", tmp_path / "run") == 0
    assert "6 normal images are too few for 5 % false alarms; they can say 14.3 %" in " ".join(
        capsys.readouterr().err.split()
    )
    assert Run.open(tmp_path / "run").judgement["note"].startswith("About 14.3 %")
    assert run("calibrate", "--reference", good, "--false-alarms", "0.05", "--out", tmp_path / "line.json") == 2
    assert "6 images are too few to promise" in capsys.readouterr().err


def test_two_normal_images_have_no_others_to_be_judged_beside(good, parts, tmp_path, capsys):
    for path in sorted(good.glob("*.png"))[2:]:
        path.unlink()
    assert run("predict", parts, "--reference", good, "--false-alarms", "0.4", "--out", tmp_path / "run") == 2
    assert "2 reference images are too few to judge each beside the others; give 3" in capsys.readouterr().err


def test_broken_normal_images_are_left_out(good, parts, tmp_path, capsys):
    (good / "broken.png").write_bytes(b"no image")
    line = tmp_path / "line.json"
    assert run("calibrate", "--reference", good, "--false-alarms", "0.2", "--out", line) == 0
    assert json.loads(line.read_text())["data"]["failed"] == 1
    assert "broken.png" in capsys.readouterr().out
    assert run("predict", parts, "--reference", good, "--false-alarms", "0.2", "--out", tmp_path / "run") == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "add it"),
        (["--reference", "good", "--threshold", "0.5"], "--threshold exclude each other"),
        (["--reference", "good", "--calibration", "line.json"], "--calibration exclude each other"),
        (["--reference", "good", "--false-alarms", "1"], "share between 0 and 1"),
    ],
)
def test_what_does_not_go_together(good, parts, tmp_path, monkeypatch, capsys, more, words):
    monkeypatch.chdir(tmp_path)
    assert run("calibrate", "--reference", good, "--false-alarms", "0.2", "--out", "line.json") == 0
    assert run("predict", parts, "--out", "run", "--false-alarms", "0.05", *more) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_nothing_to_calibrate_on(tmp_path, capsys):
    assert run("calibrate", "--out", tmp_path / "line.json") == 2
    assert "give images believed normal" in capsys.readouterr().err
