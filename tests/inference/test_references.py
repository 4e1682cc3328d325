"""A few normal images to compare with: from a folder, from Python, with thresholds, and what does not go together."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from commands import run
from headclip import Detector, TiledDetector
from headclip.cli.models import reference_images
from headclip.data.discover import discover
from headclip.errors import ImageError, InputError
from headclip.inference.peers import pick_references
from headclip.inspection import inspect_image
from headclip.runs.run import Run
from inference.test_peers import write_alike


@pytest.fixture(scope="module")
def detector():
    return Detector(device="cpu", batch_size=4)


@pytest.fixture
def good(tmp_path):
    return write_alike(tmp_path / "good", 5, spot=())


@pytest.fixture
def parts(tmp_path):
    """Fifteen parts of the same kind, other noise in each; number 8 has a ring."""
    folder = write_alike(tmp_path / "parts", 20, spot=(8,))
    for index in range(5):  # their noise is that of the normal ones
        (folder / f"{index}.png").unlink()
    return folder


def ahead(predictions, files):
    """By how much the part with the ring scores above all others."""
    scores = {path.name: one.score for one, path in zip(predictions, files, strict=True)}
    return scores.pop("8.png") - max(scores.values())


def test_what_no_normal_image_has_counts_for_more(detector, good, parts):
    files = sorted(parts.glob("*.png"))
    before = detector.predict(files)
    detector.set_references(sorted(good.glob("*.png")))
    after = detector.predict(files)
    assert len(detector.describe()["references"]) == 5
    detector.set_references(None)
    assert detector.describe()["references"] == []
    assert ahead(after, files) > ahead(before, files) + 0.05
    np.testing.assert_array_equal(detector.predict(files[0])[0].anomaly_map, before[0].anomaly_map)


def test_references_are_compared_as_peers_are(detector, good, parts):
    files = sorted(good.glob("*.png"))
    detector.set_references(files)
    ours = detector.predict(sorted(parts.glob("*.png")))
    detector.set_references(None)
    detector.set_peers(files)
    peers = detector.predict(sorted(parts.glob("*.png")))
    detector.set_peers(None)
    assert [one.score for one in ours] == pytest.approx([one.score for one in peers], abs=1e-6)


def test_peers_and_references_exclude_each_other(detector, good):
    files = sorted(good.glob("*.png"))
    with pytest.raises(InputError, match="leave one out"):
        Detector(detector.backbone, device="cpu", references=files, peers=files)
    detector.set_peers(files)
    with pytest.raises(InputError, match="leave one out"):
        detector.set_references(files)
    detector.set_peers(None)
    detector.set_references(files)
    with pytest.raises(InputError, match="leave one out"):
        detector.set_peers(files)
    before = detector.predict(files[0])[0].score
    detector.set_peers(None)  # forgets peers, of which there are none, and nothing else
    assert detector.predict(files[0])[0].score == before
    with pytest.raises(InputError, match="--reference out"):
        TiledDetector(detector)
    detector.set_references(None)


def test_too_few_and_broken_ones_leave_the_detector_as_it_was(detector, good, tmp_path):
    files = sorted(good.glob("*.png"))
    detector.set_references(files)
    with pytest.raises(InputError, match="give at least two"):
        detector.set_references(files[:1])
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageError):
        detector.set_references([files[0], tmp_path / "broken.png"])
    assert len(detector.references) == 5
    detector.set_references(None)


def test_of_a_folder_a_chosen_few_are_taken_and_broken_ones_left_out(good, monkeypatch):
    files = discover([good]).files
    first, broken = pick_references(files, 3)
    assert (len(first), broken) == (3, {})
    assert pick_references(files[::-1], 3)[0] == first
    first[0].write_bytes(b"no image")
    again, broken = pick_references(files, 3)
    assert list(broken) == [first[0].name]
    assert set(first[1:]) < set(again)
    with pytest.warns(UserWarning, match=f"{first[0].name} is left out"):
        assert len(reference_images(good)) == 4
    monkeypatch.setattr("headclip.inference.peers.pick_references.__defaults__", (2,))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(reference_images(good)) == 2
        for file in files:
            file.path.write_bytes(b"no image")
        with pytest.raises(InputError, match="none of its 5 images can be read; give a folder"):
            reference_images(good)
    assert "2 of 5 images are compared with, by chance" in [
        str(one.message).removeprefix("--reference: ") for one in caught
    ]


def test_a_run_says_what_its_verdicts_rest_on_and_goes_on_with_the_same(good, parts, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("predict", parts, "--reference", good, "--out", out) == 0
    opened = Run.open(out)
    assert len(opened.settings["references"]) == 5
    assert opened.judgement["note"].endswith(
        "It was found without --reference, which raises more alarms, true ones and false."
    )
    assert opened.judgement["criteria"]["source"] == "synthetic"
    assert run("predict", parts, "--reference", good, "--out", out, "--resume") == 0
    capsys.readouterr()
    assert run("predict", parts, "--out", out, "--resume") == 2
    assert "references" in capsys.readouterr().err


def test_a_calibration_holds_for_the_same_normal_images_alone(good, parts, tmp_path, capsys):
    others = write_alike(tmp_path / "others", 30, spot=())
    for index in range(5):
        (others / f"{index}.png").unlink()
    line = tmp_path / "line.json"
    assert run("calibrate", others, "--reference", good, "--false-alarms", "0.1", "--out", line) == 0
    assert len(json.loads(line.read_text())["model"]["references"]) == 5
    assert run("predict", parts, "--reference", good, "--calibration", line, "--out", tmp_path / "judged") == 0
    capsys.readouterr()
    assert run("predict", parts, "--calibration", line, "--out", tmp_path / "refused") == 2
    assert "the same --reference" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--peers", "3"], ["--tile"]])
def test_references_beside_peers_or_tiles_are_refused(good, parts, tmp_path, capsys, option):
    assert run("predict", parts, "--reference", good, *option, "--out", tmp_path / "run") == 2
    assert "out" in capsys.readouterr().err


def test_a_map_that_others_have_a_part_in_is_not_split_by_layers(detector, good, parts):
    image = parts / "8.png"
    assert inspect_image(detector, image).layers is not None
    detector.set_references(sorted(good.glob("*.png")))
    seen, found = inspect_image(detector, image), detector.predict(image)[0]
    detector.set_references(None)
    assert seen.layers is None
    assert "compares the image with others" in seen.absent["layers"]
    assert seen.split.score == pytest.approx(found.score, abs=1e-6)
