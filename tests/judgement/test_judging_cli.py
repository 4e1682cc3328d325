"""calibrate, rejudge and regions as their users meet them, and predict with a calibration."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import run
from headclip.cli.models import reference_images
from headclip.errors import InputError
from headclip.files import file_hash
from headclip.inference.detector import Detector
from headclip.inference.predict import predict_run
from headclip.judgement import Calibration
from headclip.methods import create_method
from headclip.methods.checkpoint import learnt_hash, read_info, save_checkpoint
from headclip.runs.run import Run
from inference.fake_detector import FakeDetector
from inference.pictures import write_pictures
from tiny_clip import make_backbone, make_config


def fake(arguments, quiet):
    """In place of `load_detector`."""
    return FakeDetector(arguments["backbone"])


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with `in`, 36 pictures, 30 of them dark; the model is the fake one."""
    for module in ("models", "predict"):
        monkeypatch.setattr(f"headclip.cli.{module}.load_detector", fake)
    monkeypatch.delenv("HEADCLIP_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for index in range(36):
        path = tmp_path / "in" / ("good" if index < 30 else "bad") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        low = 20 if index < 30 else 180
        Image.fromarray(rng.integers(low, low + 40 + index, (24, 32, 3), dtype=np.uint8)).save(path)
    return tmp_path


def test_a_place_that_cannot_be_written_is_told_of_before_images_are_judged(folder, capsys, monkeypatch):
    def refuse(parent):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("headclip.files.scratch_folder", refuse)
    monkeypatch.setattr("headclip.cli.models.load_detector", None)  # would fail where it is asked for a model
    assert run("calibrate", "in/good", "--out", "c.json") == 2
    assert "error: cannot write c.json: Permission denied" in capsys.readouterr().err


def test_from_normals_to_verdicts(folder, capsys):
    assert run("calibrate", "in/good", "--false-alarms", "0.05", "--out", "c.json", "--min-area", "2") == 0
    text = capsys.readouterr().out
    assert "At most 5 % of normal images raise an alarm, on average; calibrated on 30 normal images" in text
    assert "2 % would need 49 images" in text
    assert "verdicts of defect would need 59 images" in text
    assert run("predict", "in", "--out", "run", "--calibration", "c.json", "--pixel-mm", "0.1") == 0
    judged = Run.open("run")
    assert judged.criteria.pixel_mm == 0.1
    assert judged.criteria.rules.min_area == 2
    verdicts = {row.path: row.verdict for row in judged.ok}
    assert all(verdict == "review" for path, verdict in verdicts.items() if path.startswith("bad"))
    assert sum(verdict != "ok" for path, verdict in verdicts.items() if path.startswith("good")) <= 1
    assert sum(bool(row.regions) for row in judged.ok if row.path.startswith("good")) <= 1
    with Path("run/results.csv").open(encoding="utf-8") as handle:
        assert {row["path"]: row["verdict"] for row in csv.DictReader(handle)} == verdicts


def test_images_that_the_model_was_trained_on_are_named(folder, monkeypatch, caplog):
    arguments = ("calibrate", "in/good", "--false-alarms", "0.05", "--out", "c.json")
    assert run(*arguments) == 0
    assert caplog.text == ""
    learnt = {"name": "mine", "files": {"x.png": file_hash(folder / "in/good/3.png"), "y.png": "0" * 64}}
    plain = FakeDetector.describe
    monkeypatch.setattr(FakeDetector, "describe", lambda self: plain(self) | {"checkpoint_data": learnt})
    assert run(*arguments) == 0
    assert "the model was trained on 1 of these 30 images, e.g. 3.png" in caplog.text


def test_images_that_are_ok_and_show_a_region_are_counted(folder, capsys):
    assert run("predict", "in", "--out", "run", "--threshold", "0.9", "--pixel-threshold", "0.6") == 0
    judgement = Run.open("run").judgement
    shown = sum(bool(row.regions) for row in Run.open("run").ok)
    assert judgement["ok_with_regions"] == shown > 0
    assert f"{shown} images ok by score show a region all the same" in capsys.readouterr().out
    assert run("rejudge", "run", "--threshold", "0.01") == 0
    assert "show a region all the same" not in capsys.readouterr().out


def test_labels_that_all_contradict_the_verdicts_say_nothing_of_recall(folder, capsys):
    assert run("predict", "in", "--out", "run", "--threshold", "0.5") == 0
    rows = [row for row in Run.open("run").ok if row.verdict == "ok"][:2]
    lines = [f"in/{row.path},1" for row in rows]
    Path("marks.csv").write_text("\n".join(["path,label", *lines]))
    capsys.readouterr()
    assert run("rejudge", "run", "--threshold", "0.5", "--labels", "marks.csv") == 0
    assert "All of them contradict the verdicts" in capsys.readouterr().out


def test_too_few_images(folder, capsys):
    assert run("calibrate", "in/good", "--out", "c.json") == 2
    assert "30 images are too few to promise at most 1 % false alarms: that needs 99" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:  # no image is judged for that
        patch.setattr(FakeDetector, "predict_arrays", lambda *rest: pytest.fail("an image was judged"))
        assert run("calibrate", "in/good", "--out", "c.json") == 2
    assert not Path("c.json").exists()
    assert run("calibrate", "in/good", "--out", "c.json", "--tightest") == 0
    assert "At most 3.23 %" in capsys.readouterr().out


def test_a_run_needs_no_model_and_says_the_same(folder, capsys, monkeypatch):
    assert run("predict", "in/good", "--out", "run", "-q") == 0
    assert run("calibrate", "in/good", "--out", "a.json", "--false-alarms", "0.1", "-q") == 0
    monkeypatch.setitem(sys.modules, "torch", None)  # an import would fail
    monkeypatch.setattr("headclip.cli.models.load_detector", None)
    assert run("calibrate", "run", "--out", "b.json", "--false-alarms", "0.1", "-q") == 0
    a, b = Calibration.load("a.json"), Calibration.load("b.json")
    assert (a.image, a.pixel, a.alarm_pixel, a.model) == (b.image, b.pixel, b.alarm_pixel, b.model)
    assert a.alarm_pixel is not None
    assert run("rejudge", "run", "--calibration", "b.json", "-q") == 0
    assert capsys.readouterr().out == ""


def test_a_run_without_its_maps_knows_their_highest_values(folder, capsys):
    assert run("predict", "in/good", "--out", "run", "-q") == 0
    command = ("calibrate", "run", "--false-alarms", "0.1", "-q")
    assert run(*command, "--out", "a.json") == 0
    shutil.rmtree("run/maps")
    assert run(*command, "--out", "b.json") == 0
    a, b = Calibration.load("a.json"), Calibration.load("b.json")
    assert (a.image, a.pixel) == (b.image, b.pixel)
    assert b.alarm_pixel is None
    assert run(*command, "--out", "c.json", "--min-area", "4") == 2
    assert "--resume makes it again" in capsys.readouterr().err


def test_contaminated_images_are_named(folder, capsys):
    assert run("calibrate", "in", "--out", "c.json", "--false-alarms", "0.1", "--contaminated", "0.17") == 0
    text = capsys.readouterr().out
    assert "of which up to 17 % may not be" in text
    listed = [line.split()[-1] for line in text.splitlines() if line.endswith(".png")]
    assert sum(name.startswith("bad/") for name in listed) == 6
    found = Calibration.load("c.json")
    assert found.image.low < found.image.threshold  # the clean threshold lies below all of them


def test_labelled(folder, capsys):
    assert run("calibrate", "in", "--labelled", "--out", "f1.json") == 0
    assert "Best F1 on 36 labelled images" in capsys.readouterr().out
    assert run("calibrate", "in", "--labelled", "--cost-miss", "50", "--prevalence", "0.01", "--out", "cost.json") == 0
    assert "Best expected cost" in capsys.readouterr().out
    assert Calibration.load("cost.json").terms.cost_miss == 50
    assert run("predict", "in", "--out", "run", "--calibration", "f1.json", "-q") == 0
    assert run("rejudge", "run", "--labels", "in") == 0
    assert "Against 36 labels: recall 100.0%, precision 100.0%, false alarms 0.0%" in capsys.readouterr().out
    assert run("calibrate", "run", "--labelled", "--out", "again.json", "-q") == 0
    assert Calibration.load("again.json").image == Calibration.load("f1.json").image


@pytest.mark.parametrize("option", ["--threshold", "--pixel-threshold"])
def test_a_threshold_in_percent_is_refused(folder, capsys, option):
    for command in (["predict", "in", "--out", "run"], ["rejudge", "run"], ["serve", "run"]):
        assert run(*command, option, "70") == 2
        assert f"{option} 70: scores and maps lie between 0 and 1" in capsys.readouterr().err
    assert not Path("run").exists()


@pytest.mark.parametrize(("given", "words"), [("70%", "write 0.7"), ("0,7", "write 0.7"), ("high", "e.g. 0.7")])
def test_shares_in_percent_or_with_a_comma_are_answered_with_what_was_meant(folder, capsys, given, words):
    for command in (["rejudge", "run", "--threshold"], ["calibrate", "in", "--out", "c.json", "--false-alarms"]):
        assert run(*command, given) == 2
        assert f"'{given}' is no number; write" in (error := capsys.readouterr().err)
        assert words in error


def test_rejudge_and_regions(folder, capsys):
    assert run("predict", "in", "--out", "run", "-q") == 0
    assert run("rejudge", "run", "--threshold", "0.5") == 0
    assert "6 defect, 0 to review, 30 ok; 0 regions; 36 verdicts are new" in capsys.readouterr().out
    assert run("regions", "run", "--to", "csv", "--out", "x.csv") == 2
    assert run("rejudge", "run", "--pixel-threshold", "0.5", "-q") == 0
    assert Run.open("run").criteria.threshold == 0.5
    capsys.readouterr()
    assert run("regions", "run", "--to", "coco", "--out", "x.json", "--verdict", "defect") == 0
    count = len(json.loads(Path("x.json").read_text())["annotations"])
    assert f"{count:,} regions in x.json" in capsys.readouterr().out
    assert run("rejudge", "run", "--none") == 0
    assert Run.open("run").judgement is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["calibrate", "--out", "c.json"], "--data synthetic"),
        (["calibrate", "in", "--data", "synthetic", "--out", "c.json"], "one of the two"),
        (["calibrate", "in"], "--out FILE.json"),
        (["calibrate", "in", "--into-checkpoint"], "--checkpoint FILE"),
        (["calibrate", "in", "--out", "c.json", "--cost-miss", "2"], "--labelled"),
        (["calibrate", "in", "--out", "c.json", "--false-alarms", "3"], "a share between 0 and 1"),
        (["calibrate", "in/good", "--labelled", "--out", "c.json"], "no labels"),
        (["predict", "in", "--out", "run", "--calibration", "missing.json"], "check the path"),
        (["predict", "in", "--out", "run", "--calibration", "in/good/1.png"], "not a calibration"),
        (["rejudge", "in", "--threshold", "0.5"], "holds no run"),
        (["rejudge", "in"], "say what to change"),
    ],
)
def test_mistakes(folder, capsys, arguments, words):
    assert run(*arguments) == 2
    assert words in capsys.readouterr().err
    assert not Path("run").exists()


