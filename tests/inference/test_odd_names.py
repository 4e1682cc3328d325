"""Folders whose names are no UTF-8: of images, of runs, of datasets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from commands import run
from evaluation.evaluate_files import FakeEvaluated, write_set
from headclip.data.datasets import open_dataset
from headclip.data.discover import discover, printable, stored_path
from headclip.evaluation.evaluate import Options, evaluate
from headclip.evaluation.runs import evaluate_runs
from headclip.inference.merging import merge_runs
from headclip.inference.predict import predict_run
from headclip.judgement.choosing import Judging
from headclip.runs.exports import export_regions
from headclip.runs.run import Run
from headclip.runs.shards import Shard
from inference.fake_detector import FakeDetector

OPTIONS = {"bootstrap": 5, "figures": False, "worst": 1}


@pytest.fixture
def odd(tmp_path, monkeypatch) -> Path:
    """A folder of three images, one of them with such a name itself."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / os.fsdecode(b"part\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for index, name in enumerate((b"a.png", b"b.png", b"\xe9.png")):
        Image.new("L", (24, 20), 40 * index).save(tmp_path / "x.png")
        (tmp_path / "x.png").rename(folder / os.fsdecode(name))
    return folder


def test_escapes_lead_back(odd):
    images = discover([odd])
    assert images.shown_root.endswith("part\\udce9")
    assert [image.name for image in images] == ["a.png", "b.png", "\\udce9.png"]
    for image in images:
        assert stored_path(Path(images.shown_root) / image.name) == image.path
    assert stored_path("gone\\udce9") == Path("gone\\udce9")
    named = odd.parent / "a\\udce9"  # a name that has a backslash
    named.mkdir()
    assert stored_path(printable(str(named))) == named


def test_a_run_of_it_is_finished_and_taken_up(odd):
    out = odd.parent / os.fsdecode(b"run\xe9")
    judging = Judging(threshold=0.1, pixel_threshold=0.1)
    arguments = {"inputs": [str(odd)], "checkpoint": None}
    predict_run(FakeDetector(), [odd], out, judging=judging, arguments=arguments)
    found = Run.open(out)
    assert found.finished
    assert found.facts["arguments"]["inputs"] == [printable(str(odd))]
    assert all(found.image_path(row).is_file() for row in found.rows)
    page = found.report.read_text(encoding="utf-8")
    assert "run\\udce9" in page
    assert '"root":"../part%E9"' in page  # the link to the originals has the bytes
    detector = FakeDetector()
    assert len(predict_run(detector, [odd], out, judging=judging, resume=True).ok) == 3
    assert detector.batches == []
    assert export_regions(found, "coco", odd.parent / "regions.json") == 2


def test_its_shards_are_merged(odd):
    out = odd.parent / os.fsdecode(b"run\xe9")
    for index in (1, 2):
        predict_run(FakeDetector(), [odd], out, shard=Shard(index, 2))
    assert len(merge_runs([out]).ok) == 3
    assert Run.open(out).facts["root"] == printable(str(odd))


def test_an_evaluation_of_it(odd):
    root = write_set(odd / "set", categories=("cup",), normal=2, defects=2)
    (root / "cup/test/bent/0.png").rename(root / "cup/test/bent" / os.fsdecode(b"\xe9.png"))
    (root / "cup/ground_truth/bent/0_mask.png").rename(root / "cup/ground_truth/bent" / os.fsdecode(b"\xe9_mask.png"))
    root = root.rename(odd / os.fsdecode(b"set\xe9"))
    dataset = open_dataset("folder", root / "cup")
    live = evaluate(FakeEvaluated(), [dataset], odd / "e", Options(**OPTIONS))
    assert "\\udce9.png" in (odd / "e/scores.csv").read_text(encoding="utf-8")
    predict_run(FakeEvaluated(), [root], odd / os.fsdecode(b"run\xe9"))
    again = evaluate_runs([odd / os.fsdecode(b"run\xe9")], [dataset], odd / "f", Options(**OPTIONS))
    assert again.results[0].mean["exact"]["image_auroc"] == live.results[0].mean["exact"]["image_auroc"]
    assert "ok" in {image.status for image in again.results[0].images}


def test_the_command(odd, monkeypatch, capsys):
    monkeypatch.setattr("headclip.cli.predict.load_detector", lambda arguments, quiet: FakeDetector())
    out = os.fsdecode(b"run\xe9")
    assert run("predict", odd.name, "--out", out) == 0
    assert run("predict", odd.name, "--out", out, "--resume") == 0
    assert run("rejudge", out, "--threshold", "0.1", "--pixel-threshold", "0.1") == 0
    assert run("data", "check", odd.name) == 0
    assert "fault of headclip" not in capsys.readouterr().err
