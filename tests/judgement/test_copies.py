"""Copies count once; calibration images among the judged ones are told; pixel thresholds from masks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headclip.data.discover import discover
from headclip.data.hashing import pixel_hash
from headclip.judgement import Calibration, Promise, RegionRules
from headclip.judgement.calibrate import calibrate, calibrate_labelled, count_once
from headclip.judgement.conformal import TooFewImagesError
from headclip.judgement.copies import calibrated_on, exact_copies, near_copies, path_mark, thumbnail
from headclip.judgement.optimal import MaskedPixels, optimal_pixels
from headclip.judgement.scored import Scored, score_images
from inference.fake_detector import FakeDetector
from judgement.stored import stored
from judgement.test_judging_cli import folder, run  # noqa: F401 (a fixture)

FACTS = {"method": "fake", "references": []}


def texture(seed: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def scored_of(place: Path) -> Scored:
    return score_images(FakeDetector(), discover([place]).files, RegionRules())


def test_copies_count_once(tmp_path):
    for seed in range(20):
        Image.fromarray(texture(seed)).save(tmp_path / f"{seed:02}.png")
    clean = scored_of(tmp_path)
    for name in ("03", "17"):
        shutil.copy(tmp_path / f"{name}.png", tmp_path / f"{name} again.png")
    Image.open(tmp_path / "05.png").save(tmp_path / "05.bmp")  # the same pixels in another format
    shutil.copy(tmp_path / "05.png", tmp_path / "05 again.png")
    again = scored_of(tmp_path)
    assert len(again.scores) == 24
    found = calibrate(again, FACTS, Promise(0.05))
    expected = calibrate(clean, FACTS, Promise(0.05))
    assert (found.image, found.pixel) == (expected.image, expected.pixel)
    assert found.image.images == 20
    assert (found.data["copies"], found.data["scored"], found.data["images"]) == (4, 20, 24)
    assert expected.data["copies"] == 0
    _, repeated = count_once(again, FACTS)
    assert repeated.copies["05.bmp"] == repeated.copies["05.png"] == "05 again.png"  # the first by name stays


def test_copies_would_have_broken_the_promise():
    """Twenty images five times each seem to be a hundred, enough for 1 %; over random sets of real scores more than
    that raises an alarm. Counted once, they are too few."""
    scores, rng, promise = stored("sdd"), np.random.default_rng(0), Promise(0.01)
    rates = []
    for _ in range(200):
        order = rng.permutation(len(scores))
        names = [f"{index % 20}-{index // 20}" for index in range(100)]
        values = [float(scores[order[index % 20]]) for index in range(100)]
        found = calibrate(Scored(names, values, None), FACTS, promise)
        rates.append(float((scores[order[20:]] > found.image.threshold).mean()))
    assert np.mean(rates) > promise.false_alarms + 3 * np.std(rates) / np.sqrt(200)
    contents = {name: name.partition("-")[0] for name in names}
    with pytest.raises(TooFewImagesError, match="20 images are too few"):
        calibrate(Scored(names, values, None, contents=contents), FACTS, promise)


def test_reference_images_are_no_normals(tmp_path):
    for seed in range(12):
        Image.fromarray(texture(seed)).save(tmp_path / f"{seed:02}.png")
    facts = {**FACTS, "references": [pixel_hash(texture(4)), "0" * 64]}
    kept, repeated = count_once(scored_of(tmp_path), facts)
    assert repeated.references == ("04.png",)
    assert kept.source["references"] == 1
    assert len(kept.scores) == 11
    left_out = replace(scored_of(tmp_path), left_out=frozenset({pixel_hash(texture(4))}))
    kept, repeated = count_once(left_out, facts)
    assert repeated.references == ()
    assert (kept.source["references"], kept.source["left_out"], len(kept.scores)) == (0, 1, 12)


def test_copies_are_counted_once_for_each_label():
    """The first of three copies was labelled otherwise than both of the others, which are copies of each other."""
    images = Scored(list("abc"), [0.1, 0.1, 0.1], None, contents=dict.fromkeys("abc", "same"))
    kept, repeated = count_once(images, FACTS, {"a": 0, "b": 1, "c": 1})
    assert kept.names == ["a", "b"]
    assert repeated.copies == {"c": "b"}


def test_copies_with_another_label_are_kept():
    images = Scored(["a", "b", "c"], [0.1, 0.1, 0.2], None, contents={"a": "1", "b": "1", "c": "1"})
    kept, repeated = count_once(images, FACTS, {"a": 0, "b": 1, "c": 0})
    assert kept.names == ["a", "b"]
    assert repeated.copies == {"c": "a"}
    assert exact_copies({}) == {}


def test_what_was_not_at_hand_is_not_called_checked():
    kept, _ = count_once(Scored(["a", "b"], [0.1, 0.1], None), FACTS)
    assert kept.source == {"copies": None, "references": None, "near_copies": None, "files": []}


def test_near_copies_are_told_and_kept(tmp_path):
    for seed in range(6):
        smooth = Image.fromarray(texture(seed, (6, 8))).resize((320, 240), Image.Resampling.BICUBIC)
        smooth.save(tmp_path / f"{seed}.png")
        if seed == 2:
            smooth.save(tmp_path / "2 saved.jpg", quality=90)
            smooth.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "2 mirrored.png")
    kept, repeated = count_once(scored_of(tmp_path), FACTS)
    assert [set(pair) for pair in repeated.near] == [{"2.png", "2 saved.jpg"}]
    assert kept.source["near_copies"] == 1
    assert len(kept.scores) == 8


def test_flat_pictures_and_other_scores_are_no_copies():
    flat, same = np.full((40, 40, 3), 7, np.uint8), thumbnail(texture(1))
    assert not thumbnail(flat).any()
    assert near_copies([0.1, 0.1], [thumbnail(flat)] * 2) == []
    assert near_copies([0.1, 0.2], [same] * 2) == []
    assert near_copies([0.2, 0.1, 0.2], [same, thumbnail(texture(2)), same]) == [(0, 2)]
    assert near_copies([0.1], [same]) == []


def test_calibration_images_are_found_by_content(tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    for seed in range(4):
        Image.fromarray(texture(seed)).save(place / f"{seed}.png")
    data = {"files": [path_mark(place / "1.png"), path_mark(place / "2.png")]}
    (place / "2.png").rename(place / "renamed.png")
    changed = bytearray((place / "1.png").read_bytes())
    changed[-20] ^= 1  # of the same size
    (place / "changed.png").write_bytes(changed)
    assert sorted(path.name for path in calibrated_on(data, place.iterdir())) == ["1.png", "renamed.png"]
    assert calibrated_on({}, place.iterdir()) == []
    assert calibrated_on(data, [place / "missing.png", place]) == []


def test_the_commands_say_it(folder, capsys):  # noqa: F811
    shutil.copy("in/good/1.png", "in/good/copy.png")
    assert run("calibrate", "in/good", "--out", "c.json", "--false-alarms", "0.05") == 0
    text = capsys.readouterr().out
    assert "Exact copies of other images, which count once with them: 1" in text
    assert "copy.png = 1.png" in text
    assert "calibrated on 30 normal images" in text
    data = json.loads(Path("c.json").read_text())["data"]
    assert (data["copies"], len(data["files"])) == (1, 30)
    assert run("calibrate", "in/good", "--out", "d.json", "--false-alarms", "0.032") == 2  # 31 would be enough
    shown = capsys.readouterr()
    assert "Exact copies of other images, which count once with them: 1" in shown.out
    assert "30 images are too few" in shown.err
    assert run("predict", "in", "--out", "run", "--calibration", "c.json") == 0
    assert "31 of these images were used for the calibration" in capsys.readouterr().err  # the copy as well
    assert run("rejudge", "run", "--calibration", "c.json") == 0
    assert "31 of these images were used for the calibration" in capsys.readouterr().err
    assert run("predict", "in/bad", "--out", "other", "--calibration", "c.json") == 0
    assert "were used for the calibration" not in capsys.readouterr().err
    assert run("calibrate", "run", "--out", "e.json", "--false-alarms", "0.05") == 0
    assert "Exact copies of other images" in capsys.readouterr().out
    assert Calibration.load("e.json").data["references"] is None


maps_and_masks = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=4, max_size=4), min_size=1, max_size=4
).filter(lambda images: 0 < sum(bad for image in images for _, bad in image) < 4 * len(images))


@settings(deadline=None, max_examples=60)
@given(maps_and_masks)
def test_the_pixel_threshold_by_brute_force(images):
    counts = MaskedPixels()
    for image in images:
        values = np.array([value for value, _ in image], np.float32).reshape(2, 2) / 9
        counts.add(values, np.array([bad for _, bad in image]).reshape(2, 2))
    values = np.array([value for image in images for value, _ in image]) / 9
    truth = np.array([bad for image in images for _, bad in image])

    def f1(threshold: float) -> float:
        alarm = values > threshold
        return 2 * (alarm & truth).sum() / (truth.sum() + alarm.sum())

    found = optimal_pixels(counts.state)
    assert found.value == pytest.approx(max(f1(threshold) for threshold in [-1.0, *values]))
    assert f1(found.threshold) == pytest.approx(found.value)
    alarm = values > found.threshold
    assert found.precision == pytest.approx((alarm & truth).sum() / alarm.sum())
    assert found.recall == pytest.approx((alarm & truth).sum() / truth.sum())
    assert (found.images, found.defect) == (len(images), truth.sum())


def test_borders_and_images_without_masks():
    counts = MaskedPixels(border=1)
    values = np.zeros((4, 4), np.float32)
    values[0, 0], values[1, 1] = 0.9, 0.4
    mask = np.zeros((4, 4), bool)
    mask[1, 1] = True
    counts.add(values, mask)
    counts.add(values, None)
    counts.add(np.ones((2, 2), np.float32), np.ones((2, 2), bool))  # all border
    found = optimal_pixels(counts.state)
    assert (found.images, found.value, counts.unmasked) == (1, 1.0, 1)
    assert found.threshold < 0.4
    assert optimal_pixels(MaskedPixels().state) is None


def test_masks_give_the_pixel_threshold():
    names = [f"{index}" for index in range(10)]
    images = Scored(names, [index / 10 for index in range(10)], [0.2] * 10)
    labels = {name: int(index >= 5) for index, name in enumerate(names)}
    counts = MaskedPixels()
    counts.add(np.array([[0.1, 0.9]], np.float32), np.array([[False, True]]))
    found = calibrate_labelled(images, labels, FACTS, pixels=counts.state)
    assert found.pixel.threshold == pytest.approx(0.5, abs=1e-4)
    assert found.pixel.images == 1
    assert found.terms.pixel_objective == "f1"
    assert found.terms.false_alarms is None
    assert found.data["pixels"]["value"] == 1.0
    assert "of pixels the best F1 on 1 with masks" in found.describe()
    assert Calibration.from_values(json.loads(found.to_json())) == found
    without = calibrate_labelled(images, labels, FACTS, pixels=MaskedPixels().state)
    assert without.pixel.threshold == 0.2
    assert without.terms.pixel_objective is None
    assert without.data["pixels"] is None


def test_labelled_folders_with_masks(folder, capsys):  # noqa: F811
    """The fake model's map is the brightness, so that bright spots have a threshold that separates them exactly."""
    rng = np.random.default_rng(1)
    for index in range(4):
        pixels = rng.integers(10, 60, (24, 32, 3), dtype=np.uint8)
        mask = np.zeros((24, 32), np.uint8)
        mask[4:10, 6:12] = 255
        pixels[mask > 0] = 230
        for place, content in (("test/bad", pixels), ("ground_truth/bad", mask), ("test/good", pixels // 2)):
            target = Path("set/part", place)
            target.mkdir(parents=True, exist_ok=True)
            suffix = "_mask" if "truth" in place else ""
            Image.fromarray(content).save(target / f"{index:03}{suffix}.png")
    Path("set/part/train/good").mkdir(parents=True)
    assert run("calibrate", "mvtec=set", "--labelled", "--out", "c.json") == 0
    text = capsys.readouterr().out
    found = Calibration.load("c.json")
    if found.terms.pixel_objective is None:
        pytest.fail(text)
    assert "best F1 of pixels 1.000 (precision 1.000, recall 1.000)" in text
    assert 0.5 < found.pixel.threshold < 230 / 255
    assert found.data["pixels"]["defect"] == 4 * 36
    assert found.pixel.images == 8
    assert run("predict", "set", "--out", "run", "-q") == 0  # the same from a run, without the model
    assert run("calibrate", "run", "--labelled", "--out", "d.json", "-q") == 2
    assert "--masks PATH" in capsys.readouterr().err
    assert run("calibrate", "run", "--labelled", "--masks", "mvtec=set", "--out", "d.json", "-q") == 0
    again = Calibration.load("d.json")
    assert (again.image, again.pixel, again.data["pixels"]) == (found.image, found.pixel, found.data["pixels"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in", "--masks", "in"], "--masks needs --labelled"),
        (["in", "--labelled", "--masks", "in"], "--masks is for a RUN"),
    ],
)
def test_masks_where_they_say_nothing(folder, capsys, arguments, words):  # noqa: F811
    assert run("calibrate", *arguments, "--out", "c.json") == 2
    assert words in capsys.readouterr().err
