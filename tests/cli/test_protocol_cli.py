"""`headclip protocol` as a user runs it: what it refuses before it trains, and what it does not do twice."""

from __future__ import annotations

import json
import shutil

import pytest

from commands import run
from evaluation.evaluate_files import mask, picture, write_set

BOX = (6, 22, 8, 30)


@pytest.fixture
def data(tmp_path):
    """What mvtec-to-all trains on, and two of the sets that it tests on."""
    root = tmp_path / "data"
    write_set(root / "MVTec AD", ("bottle", "cable"), normal=2, defects=2)
    write_set(root / "MPDD", ("tubes",), normal=3, defects=3, seed=700)
    for index in range(3):
        picture(root / "Kvasir-SEG/images" / f"{index}.png", 800 + index, BOX)
        mask(root / "Kvasir-SEG/masks" / f"{index}.png", BOX)
    return root


@pytest.fixture
def call(capsys, backbone, data, tmp_path):
    """Exit status, and stdout and stderr in one line each; results go to tmp_path / "p"."""

    def do(*more):
        given = ["--data-root", data, "--backbone", backbone, "--out", tmp_path / "p", "--device", "cpu"]
        given += ["--epochs", "1", "--image-size", "42", "--workers", "0", "--bootstrap", "20", "--set", "sigma=1"]
        status = run("protocol", "mvtec-to-all", *given, "--no-figures", *more)
        captured = capsys.readouterr()
        return status, " ".join(captured.out.split()), " ".join(captured.err.split())

    return do


def test_a_protocol_trains_tests_and_names_what_is_missing(call, data, tmp_path):
    status, out, err = call()
    assert status == 0, err
    assert "not tested, since not given: " in out
    assert "visa" in out
    found = json.loads((tmp_path / "p/evaluation/results.json").read_text())
    assert {result["dataset"] for result in found["results"]} == {"mpdd", "kvasir"}
    assert found["options"]["protocol"] == "ader"
    assert "trained on mvtec" in (tmp_path / "p/evaluation/tables.md").read_text()

    assert call()[0] == 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "p").rglob("*") if path.is_file()}
    status, out, err = call("--resume")
    assert status == 0, err
    assert "finished already, and nothing has changed since" in out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "p").rglob("*") if path.is_file()} == before
    mask(data / "MPDD/tubes/ground_truth/bent/0_mask.png", (0, 30, 0, 30))
    status, out, err = call("--resume")
    assert status == 0, err
    assert "nothing has changed" not in out
    changed = {path for path, time in before.items() if path.exists() and path.stat().st_mtime_ns != time}
    assert tmp_path / "p/evaluation/tables.csv" in changed
    assert tmp_path / "p/checkpoint.safetensors" not in changed
    status, _, err = call("--resume", "--image-size", "56")
    assert status == 2
    assert "was trained with another image_size" in " ".join(err.split())
    status, _, err = call("--resume", "--rate", "0.5", "--set", "temperature=0.2")
    assert status == 2
    assert "another method_config, training (method_config.temperature was 0.07, now 0.2, training.rate was 0.0" in err
    assert ", now 0.5); give the same options and images, or --overwrite, which trains anew" in err


@pytest.mark.parametrize("wrong", ["no mask", "no folder", "shared images"])
def test_test_sets_are_refused_before_training(call, data, tmp_path, wrong):
    more = ()
    if wrong == "no mask":
        (data / "MPDD/tubes/ground_truth/bent/1_mask.png").unlink()
        words = "tubes/test/bent/1.png has no mask"
    elif wrong == "no folder":
        more = ("--root", f"btad={tmp_path / 'nowhere'}")
        words = "nowhere does not exist"
    else:
        shutil.copy(data / "MVTec AD/bottle/test/good/0.png", data / "MPDD/tubes/test/good/0.png")
        words = "Figures on images seen in training mean nothing"
    status, _, err = call(*more)
    assert status == 2
    assert words in err
    assert not (tmp_path / "p").exists()
