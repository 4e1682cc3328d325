"""Few-shot evaluation: which normal images are taken, that nothing is scored on them, and what methods do with them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from commands import run
from evaluation.evaluate_files import write_kinds
from headclip import Detector
from headclip.data.datasets import open_dataset
from headclip.errors import InputError
from headclip.evaluation.evaluate import Options, evaluate, evaluate_together
from headclip.evaluation.shots import ShotOptions, take_shots
from headclip.evaluation.unchanged import is_unchanged
from headclip.runs.files import RunFolderError
from inference.test_peers import write_alike

OPTIONS = Options(bootstrap=0, figures=False, worst=2, shots=3)


@pytest.fixture(scope="module")
def detector():
    return Detector(device="cpu", batch_size=4)


@pytest.fixture
def root(tmp_path):
    return write_kinds(tmp_path / "set", 6, (0, 1, 2, 3))


def names_of(dataset, shots):
    return {category: [dataset.relative(path) for path in files] for category, files in shots.files.items()}


def test_shots_are_normal_and_no_test_images_any_more(root):
    dataset = open_dataset("folder", root)
    rest, shots = take_shots(dataset, ShotOptions(3))
    taken = {path for files in shots.files.values() for path in files}
    assert taken == set(shots.left_out)
    assert {category: len(files) for category, files in shots.files.items()} == {"bars": 3, "noise": 3}
    assert len(rest) == len(dataset) - 6
    assert not taken & {record.path for record in rest.records}
    assert all("/good/" in path.as_posix() for path in taken)


def test_a_seed_draws_the_same_and_others_draw_others(root):
    dataset = open_dataset("folder", root)
    drawn = [names_of(dataset, take_shots(dataset, ShotOptions(3, seed))[1]) for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({json.dumps(one, sort_keys=True) for one in drawn}) > 2
    more = names_of(dataset, take_shots(dataset, ShotOptions(4))[1])
    assert all(more[category][:3] == files for category, files in drawn[0].items())  # 4 shots are 3 and another one


def test_training_images_are_taken_where_there_are_some(root):
    training = write_alike(root / "bars" / "train" / "good", 11, spot=())
    for index in range(6):  # copies of test images
        (training / f"{index}.png").unlink()
    dataset = open_dataset("folder", root)
    rest, shots = take_shots(dataset, ShotOptions(3))
    assert all("/bars/train/good/" in path.as_posix() for path in shots.files["bars"])
    assert all("/noise/test/good/" in path.as_posix() for path in shots.files["noise"])
    assert len(rest) == len(dataset) - 3
    alone = open_dataset("folder", root / "bars")
    rest, shots = take_shots(alone, ShotOptions(5))
    assert (len(rest), shots.left_out) == (len(alone), [])


def test_copies_of_shots_are_no_shots_and_not_scored(root):
    for index in range(6):
        shutil.copy(root / f"bars/test/good/{index}.png", root / f"bars/test/good/again-{index}.png")
    dataset = open_dataset("folder", root / "bars")
    rest, shots = take_shots(dataset, ShotOptions(4))
    (files,) = shots.files.values()
    assert len({path.read_bytes() for path in files}) == 4
    assert len(shots.left_out) == 8
    assert not {path.read_bytes() for path in files} & {record.path.read_bytes() for record in rest.records}
    with pytest.raises(InputError, match="too few to take 7"):
        take_shots(dataset, ShotOptions(7))


def test_what_cannot_be_read_is_no_shot_and_stays_a_failed_row(detector, root, tmp_path):
    dataset = open_dataset("folder", root)
    broken = take_shots(dataset, ShotOptions(1))[1].files["bars"][0]
    broken.write_bytes(b"no image")
    (result,) = evaluate(detector, [open_dataset("folder", root)], tmp_path / "e", OPTIONS).results
    assert [image.name for image in result.not_scored()] == [dataset.relative(broken)]


def test_too_few_normal_images_are_an_error(root):
    dataset = open_dataset("folder", root)
    with pytest.raises(InputError, match=r"noise has 5 normal image\(s\) among its test images, too few to take 5"):
        take_shots(dataset, ShotOptions(5))  # none would be left
    write_alike(root / "noise" / "train" / "good", 2, spot=())
    with pytest.raises(InputError, match=r"noise has 2 normal image\(s\) in .*train/good, too few to take 3"):
        take_shots(open_dataset("folder", root), ShotOptions(3))


def test_each_image_is_compared_with_the_shots_of_its_category(detector, root, tmp_path):
    dataset = open_dataset("folder", root)
    evaluation = evaluate(detector, [dataset], tmp_path / "e", OPTIONS)
    (result,) = evaluation.results
    rest, shots = take_shots(dataset, ShotOptions(3))
    assert detector.references == []  # it is left as it was
    found = {image.name: image.score for image in result.images}
    assert set(found) == {dataset.relative(record.path) for record in rest.records}
    for category in ("bars", "noise"):
        detector.set_references(shots.files[category])
        for record in rest.of(category):
            name = dataset.relative(record.path)
            assert found[name] == pytest.approx(detector.predict(record.path)[0].score, abs=1e-5), name
        detector.set_references(None)
    stored = json.loads((tmp_path / "e/results.json").read_text())
    assert stored["shots"] == {
        "set": {
            "left_out": [dataset.relative(path) for path in shots.left_out],
            "images": names_of(dataset, shots),
        }
    }
    assert stored["results"][0]["detector"]["shots"] == {"images": 3, "seed": 0}
    tables = (tmp_path / "e/tables.md").read_text()
    assert "another task than that of zero-shot figures: 3 normal images of each category, seed 0 (--shots)" in tables
    assert "; test images that are left out of all figures for it: 6 of set" in tables


def test_several_numbers_judge_the_same_images(detector, root, tmp_path):
    """Each as an evaluation would that takes so many of the shots alone; 0 is zero-shot."""
    dataset = open_dataset("folder", root)
    counts = {"none": 0, "two": 2, "three": 3}
    detectors = {label: Detector(detector.backbone, device="cpu") for label in counts}
    several = evaluate_together(detectors, [dataset], tmp_path / "e", replace(OPTIONS, shots=counts))
    rest, shots = take_shots(dataset, ShotOptions(3))
    scores = {result.method: {image.name: image.score for image in result.images} for result in several.results}
    assert {len(found) for found in scores.values()} == {len(rest)}
    for label, count in counts.items():
        for category in ("bars", "noise"):
            detector.set_references(shots.files[category][:count] or None)
            for record in list(rest.of(category))[:3]:
                expected = detector.predict(record.path)[0].score
                assert scores[label][dataset.relative(record.path)] == pytest.approx(expected, abs=1e-5)
            detector.set_references(None)
    stored = json.loads((tmp_path / "e/results.json").read_text())
    assert [one["detector"].get("shots", {}).get("images") for one in stored["results"]] == [None, 2, 3]
    tables = (tmp_path / "e/tables.md").read_text()
    assert "none: zero-shot; two: 2 normal images of each category, seed 0 (--shots); three: 3 normal" in tables


@pytest.mark.parametrize("images", [0, -1, {}, {"a": 0}, {"a": 2, "b": -1}])
def test_numbers_that_say_nothing_are_refused(images):
    with pytest.raises(InputError, match="--shots needs 1 or more"):
        ShotOptions(images)


def test_the_command_takes_several(root, tmp_path, capsys):
    given = ["--data", f"folder={root}", "--out", tmp_path / "e", "--bootstrap", "0", "--no-figures", "--worst", "0"]
    assert run("evaluate", *given, "--method", "headclip,anovl", "--shots", "0,3", "--limit", "3") == 0
    stored = json.loads((tmp_path / "e/results.json").read_text())
    assert [one["method"] for one in stored["results"]] == ["headclip", "headclip (3-shot)", "anovl"]
    assert [bool(one["detector"].get("shots")) for one in stored["results"]] == [False, True, False]
    assert run("evaluate", *given, "--overwrite", "--shots", "1,3") == 2
    assert "headclip (1-shot) needs at least 2" in " ".join(capsys.readouterr().err.split())
    for wrong in ("some", "0", "-1,2", "", "1,,2"):
        assert run("evaluate", *given, "--overwrite", f"--shots={wrong}") == 2
        err = " ".join(capsys.readouterr().err.split())
        assert "give a number of normal images" in err or "is empty" in err


def test_a_ring_that_no_shot_has_counts_for_more(detector, root, tmp_path):
    dataset = open_dataset("folder", root / "bars")
    few = evaluate(detector, [dataset], tmp_path / "few", OPTIONS).results[0]
    zero = evaluate(detector, [dataset], tmp_path / "zero", replace(OPTIONS, shots=None)).results[0]
    scored = {image.name for image in few.images}

    def ahead(result):
        """By how much the ringed images score above the normal ones, those that both have scored."""
        scores = {0: [], 1: []}
        for image in result.images:
            if image.name in scored:
                scores[image.record.label].append(image.score)
        return min(scores[1]) - max(scores[0])

    assert ahead(few) > ahead(zero) + 0.05


def test_going_on_takes_the_same_shots_and_no_others(detector, root, tmp_path):
    dataset = open_dataset("folder", root)
    evaluate(detector, [dataset], tmp_path / "e", OPTIONS)
    again = replace(OPTIONS, resume=True)
    evaluate(detector, [dataset], tmp_path / "e", again)
    assert is_unchanged(tmp_path / "e", {"headclip": detector}, [dataset], again)
    assert not is_unchanged(tmp_path / "e", {"headclip": detector}, [dataset], replace(again, shots=2))
    with pytest.raises(RunFolderError, match="shots"):
        evaluate(detector, [dataset], tmp_path / "e", replace(again, shots=2))
    with pytest.raises(RunFolderError, match="shots"):
        evaluate(detector, [dataset], tmp_path / "e", replace(again, shots=None))


def test_methods_that_take_none_are_zero_shot_in_the_same_tables(detector, root, tmp_path):
    anovl = Detector(detector.backbone, device="cpu", method="anovl", batch_size=2)
    together = evaluate_together(
        {"ours": detector, "anovl": anovl}, [open_dataset("folder", root)], tmp_path / "e", OPTIONS
    )
    assert ["shots" in result.facts for result in together.results] == [True, False]
    assert len({len(result.images) for result in together.results}) == 1
    assert "anovl: zero-shot; test images" in (tmp_path / "e/tables.md").read_text()
    with pytest.raises(InputError, match="anovl cannot use normal images"):
        evaluate(anovl, [open_dataset("folder", root)], tmp_path / "a", OPTIONS)


def test_images_of_its_own_and_shots_exclude_each_other(detector, root, tmp_path):
    detector.set_references(sorted((root / "bars/test/good").glob("*.png"))[:3])
    with pytest.raises(InputError, match="leave one out"):
        evaluate(detector, [open_dataset("folder", root)], tmp_path / "e", OPTIONS)
    detector.set_references(None)


def test_tables_say_that_a_method_had_normal_images(detector, root, tmp_path):
    detector.set_references(sorted(write_alike(tmp_path / "good", 3, spot=()).glob("*.png")))
    try:
        data = [open_dataset("folder", root / "noise")]
        (result,) = evaluate(detector, data, tmp_path / "e", replace(OPTIONS, shots=None)).results
    finally:
        detector.set_references(None)
    assert len(result.facts["references"]) == 3
    tables = (tmp_path / "e/tables.md").read_text()
    assert "another task than that of zero-shot figures: 3 normal images, the same for all that is judged" in tables


@pytest.mark.parametrize("compared", [{"shots": 3}, {"shots": None, "peers": 3}])
def test_thresholds_of_a_detector_are_refused(detector, root, tmp_path, compared):
    detector.set_calibration("default")
    try:
        with pytest.raises(InputError, match="leave the calibration out"):
            evaluate(detector, [open_dataset("folder", root)], tmp_path / "e", replace(OPTIONS, **compared))
    finally:
        detector.set_calibration(None)
