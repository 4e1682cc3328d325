"""Comparing the images of a run: which are chosen, what a detector does with them, and runs that go on."""

from __future__ import annotations

import json
import shutil
import weakref

import numpy as np
import pytest
from PIL import Image

from commands import run
from headclip import Detector, TiledDetector
from headclip.data.discover import discover
from headclip.errors import InputError
from headclip.inference.peers import pick_peers
from headclip.runs.files import RUN_JSON
from headclip.runs.run import Run


def write_alike(folder, count=8, spot=(3,)):
    """Images of one kind: bars in the same light with other noise; some with a ring that the others lack."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:96, :96]
    for index in range(count):
        rng = np.random.default_rng(index)
        pixels = 120 + 60 * ((columns // 12) % 2) + rng.normal(0, 6, (96, 96))
        if index in spot:
            pixels[np.abs(np.hypot(rows - 50, columns - 40) - 9) < 3] = 235
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    return folder


def names_of(picked):
    return [name for name, _ in picked]


@pytest.fixture(scope="module")
def detector():
    return Detector(device="cpu", batch_size=4)


@pytest.fixture
def alike(tmp_path):
    return write_alike(tmp_path / "in")


def test_the_same_are_picked_for_the_same_names_in_any_order(alike):
    files = discover([alike]).files
    first = names_of(pick_peers(files, 5))
    assert len(first) == 5
    assert names_of(pick_peers(files[::-1], 5)) == first
    assert names_of(pick_peers(files, 3)) == first[:3]
    assert sorted(names_of(pick_peers(files, 50))) == sorted(file.name for file in files)
    assert first != sorted(first)


def test_what_cannot_be_read_is_passed_over(alike):
    files = discover([alike]).files
    broken, *others = names_of(pick_peers(files, 4))
    (alike / broken).write_bytes(b"no image")
    assert names_of(pick_peers(files, 3)) == others
    for file in files[1:]:
        file.path.write_bytes(b"no image")
    with pytest.raises(InputError, match="of 8 only"):
        list(pick_peers(files, 4))


def test_one_image_is_held_at_a_time(detector):
    """They may be large, and dozens."""
    held = []

    def images():
        for seed in range(6):
            assert not any(reference() is not None for reference in held[:-1])  # but the one just given
            pixels = np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8)
            held.append(weakref.ref(pixels))
            yield pixels

    detector.set_peers(images())
    assert detector.peers["images"] == 6
    detector.set_peers(None)


def test_a_ring_that_the_others_lack_counts_for_more(detector, alike):
    files = [str(alike / f"{index}.png") for index in range(8)]
    before = detector.predict(files)
    detector.set_peers(files)
    after = detector.predict(files)
    assert detector.describe()["peers"] == {"images": 8, "weight": 1.0}
    detector.set_peers(None)
    assert "peers" not in detector.describe()
    gain = [one.score - other.score for one, other in zip(after, before, strict=True)]
    assert int(np.argmax(gain)) == 3
    assert gain[3] > 0.02
    best = np.unravel_index(after[3].anomaly_map.argmax(), (96, 96))
    assert np.hypot(best[0] - 50, best[1] - 40) < 20
    np.testing.assert_array_equal(detector.predict(files[3])[0].anomaly_map, before[3].anomaly_map)


def test_a_constructor_takes_them_too(detector, alike):
    files = sorted(alike.iterdir())
    given = Detector(detector.backbone, detector.checkpoint, device="cpu", peers=files, peer_weight=2.0)
    detector.set_peers(files, 2.0)
    assert given.predict(files[0])[0].score == pytest.approx(detector.predict(files[0])[0].score, abs=1e-6)
    detector.set_peers(None)


def test_tiles_judge_each_image_by_itself(detector, alike):
    detector.set_peers(sorted(alike.iterdir()))
    with pytest.raises(InputError, match="leave --tile or --peers out"):
        TiledDetector(detector)
    detector.set_peers(None)


def test_a_run_says_what_was_compared_and_goes_on_with_the_same(alike, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("predict", "in", "-o", "run", "--peers", "4", "--quiet") == 0
    first = Run.open(tmp_path / "run")
    assert first.settings["peers"] == {"images": 4, "weight": 1.0}
    names = first.facts["arguments"]["peer_names"]
    assert len(names) == 4
    assert "found without --peers" in first.judgement["note"]
    scores = {row.path: row.score for row in first.rows}

    for index in range(20, 40):  # of so many names, others would have been chosen
        shutil.copy(alike / "1.png", alike / f"{index}.png")
    (tmp_path / "run" / "results.csv").unlink()
    assert run("predict", "in", "-o", "run", "--peers", "4", "--resume", "--quiet") == 0
    second = Run.open(tmp_path / "run")
    assert second.facts["arguments"]["peer_names"] == names
    assert len(second.rows) == 28
    assert {row.path: row.score for row in second.rows}.items() >= scores.items()
    for row in second.rows:
        if int(row.path.removesuffix(".png")) >= 20:
            assert row.score == pytest.approx(scores["1.png"], abs=1e-4)

    capsys.readouterr()
    assert run("predict", "in", "-o", "run", "--resume", "--quiet") == 2
    assert "peers.images 4 there, None now" in capsys.readouterr().err
    assert run("predict", "in", "-o", "run", "--peers", "5", "--resume", "--quiet") == 2
    assert "peers.images 4 there, 5 now" in capsys.readouterr().err
    (alike / names[0]).unlink()
    assert run("predict", "in", "-o", "run", "--peers", "4", "--resume", "--quiet") == 2
    assert f"{names[0]}, which the images of this run were compared with, cannot be read" in capsys.readouterr().err


def test_shards_choose_alike_and_merge(alike, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("predict", "in", "-o", "whole", "--peers", "4", "--quiet") == 0
    for index in (1, 2):
        assert run("predict", "in", "-o", "parts", "--peers", "4", "--shard", f"{index}/2", "--quiet") == 0
    assert run("merge", "parts", "--quiet") == 0
    whole, merged = Run.open(tmp_path / "whole"), Run.open(tmp_path / "parts")
    assert {row.path: row.score for row in merged.rows} == pytest.approx(
        {r.path: r.score for r in whole.rows}, abs=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--tile"], "leave one of them out"),
        (["--method", "winclip"], "winclip cannot compare"),
        (["--peer-weight", "-1"], "peer-weight"),
    ],
)
def test_what_does_not_go_together(alike, tmp_path, capsys, arguments, reason):
    assert run("predict", alike, "-o", tmp_path / "run", "--peers", "4", "--quiet", *arguments) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "run" / RUN_JSON).exists()


@pytest.mark.parametrize("command", [("predict", "in"), ("evaluate", "-d", "folder=in")])
def test_a_weight_of_nothing_is_an_error(alike, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert run(*command, "-o", "run", "--peer-weight", "2", "--quiet") == 2
    assert "add --peers" in capsys.readouterr().err


def test_a_calibration_of_compared_images_is_for_compared_images(alike, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("predict", "in", "-o", "run", "--peers", "4", "--quiet") == 0
    assert run("calibrate", "run", "--false-alarms", "0.3", "-o", "line.json") == 0
    assert json.loads((tmp_path / "line.json").read_text())["model"]["peers"] == {"images": 4, "weight": 1.0}
    assert run("predict", "in", "-o", "again", "--peers", "4", "--calibration", "line.json", "--quiet") == 0
    capsys.readouterr()
    assert run("predict", "in", "-o", "alone", "--calibration", "line.json", "--quiet") == 2
    assert "peers" in capsys.readouterr().err
