"""Several methods in one evaluation: the figures of single ones, one block of rows each, resumed where one stopped."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from evaluation.evaluate_files import FakeEvaluated, mask, picture, write_set
from headclip.data.datasets import open_dataset
from headclip.errors import InputError
from headclip.evaluation.checks import label_folders
from headclip.evaluation.evaluate import Options, evaluate, evaluate_methods, evaluate_together
from headclip.evaluation.runs import evaluate_runs
from headclip.inference.detector import Detector
from headclip.inference.predict import predict_run
from tiny_clip import make_backbone, make_config

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")
OPTIONS = {"bootstrap": 20, "figures": False, "worst": 1}
METHODS = ("headclip", "clip", "winclip")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset("folder", write_set(tmp_path_factory.mktemp("data") / "cups", normal=2, defects=3))


def build(backbone, method, **settings):
    return Detector(backbone, device="cpu", method=method, image_size=42, precision="fp32", settings=settings)


@pytest.fixture(scope="module")
def together(dataset, tmp_path_factory):
    backbone = make_backbone(make_config())
    out = tmp_path_factory.mktemp("together") / "e"
    return evaluate_together({name: build(backbone, name) for name in METHODS}, [dataset], out, Options(**OPTIONS))


def test_each_method_has_the_figures_of_an_evaluation_of_its_own(dataset, together, tmp_path):
    assert [result.method for result in together.results] == list(METHODS)
    for result in together.results:
        backbone = make_backbone(make_config())
        alone = evaluate(build(backbone, result.method), [dataset], tmp_path / result.method, Options(**OPTIONS))
        assert result.facts == alone.results[0].facts
        assert result.mean["exact"] == pytest.approx(alone.results[0].mean["exact"], abs=2e-3)
        for one, other in zip(result.images, alone.results[0].images, strict=True):
            assert one.score == pytest.approx(other.score, abs=2e-5)


@pytest.mark.parametrize("methods", [("clip",), ("clip", "headclip")])
def test_the_towers_resolution_is_the_size_that_enters_it(methods, dataset, tmp_path):
    backbone = make_backbone(replace(make_config(), keep_aspect=True))
    detectors = {
        name: Detector(backbone, device="cpu", method=name, image_size=56, precision="fp32") for name in methods
    }
    folder, box = tmp_path / "set", (4, 14, 6, 16)
    picture(folder / "test" / "good" / "0.png", 1, size=(38, 30))
    picture(folder / "test" / "bent" / "0.png", 2, box, size=(38, 30))
    mask(folder / "ground_truth" / "bent" / "0_mask.png", box, size=(38, 30))
    detector = detectors["clip"]
    size = detector.input_size(30, 38)
    assert detector.input_size(*size) != size  # what was resized would enter at yet another size
    options = Options(**OPTIONS, resolution="tower", keep_maps=True)
    live = evaluate_together(detectors, [open_dataset("folder", folder)], tmp_path / "e", options)
    maps = [np.asarray(Image.open(path)) for path in (tmp_path / "e").rglob("maps/**/*.png")]
    assert [found.shape for found in maps] == [size] * 2 * len(methods)
    predict_run(detector, [folder], tmp_path / "run")
    again = evaluate_runs([tmp_path / "run"], [open_dataset("folder", folder)], tmp_path / "f", options)
    for evaluation in (live, again):
        state = evaluation.results[0].categories[0].state
        assert state.positives.sum() + state.negatives.sum() == 2 * size[0] * size[1]


def test_tables_have_a_block_of_rows_for_each_and_compare_them(together):
    with (together.out / "tables.csv").open() as handle:
        means = [row["method"] for row in csv.DictReader(handle) if row["kind"] == "mean"]
    assert means == list(METHODS)
    text = (together.out / "tables.md").read_text()
    assert "- method: headclip, clip, winclip" in text
    assert ": clip minus headclip" in text
    assert ": winclip minus headclip" in text
    found = json.loads((together.out / "results.json").read_text())
    assert [(entry["first"], entry["second"]) for entry in found["comparisons"]] == [
        ("headclip", "clip"),
        ("headclip", "winclip"),
    ]
    assert found["comparisons"][0]["metrics"]["image_auroc"]["p_value"] <= 1
    assert not list((together.out / "runs").rglob("counts"))


def test_run_folders_can_be_scored_again(dataset, tmp_path):
    backbone = make_backbone(make_config())
    options = {**OPTIONS, "keep_maps": True}
    detectors = {"the first": build(backbone, "headclip"), "clip": build(backbone, "clip")}
    live = evaluate_methods(detectors, [dataset], tmp_path / "e", Options(**options))
    runs = [tmp_path / "e/runs/cups/the-first", tmp_path / "e/runs/cups/clip"]
    again = evaluate_runs(runs, [dataset], tmp_path / "f", Options(**OPTIONS)).results
    assert [result.method for result in again] == ["the first", "clip"]
    for one, other in zip(live, again, strict=True):
        assert one.mean["exact"] == pytest.approx(other.mean["exact"], abs=5e-3)


class Named(FakeEvaluated):
    """A fake that stops or fails where it is told to."""

    def __init__(self, stop_after=10**9, fail_on=(), **options):
        super().__init__(**options)
        self.stop_after, self.fail_on, self.seen = stop_after, fail_on, 0

        class Method:
            uses_category = False

            def stream(self):
                return None

        self.method, self.backbone, self.precision = Method(), object(), "fp32"

    def predict_arrays(self, images, /):
        for image in images:
            if float(image.mean()) in self.fail_on:
                raise ValueError("too dark")
        self.seen += len(images)
        if self.seen > self.stop_after:
            raise KeyboardInterrupt
        return super().predict_arrays(images)


def test_what_one_method_cannot_judge_the_others_can(dataset, tmp_path):
    record = dataset.records[3]
    from headclip.data.decode import decode

    dark = float(decode(record.path).mean())
    detectors = {"good": Named(), "bad": Named(fail_on=(dark,))}
    good, bad = evaluate_methods(detectors, [dataset], tmp_path / "e", Options(**OPTIONS))
    assert not good.not_scored()
    assert [(image.record.path, image.reason) for image in bad.not_scored()] == [
        (record.path, "the model failed: ValueError: too dark")
    ]


def test_a_stopped_evaluation_goes_on_with_what_each_method_still_has_to_judge(dataset, tmp_path):
    clean = evaluate_methods({"a": Named(), "b": Named()}, [dataset], tmp_path / "clean", Options(**OPTIONS))
    with pytest.raises(KeyboardInterrupt):
        evaluate_methods(
            {"a": Named(batch_size=2), "b": Named(stop_after=4, batch_size=2)},
            [dataset], tmp_path / "e", Options(**OPTIONS),
        )  # fmt: skip
    first, second = Named(batch_size=2), Named(batch_size=2)
    resumed = evaluate_methods({"a": first, "b": second}, [dataset], tmp_path / "e", Options(**OPTIONS, resume=True))
    assert (first.seen, second.seen) == (10 - 6 + 2, 10 - 4 + 2)  # two each are judged again for the page
    for one, other in zip(clean, resumed, strict=True):
        assert one.mean == other.mean
        assert [image.score for image in one.images] == [image.score for image in other.images]


def test_labels_become_folders():
    assert label_folders(["6, 12 (x)", "headclip", "a=b"]) == {
        "6, 12 (x)": "6-12-x", "headclip": "headclip", "a=b": "a=b"
    }  # fmt: skip
    for labels, words in ((["a b", "a/b"], "would share a folder"), (["Á?"[1:]], "letters"), ([], "at least one")):
        with pytest.raises(InputError, match=words):
            label_folders(labels)
