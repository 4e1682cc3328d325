"""Ablations from beginning to end on a tiny CLIP: the files, the sharing, and going on after a stop."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from ablation.ablation_files import SIZE, datasets, run
from evaluation.evaluate_files import write_set
from headclip.ablation.judging import JudgingSettings
from headclip.ablation.models import MODELS, TrainingData
from headclip.data.datasets import open_dataset
from headclip.errors import DivergedError, InputError
from headclip.evaluation.evaluate import Options, evaluate
from headclip.inference.detector import Detector
from headclip.methods.checkpoint import read_info
from headclip.training.trainer import Trainer
from tiny_clip import make_backbone, make_config


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return datasets(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def modules(tmp_path_factory, data):
    return run("modules", tmp_path_factory.mktemp("modules") / "out", data)


def cell(outcome, label, dataset="average"):
    return next(c for c in outcome.cells if c.variant.label == label and c.dataset == dataset)


def test_files_and_rows(modules):
    names = {path.name for path in modules.out.iterdir()}
    assert names == {"models", "records", "table.md", "table.csv", "results.json"}
    assert len(list((modules.out / MODELS).glob("*.safetensors"))) == 4  # two models, two seeds
    table = (modules.out / "table.md").read_text()
    assert "image mAD, own data" in table
    assert "*89.7*" in table  # the paper's row beside ours
    results = json.loads((modules.out / "results.json").read_text())
    assert results["status"] == "finished"
    assert [row["label"] for row in results["rows"]] == ["LHW and JAS", "LHW", "neither", "JAS"]
    lines = list(csv.DictReader((modules.out / "table.csv").open()))
    ours = [line for line in lines if line["label"] == "LHW and JAS" and line["kind"] == "average"]
    mean, spread = cell(modules, "LHW and JAS").mean("image_mad"), cell(modules, "LHW and JAS").spread("image_mad")
    assert (float(ours[0]["image_mad"]), float(ours[0]["image_mad_std"])) == pytest.approx((mean, spread), abs=1e-4)


def test_the_map_ignores_the_joint_score_and_the_image_score_does_not(modules):
    both, alone = cell(modules, "LHW and JAS"), cell(modules, "LHW")
    assert both.by_seed[1]["pixel_ap"] == alone.by_seed[1]["pixel_ap"]
    assert both.by_seed[1]["image_ap"] != alone.by_seed[1]["image_ap"]
    assert both.by_seed[1]["pixel_ap"] != cell(modules, "neither").by_seed[1]["pixel_ap"]


@pytest.mark.parametrize(("label", "alpha"), [("LHW and JAS", 0.5), ("LHW", 0.0)])
def test_figures_are_those_of_an_evaluation(modules, data, tmp_path, label, alpha):
    results = json.loads((modules.out / "results.json").read_text())
    key = next(row["model"] for row in results["rows"] if row["label"] == label)
    checkpoint = modules.out / MODELS / f"{key}-seed2.safetensors"
    detector = Detector(
        make_backbone(make_config()), checkpoint, device="cpu", image_size=SIZE, settings={"alpha": alpha}
    )
    found = evaluate(detector, data, tmp_path / "e", Options("ader", bootstrap=0, figures=False, worst=0))
    mean = found.results[0].mean["ader"]
    ours = cell(modules, label, data[0].info.family).by_seed[2]
    assert ours == pytest.approx({name: 100 * value for name, value in mean.items()}, abs=1e-4)


def test_the_head_says_how_many_images_are_judged(modules, data, tmp_path):
    assert "- tested on: set0 (12 images)\n" in (modules.out / "table.md").read_text()
    few = run("lhw", tmp_path / "out", data, seeds=(1,), judging=JudgingSettings(device="cpu", limit=4))
    assert "- tested on: set0 (8 of 12 images)\n" in (few.out / "table.md").read_text()


@pytest.mark.parametrize(("settings", "size"), [({}, 42), ({"image_size": 56}, 56)])
def test_images_have_the_backbones_size_unless_another_is_asked_for(data, tmp_path, settings, size, monkeypatch):
    sizes = []
    seen = Detector.input_size
    monkeypatch.setattr(Detector, "input_size", lambda self, *of: sizes.append(self.image_size) or seen(self, *of))
    backbone = make_backbone(replace(make_config(), default_image_size=42))
    outcome = run("lhw", tmp_path, data, ["with LHW"], backbone, image_size=None, settings=settings, seeds=(1,))
    (checkpoint,) = (outcome.out / MODELS).glob("*.safetensors")
    assert read_info(checkpoint).training["image_size"] == [size, size]
    assert set(sizes) == {size}


def test_a_finished_ablation_is_not_done_again(modules, data):
    before = {path: path.stat().st_mtime_ns for path in modules.out.rglob("*seed*") if path.is_file()}
    table = (modules.out / "table.md").read_text()
    stages = []
    again = run("modules", modules.out, data, resume=True, progress=lambda *at: stages.append(at))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not stages
    assert (again.out / "table.md").read_text() == table


def test_leakage_is_found_before_anything_is_trained(data, tmp_path):
    stages = []
    source = TrainingData(str(data[0].root))
    with pytest.raises(InputError, match="Figures on images seen in training mean nothing"):
        run("lhw", tmp_path / "out", data, data_=source, progress=lambda stage, *at: stages.append(stage))
    assert not (tmp_path / "out" / MODELS).exists()
    assert not any(stage.startswith(("training", "features")) for stage in stages)
    allowed = JudgingSettings(device="cpu", allow_leakage=True)
    outcome = run("lhw", tmp_path / "out", data, data_=source, judging=allowed, seeds=(1,), resume=True)
    assert "LEAKAGE" in (outcome.out / "table.md").read_text()


def test_a_model_that_diverges_is_named_and_the_others_go_on(data, tmp_path):
    given = {"only": ["clip", "coop", "linear_heads"], "seeds": (1,)}
    given["train"] = {"epochs": 1, "batch_size": 4, "rate": 1e-2, "coop.rate": 1e30}
    outcome = run("methods", tmp_path / "out", data, **given)
    (failure,) = outcome.failures
    assert (failure.labels, failure.seed) == (("CoOp",), 1)
    table = (outcome.out / "table.md").read_text()
    assert "- CoOp, seed 1, could not be trained: the loss is nan in epoch 1; lower the learning rate or use" in table
    assert f"| set0 | CoOp |{' - |' * 10}\n" in table
    assert cell(outcome, "CLIP").mean("image_ap") is not None
    assert cell(outcome, "linear heads").mean("image_ap") is not None
    found = json.loads((outcome.out / "results.json").read_text())
    assert (found["status"], [entry["labels"] for entry in found["failures"]]) == ("finished", [["CoOp"]])
    made = {path: path.stat().st_mtime_ns for path in (outcome.out / MODELS).glob("*.safetensors")}
    assert len(run("methods", outcome.out, data, **given, resume=True).failures) == 1
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())


def test_figures_are_of_the_seeds_that_could_be_trained(data, tmp_path, monkeypatch):
    step = Trainer.step

    def diverge(trainer, batch):
        if trainer.config.seed == 2:
            raise DivergedError("the loss is nan")
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "step", diverge)
    outcome = run("modules", tmp_path / "out", data)
    assert [(failure.labels, failure.seed) for failure in outcome.failures] == [
        (("LHW and JAS", "LHW"), 2), (("neither", "JAS"), 2)
    ]  # fmt: skip
    assert {tuple(c.by_seed) for c in outcome.cells} == {(1,)}


class StopError(Exception):
    pass


@pytest.mark.parametrize(("stage", "number"), [("training", 3), ("judging", 4)])
def test_a_stopped_ablation_goes_on_to_the_same_table(modules, data, tmp_path, stage, number):
    seen = []

    def stop(name, done, total, failed):
        seen.append(name)
        if sum(s.startswith(stage) for s in seen) == number:
            raise StopError

    out = tmp_path / "out"
    with pytest.raises(StopError):
        run("modules", out, data, progress=stop)
    assert json.loads((out / "results.json").read_text())["status"] == "running"
    with pytest.raises(InputError, match="unfinished ablation; add --resume"):
        run("modules", out, data)
    made = {path: path.stat().st_mtime_ns for path in (out / MODELS).glob("*.safetensors")}
    assert made
    run("modules", out, data, resume=True)
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())
    assert (out / "table.md").read_text() == (modules.out / "table.md").read_text()
    assert not (out / "scratch").exists()


def test_more_seeds_and_sets_on_resume_but_no_other_settings(data, tmp_path):
    two = datasets(tmp_path / "more", 2)
    run("lhw", tmp_path / "out", two[:1], seeds=(1,))
    grown = run("lhw", tmp_path / "out", two, resume=True)
    assert len(grown.cells[0].by_seed) == 2
    assert {c.dataset for c in grown.cells} == {"set0", "set1", "average"}
    table = (grown.out / "table.md").read_text()
    assert "average of 2 datasets" in table
    with pytest.raises(InputError, match=r"cannot be resumed: it was made with other settings \(.*sigma"):
        run("lhw", grown.out, two, settings={"sigma": 2.0}, resume=True)
    other = run("lhw", grown.out, two, seeds=(1,), settings={"sigma": 2.0}, overwrite=True)
    assert len(list((other.out / MODELS).glob("*.safetensors"))) == 2


def test_rows_that_are_finished_stay_in_the_table(data, tmp_path):
    first = run("modules", tmp_path / "out", data, seeds=(1,))
    made = {path: path.stat().st_mtime_ns for path in first.out.rglob("*seed*") if path.is_file()}
    table = (first.out / "table.md").read_text()
    again = run("modules", first.out, data, only=["LHW"], seeds=(1,), resume=True)
    assert {path: path.stat().st_mtime_ns for path in first.out.rglob("*seed*") if path.is_file()} == made
    assert (again.out / "table.md").read_text() == table
    more = run("modules", first.out, data, only=["LHW"], resume=True)
    assert [row.variant.label for row in more.report.plan.rows] == ["LHW and JAS", "LHW"]  # which share a model
    note = "left out, since not finished for all of these seeds and datasets: neither; JAS"
    assert note in (more.out / "table.md").read_text()
    few = run("modules", tmp_path / "few", data, only=["neither"], seeds=(1,))
    assert [row.variant.label for row in few.report.plan.rows] == [
        "neither"
    ]  # not JAS, which nobody has asked for, although it is the same detector
    assert "left out" not in (few.out / "table.md").read_text()


def test_other_images_of_the_same_name_and_number_are_judged_anew(data, tmp_path):
    first = run("lhw", tmp_path / "out", data, seeds=(1,))
    root = write_set(tmp_path / "moved" / data[0].root.name, normal=3, defects=3, seed=900)
    other = open_dataset("folder", root)
    again = run("lhw", first.out, [other], seeds=(1,), resume=True)
    afresh = run("lhw", tmp_path / "afresh", [other], seeds=(1,))
    one, two, three = (cell(outcome, "with LHW", other.info.family) for outcome in (first, again, afresh))
    assert two.by_seed == three.by_seed
    assert two.by_seed != one.by_seed


def test_seeds_that_are_added_train_on_the_same_images(data, tmp_path):
    train = TrainingData(str(write_set(tmp_path / "train", ("cup",), normal=2, defects=2, seed=50)))
    run("lhw", tmp_path / "out", data, only=["with LHW"], seeds=(1,), data_=train)
    (tmp_path / "train/cup/test/good/0.png").unlink()
    again = {"only": ["with LHW"], "data_": train, "resume": True}
    with pytest.raises(InputError, match=r"trained on other images than .*train holds now"):
        run("lhw", tmp_path / "out", data, seeds=(1, 2), **again)
    run("lhw", tmp_path / "out", data, seeds=(1,), **again)  # nothing is left to train


def test_the_tower_runs_once_for_models_with_equal_needs(data, tmp_path):
    backbone = make_backbone(make_config())
    passes = []
    forward = backbone.vision.forward
    backbone.vision.forward = lambda *given: passes.append(1) or forward(*given)
    changes = {"train": {"epochs": 2, "batch_size": 4}, "seeds": (1, 2)}
    run("init", tmp_path / "kept", data, backbone=backbone, **changes)
    training = 8 // 4  # one pass over the images for four models and two seeds
    assert len(passes) == training
    passes.clear()
    run("init", tmp_path / "anew", data, backbone=backbone, features=False, **changes)
    assert len(passes) == 4 * 2 * 2 * training


def test_ratios_come_from_one_model_and_equal_the_methods_own_scores(data, tmp_path):
    jas = run("jas", tmp_path / "out", data, only=["alpha 0", "alpha 0.3", "alpha 1", "top 10 %"], seeds=(1,))
    (checkpoint,) = (jas.out / MODELS).glob("*.safetensors")
    for label, settings in (("alpha 0.3", {"alpha": 0.3}), ("top 10 %", {"top_share": 0.1})):
        detector = Detector(make_backbone(make_config()), checkpoint, device="cpu", settings=settings, image_size=SIZE)
        folder = tmp_path / label.replace(" ", "")
        found = evaluate(detector, data, folder, Options("ader", bootstrap=0, figures=False, worst=0))
        mean = found.results[0].mean["ader"]
        ours = cell(jas, label).by_seed[1]
        assert set(ours) == {"image_auroc", "image_ap", "image_f1", "image_mad"}  # no pixels were counted
        assert all(ours[name] == pytest.approx(100 * mean[name], abs=1e-4) for name in ours)
    assert cell(jas, "alpha 0").by_seed[1] != cell(jas, "alpha 1").by_seed[1]


def test_class_aware_prompts_hear_the_category(data, tmp_path):
    outcome = run("prompts", tmp_path / "out", data, only=["words", "base: CLIP"], seeds=(1,))
    agnostic, aware = cell(outcome, "object-agnostic"), cell(outcome, "class-aware")
    assert agnostic.by_seed[1] != aware.by_seed[1]
    assert cell(outcome, "base: CLIP").spread("pixel_ap") is None


def test_every_method_runs_and_has_a_curve(data, tmp_path):
    pytest.importorskip("matplotlib")
    only = ["headclip", "clip", "coop", "linear_heads", "winclip"]
    outcome = run("methods", tmp_path / "out", data, only=only, seeds=(1,), figures=True)
    series = {c.variant.series for c in outcome.report.ratio_cells}
    assert series == {"HeadCLIP", "WinCLIP", "CLIP", "CoOp", "linear heads"}
    assert "Image mAD over the joint score ratio" in (outcome.out / "table.md").read_text()
    assert {"figure.png", "figure.svg", "ratio.png", "ratio.svg"} <= {path.name for path in outcome.out.iterdir()}
    own = next(c for c in outcome.report.ratio_cells if c.variant.label == "HeadCLIP, alpha 0.5")
    assert own.by_seed[1]["image_auroc"] == cell(outcome, "HeadCLIP", own.dataset).by_seed[1]["image_auroc"]


def test_training_on_what_is_tested_is_refused(data, tmp_path):
    train = TrainingData(str(data[0].root))
    with pytest.raises(InputError, match="Figures on images seen in training mean nothing"):
        run("lhw", tmp_path / "out", data, seeds=(1,), data_=train)
    with pytest.raises(InputError, match="write synthetic, a labelled folder, or NAME=PATH"):
        run("lhw", tmp_path / "other", data, seeds=(1,), data_=TrainingData("nowhere"))


def test_what_cannot_be_used_is_refused_before_training(data, tmp_path):
    backbone = make_backbone(make_config())
    images = [replace(data[0], info=replace(data[0].info, level="image"))]
    with pytest.raises(InputError, match="set0 has image metrics only"):
        run("init", tmp_path / "a", images, backbone=backbone)
    with pytest.raises(InputError, match=r"CSA layers 2-9 do not fit a tower of 3 layers"):
        run("init", tmp_path / "b", data, backbone=backbone, settings={"csa_layers": [2, 9]})
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="holds no ablation"):
        run("init", tmp_path / "c", data, backbone=backbone)
    assert not (tmp_path / "b").exists()


def test_scores_on_record_give_any_ratio(modules, data):
    path = next((modules.out / "records").rglob("*seed1.json"))
    record = json.loads(path.read_text())
    rows = np.array([image[2:] for image in record["images"]])
    assert len(rows) == len(data[0])
    alpha = record["alpha"]
    np.testing.assert_allclose(rows[:, 0], (1 - alpha) * rows[:, 1] + alpha * rows[:, 2], atol=1e-6)
