"""Which images are shown, in which colours, beside which ground truth."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from headclip.data.datasets import open_spec
from headclip.data.discover import discover
from headclip.errors import InputError
from headclip.inference.predict import predict_run
from headclip.inspection.choosing import choose_images
from headclip.inspection.comparison import SIDE, compare_methods, compare_runs, run_titles
from headclip.inspection.scales import TAIL, RankScale, choose_scales
from headclip.inspection.truth import TruthFinder, without_masks
from headclip.runs.overlay import Scale
from headclip.runs.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")


@pytest.fixture
def folder(tmp_path):
    """MVTec folders: one good image, two defects with masks; sizes differ."""
    rng = np.random.default_rng(0)
    sizes = {"good/0": (40, 60), "hole/0": (60, 40), "hole/1": (40, 60)}
    for name, size in sizes.items():
        path = tmp_path / "set" / "test" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 200, (*size, 3)).astype(np.uint8)
        if "hole" in name:
            pixels[5:20, 5:20] = 255
            mask = np.zeros(size, np.uint8)
            mask[5:20, 5:20] = 255
            target = tmp_path / "set" / "ground_truth" / f"{name}_mask.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(target)
        Image.fromarray(pixels).save(path)
    return tmp_path / "set"


def test_images_are_chosen_by_ranks():
    scores = np.array([[0.10, 900.0], [0.11, 100.0], [0.12, 500.0], [0.13, 910.0]])  # ranks 0123 and 2013
    assert choose_images(scores, 2, "first") == [0, 1]
    assert choose_images(scores, 1, "anomalous") == [3]
    assert choose_images(scores, 1, "different") == [0]
    assert choose_images(scores, 2, "even") == [3, 1]
    assert choose_images(scores, 9, "even") == choose_images(scores, 9, "anomalous") == [3, 2, 0, 1]


def test_the_most_wrong_are_misses_and_false_alarms_in_turn():
    scores = np.array([[0.9], [0.1], [0.5], [0.2], [0.8], [0.7]])
    labels = [0, 1, 1, 0, None, 1]
    assert choose_images(scores, 3, "wrong", labels) == [1, 0, 2]
    assert choose_images(scores, 9, "wrong", labels) == [1, 0, 2, 3, 5]
    with pytest.raises(InputError, match="labelled dataset"):
        choose_images(scores, 3, "wrong", [None] * 6)


def test_equal_scores_share_their_rank():
    assert choose_images(np.array([[0.5, 0.5], [0.5, 0.9], [0.5, 0.1]]), 3, "anomalous") == [1, 0, 2]


def test_impossible_choices_are_refused():
    with pytest.raises(InputError, match="two methods"):
        choose_images(np.ones((3, 1)), 1, "different")
    with pytest.raises(InputError, match="unknown choice"):
        choose_images(np.ones((3, 1)), 1, "best")


def test_rank_scale_marks_the_highest_shares():
    values = np.random.default_rng(1).permutation(np.linspace(0.2, 0.3, 40_000, dtype=np.float32)).reshape(200, 200)
    scale = RankScale.of([values])
    for tail, position in ((0.5, 0.0), (0.05, 0.37), (0.001, 1.0)):
        marked = (
            (scale.normalise(values) > position - 1e-6).mean() if position else (scale.normalise(values) > 0).mean()
        )
        assert marked == pytest.approx(tail, rel=0.1)
    np.testing.assert_allclose(scale.thresholds, [0.3 - 0.1 * tail for tail in TAIL], atol=1e-3)


def test_ranks_do_not_depend_on_a_methods_own_scale():
    rng = np.random.default_rng(2)
    values = rng.random((50, 60), dtype=np.float32)
    other = values * 0.5 + 0.4  # rising
    one, two = choose_scales([[values, other]], "rank")
    np.testing.assert_allclose(one.normalise(values), two.normalise(other), atol=0.05)


def test_a_flat_map_gets_no_colour():
    flat = np.full((20, 20), 0.51, np.float32)
    assert RankScale.of([flat]).normalise(flat).max() == 0.0


def test_scales_of_values():
    low, high = np.zeros((9, 9), np.float32), np.full((9, 9), 0.8, np.float32)
    one, two = choose_scales([[low, high]], "value")
    assert one == two
    first, second = choose_scales([[low, high]], "method")
    assert first.high < second.low
    assert choose_scales([[low, high]], "value", (0.1, 0.4)) == (Scale(0.1, 0.4),) * 2
    for kind, limits in (("value", (0.4, 0.1)), ("value", (0.0, 1.2)), ("rank", (0.0, 0.5)), ("other", None)):
        with pytest.raises(InputError):
            choose_scales([[low, high]], kind, limits)


def test_truth_from_a_dataset(folder, detector_of):
    truths = TruthFinder([open_spec(f"folder={folder}")])
    images = truths.images
    assert len(images) == 3
    found = compare_methods({"A": detector_of("headclip"), "B": detector_of("clip")}, images, truths, count=3)
    by_name = {image.name: image for image in found.images}
    good, bad = by_name["test/good/0.png"], by_name["test/hole/0.png"]
    assert (good.truth.label, good.truth.mask.any()) == (0, False)
    assert bad.truth.mask.shape == (60, 40)
    assert bad.truth.mask[12, 12]
    assert not bad.truth.mask[40, 30]
    assert found.kind == "rank"
    assert [len(image.maps) for image in found.images] == [2, 2, 2]
    detector = detector_of("clip")
    alone = detector.predict([folder / "test/hole/0.png"], ["set"])[0]  # the category is the dataset's
    assert bad.scores[1] == pytest.approx(alone.score, abs=1e-5)
    np.testing.assert_allclose(bad.maps[1], alone.anomaly_map, atol=1e-5)


def test_truth_from_a_folder_of_masks(folder):
    images = list(discover([folder / "test"]))
    truths = TruthFinder(masks=folder / "ground_truth")
    known = {image.name: truths.find(image, (30, 20)) for image in images}
    assert known["hole/0.png"].mask.shape == (30, 20)
    assert known["hole/0.png"].label == 1
    assert known["good/0.png"].label is None
    single = discover([folder / "test" / "hole" / "1.png"]).files[0]
    assert truths.knows(single)  # by its last part, which only one mask has
    from_above = {image.name: truths.knows(image) for image in discover([folder])}
    assert from_above["test/hole/1.png"]
    assert not from_above["test/good/0.png"]
    with pytest.raises(InputError, match="no mask in"):
        TruthFinder(masks=folder / "nothing")


def test_one_mask_for_two_images_is_refused(folder, detector_of):
    (folder / "flat").mkdir()
    Image.new("L", (60, 40)).save(folder / "flat" / "0.png")
    images = list(discover([folder / "test"]))
    with pytest.raises(InputError, match="fits both"):
        compare_methods({"A": detector_of("headclip")}, images, TruthFinder(masks=folder / "flat"))


def test_masks_among_images_are_not_shown(tmp_path):
    for name in ("a.png", "a_mask.png", "b_mask.png"):
        Image.new("L", (20, 20)).save(tmp_path / name)
    names = [image.name for image in without_masks(list(discover([tmp_path])))]
    assert names == ["a.png", "b_mask.png"]


def test_broken_images_are_left_out(folder, detector_of):
    (folder / "test" / "hole" / "2.png").write_bytes(b"no image")
    images = list(discover([folder / "test"]))
    for rule in ("first", "anomalous"):
        found = compare_methods({"A": detector_of("headclip")}, images, count=2, rule=rule)
        assert len(found.images) == 2
    assert "hole/2.png" in dict(found.left_out)
    broken = [image for image in images if image.name == "hole/2.png"]
    with pytest.raises(InputError, match="no image can be shown"):
        compare_methods({"A": detector_of("headclip")}, broken)


def test_choosing_judges_every_image_first(folder, detector_of):
    images = list(discover([folder / "test"]))
    detector = detector_of("headclip")
    scores = {image.name: detector.predict([image.path])[0].score for image in images}
    found = compare_methods({"A": detector}, images, count=1, rule="anomalous")
    assert found.images[0].name == max(scores, key=scores.get)
    assert (found.candidates, found.kind) == (3, "value")


def test_large_images_are_reduced(tmp_path, detector_of):
    Image.new("RGB", (2 * SIDE, SIDE)).save(tmp_path / "large.png")
    (image,) = compare_methods({"A": detector_of("headclip")}, list(discover([tmp_path]))).images
    assert image.size == (SIDE, 2 * SIDE)
    assert image.image.shape == (SIDE // 2, SIDE, 3)
    assert image.maps[0].shape == (SIDE // 2, SIDE)


@pytest.fixture
def runs(folder, detector_of, tmp_path):
    found = {}
    for name in ("headclip", "clip"):
        predict_run(detector_of(name), discover([folder / "test"]), tmp_path / name)
        found[name] = Run.open(tmp_path / name)
    return found


def test_runs_side_by_side(runs, folder):
    found = compare_runs(runs, TruthFinder([open_spec(f"folder={folder}")]), count=2, rule="anomalous")
    assert len(found.images) == 2
    for image in found.images:
        for column, run in enumerate(runs.values()):
            row = next(row for row in run.ok if row.path == image.name)
            assert image.scores[column] == pytest.approx(row.score)
            np.testing.assert_allclose(image.maps[column], run.load_map(row), atol=1e-6)
    assert found.knows_truth


def test_runs_show_their_previews_when_images_are_gone(runs, folder):
    for path in (folder / "test").rglob("*.png"):
        path.unlink()
    found = compare_runs(runs, count=3, rule="first")
    assert found.images[0].image.shape[:2] == found.images[0].size


def test_runs_with_nothing_in_common(runs, tmp_path, detector_of):
    (tmp_path / "other").mkdir()
    Image.new("RGB", (30, 30)).save(tmp_path / "other" / "z.png")
    predict_run(detector_of("headclip"), discover([tmp_path / "other"]), tmp_path / "run-z")
    with pytest.raises(InputError, match="no judged image in common"):
        compare_runs({"a": runs["headclip"], "z": Run.open(tmp_path / "run-z")})


def test_titles_of_runs(runs, tmp_path):
    folders = [run.folder for run in runs.values()]
    both = list(runs.values())
    assert run_titles(folders, both, {"clip": "CLIP"}) == ["headclip", "CLIP"]
    same = [both[0], both[0]]
    assert run_titles([tmp_path / "x", tmp_path / "y"], same, {}) == ["x", "y"]
    assert run_titles([tmp_path / "x/r", tmp_path / "y/r"], same, {}) == ["x/r", "y/r"]
    with pytest.raises(InputError, match="named twice"):
        run_titles([folders[0], folders[0]], same, {})