@pytest.mark.parametrize(("out", "words"), [("in", "is a folder; name a file"), ("file/c.json", "is no folder")])
def test_a_place_that_takes_no_file_is_told_before_images_are_judged(folder, capsys, monkeypatch, out, words):
    Path("file").touch()
    monkeypatch.setattr("headclip.cli.calibrate._score", lambda *_: pytest.fail("images were judged for nothing"))
    assert run("calibrate", "in/good", "--out", out) == 2
    assert words in capsys.readouterr().err


def test_a_run_without_thresholds_needs_some(folder, capsys):
    assert run("predict", "in", "--out", "run", "-q") == 0
    assert run("rejudge", "run", "--min-area", "5") == 2
    assert "no thresholds yet" in capsys.readouterr().err


def test_another_model_is_refused_before_it_judges(folder, capsys):
    assert run("calibrate", "in/good", "--out", "c.json", "--false-alarms", "0.1", "-q") == 0
    assert run("predict", "in", "--out", "run", "--backbone", "other", "--calibration", "c.json") == 2
    assert "made for another model (backbone.name embedded there, other here)" in capsys.readouterr().err
    assert not Path("run").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_default_travels_in_the_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    backbone = make_backbone(make_config())
    save_checkpoint(tmp_path / "a.safetensors", create_method("headclip", backbone, {"image_size": 28}))
    monkeypatch.setattr("headclip.inference.detector.load_backbone", lambda name: backbone)
    before = learnt_hash(tmp_path / "a.safetensors")
    arguments = ["--data", "synthetic", "--count", "9", "--false-alarms", "0.1", "--checkpoint", "a.safetensors"]
    assert run("calibrate", *arguments, "--into-checkpoint") == 0
    assert "promises nothing on real ones" in capsys.readouterr().out
    assert learnt_hash(tmp_path / "a.safetensors") == before  # another calibration does not make another model
    found = Calibration.from_values(read_info(tmp_path / "a.safetensors").calibration)
    assert (found.kind, found.data["kind"], found.image.images) == ("synthetic", "rendered", 9)
    found.check_fits(Detector(backbone, tmp_path / "a.safetensors", device="cpu").describe())

    write_pictures(tmp_path / "in", 2)
    assert run("predict", "in", "--out", "run", "--checkpoint", "a.safetensors", "-q") == 0
    assert Run.open("run").criteria == found.criteria()
    assert "rendered" in Run.open("run").judgement["note"]
    assert run("predict", "in", "--out", "other", "--checkpoint", "a.safetensors", "--set", "alpha=0.1", "-q") == 0
    assert Run.open("other").judgement is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["calibrate", "r1", "r2", "--out", "c.json"], "r1 is a run; name one run at a time"),
        (["calibrate", "in/good", "r2", "--out", "c.json"], "r2 is a run; name one run at a time"),
        (["calibrate", "r1", "--labelled", "--masks", "r2", "--out", "c.json"], "r2 is a run of headclip"),
        (["predict", "r1", "--out", "r9"], "r1 is a run of headclip"),
        (["inspect", "--image", "r1", "--out", "r9"], "r1 is a run of headclip"),
    ],
)
def test_runs_are_no_images(folder, capsys, arguments, words):
    for out in ("r1", "r2"):
        assert run("predict", "in/good", "--out", out, "-q") == 0
    assert run(*arguments) == 2
    assert words in capsys.readouterr().err
    assert not Path("c.json").exists()
    assert not Path("r9").exists()


def test_references_are_no_runs(folder):
    predict_run(FakeDetector(), ["in/good/1.png"], "in/good/run")
    assert len(reference_images("in/good")) == 30
    with pytest.raises(InputError, match=r"--reference in/good/run: .* is a run of headclip"):
        reference_images("in/good/run")
