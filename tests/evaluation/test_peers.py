"""Evaluating with peers: each category among itself, in one go, in shards, and gone on with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evaluation.evaluate_files import picture, write_kinds
from headclip import Detector
from headclip.data.datasets import open_dataset
from headclip.errors import InputError
from headclip.evaluation.evaluate import Options, evaluate, evaluate_together
from headclip.evaluation.judged import name_images
from headclip.evaluation.merging import merge_evaluations
from headclip.inference.peers import pick_peers
from headclip.runs.files import RunFolderError
from headclip.runs.run import Run
from headclip.runs.shards import Shard

OPTIONS = Options(bootstrap=0, figures=False, worst=2, peers=4)


@pytest.fixture(scope="module")
def detector():
    return Detector(device="cpu", batch_size=4)


@pytest.fixture
def root(tmp_path):
    return write_kinds(tmp_path / "set", 5, (3,))


def scores(result):
    return {image.name: image.score for image in result.images}


def test_each_image_is_compared_within_its_category(detector, root, tmp_path):
    dataset = open_dataset("folder", root)
    evaluation = evaluate(detector, [dataset], tmp_path / "e", OPTIONS)
    (result,) = evaluation.results
    found = scores(result)
    assert result.facts["peers"] == {"images": 4, "weight": 1.0}
    assert "peers" not in detector.describe()  # it is left as it was
    run = Run.open(tmp_path / "e/runs" / result.name)
    assert run.settings["peers"] == {"images": 4, "weight": 1.0}
    files = name_images(dataset.records, dataset.root).files
    for category in ("bars", "noise"):
        of_it = [file for file, record in zip(files, dataset.records, strict=True) if record.category == category]
        detector.set_peers([pixels for _, pixels in pick_peers(of_it, 4)])
        for file in of_it:
            name = dataset.relative(file.path)
            assert found[name] == pytest.approx(detector.predict(file.path)[0].score, abs=1e-5), name
        detector.set_peers(None)
    assert "unlabelled others of its kind (--peers)" in (tmp_path / "e/tables.md").read_text()
    assert (tmp_path / "e/worst.html").is_file()


def test_the_worst_pictures_are_judged_among_their_own_category(detector, root, tmp_path):
    """Their maps are made again when other categories have been entered since."""
    options = replace(OPTIONS, keep_maps=False)
    (result,) = evaluate(detector, [open_dataset("folder", root)], tmp_path / "e", options).results
    kept = evaluate(detector, [open_dataset("folder", root)], tmp_path / "k", replace(options, keep_maps=True)).results
    first, last = result.images[0], result.images[-1]
    for image in (last, first, last):
        stored = next(other for other in kept[0].images if other.name == image.name)
        again = image.load_map()
        assert abs(again - stored.load_map()).max() < 2e-4
    detector.set_peers(None)


def test_shards_make_the_whole(detector, root, tmp_path):
    dataset = open_dataset("folder", root)
    (whole,) = evaluate(detector, [dataset], tmp_path / "whole", OPTIONS).results
    for index in (1, 2):
        evaluate(detector, [dataset], tmp_path / "parts", replace(OPTIONS, shard=Shard(index, 2)))
    merged = merge_evaluations([tmp_path / "parts"])
    assert scores(merged.results[0]) == pytest.approx(scores(whole), abs=1e-5)
    assert merged.options.peers == 4


def test_nothing_goes_on_with_others(detector, root, tmp_path):
    evaluate(detector, [open_dataset("folder", root)], tmp_path / "e", OPTIONS)
    again = replace(OPTIONS, resume=True)
    evaluate(detector, [open_dataset("folder", root)], tmp_path / "e", again)
    with pytest.raises(RunFolderError, match="peers"):
        evaluate(detector, [open_dataset("folder", root)], tmp_path / "e", replace(again, peers=None))
    picture(root / "noise" / "test" / "good" / "9.png", 9, size=(96, 96))
    with pytest.raises(RunFolderError, match="among"):
        evaluate(detector, [open_dataset("folder", root)], tmp_path / "e", again)


def test_methods_that_cannot_compare_judge_by_themselves(detector, root, tmp_path):
    winclip = Detector(detector.backbone, device="cpu", method="winclip", batch_size=2)
    together = evaluate_together(
        {"ours": detector, "winclip": winclip}, [open_dataset("folder", root)], tmp_path / "e", OPTIONS
    )
    assert ["peers" in result.facts for result in together.results] == [True, False]
    assert "winclip: with none" in (tmp_path / "e/tables.md").read_text()
    with pytest.raises(InputError, match="winclip cannot compare"):
        evaluate(winclip, [open_dataset("folder", root)], tmp_path / "w", OPTIONS)


def test_a_category_with_one_readable_image_is_no_error(detector, root, tmp_path, caplog):
    for path in sorted((root / "noise").rglob("*.png"))[1:]:
        path.write_bytes(b"no image")
    (result,) = evaluate(detector, [open_dataset("folder", root)], tmp_path / "e", OPTIONS).results
    assert sum(image.ok for image in result.images) == 10
    assert "each image is judged by itself" in caplog.text
