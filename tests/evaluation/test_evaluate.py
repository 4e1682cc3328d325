"""Evaluation from files to figures, with a detector whose maps can be computed directly."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data.volume_files import write_tiff
from evaluation.evaluate_files import FakeEvaluated, brightness, mask, picture, write_set
from headclip.clip.preprocess import resize, resize_mask
from headclip.data.datasets import open_dataset
from headclip.errors import InputError
from headclip.evaluation import runs
from headclip.evaluation.evaluate import Options, evaluate
from headclip.evaluation.runs import evaluate_runs
from headclip.inference.predict import predict_run
from headclip.metrics import image_metrics, pixel_metrics
from headclip.runs.run import Run

QUICK = {"bootstrap": 20, "figures": False, "worst": 2}


def run(dataset, out, detector=None, **options):
    datasets = dataset if isinstance(dataset, list) else [dataset]
    return evaluate(detector or FakeEvaluated(), datasets, out, Options(**{**QUICK, **options}))


def scores_of(out):
    with (out / "scores.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def masks_of(dataset, records, size=(32, 40)):
    return [None if record.label == 0 else dataset.mask(record, size) for record in records]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


@pytest.mark.parametrize("protocol", ["exact", "ader"])
def test_figures_are_those_of_the_maps(root, tmp_path, protocol):
    dataset = open_dataset("folder", root)
    result = run(dataset, tmp_path / "e", protocol=protocol, resolution="image").results[0]
    assert [category.name for category in result.categories] == ["cup", "nut"]
    for category in result.categories:
        records = dataset.of(category.name)
        maps = [brightness(record.path) for record in records]
        expected = pixel_metrics(maps, masks_of(dataset, records), protocol)
        scores = [float(anomaly_map.mean()) for anomaly_map in maps]
        expected |= image_metrics(scores, [record.label for record in records])
        found = category.figures[protocol]
        assert found.keys() == expected.keys()
        assert len(found) == 10
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-9), name
        assert (category.normal, category.anomalous, category.marked) == (4, 5, 9)
        for name, interval in category.intervals.items():
            assert interval.low <= interval.high, name
            assert interval.value == found[name]
    for name, value in result.mean[protocol].items():
        if not name.endswith("mad"):
            parts = [category.figures[protocol][name] for category in result.categories]
            assert value == pytest.approx(np.mean(parts))


def test_at_the_towers_resolution_maps_and_masks_are_those_of_the_input(root, tmp_path):
    dataset = open_dataset("folder", root)
    result = run(dataset, tmp_path / "e", protocol="ader").results[0]  # ader implies the tower's resolution
    records = dataset.of("cup")
    arrays = [np.asarray(Image.open(record.path).convert("RGB")) for record in records]
    small = [resize(array, (28, 28)).permute(1, 2, 0).numpy() for array in arrays]
    maps = [array.astype(np.float32).mean(axis=2) / np.float32(255) for array in small]
    masks = [None if m is None else resize_mask(m, (28, 28)).numpy() for m in masks_of(dataset, records)]
    expected = pixel_metrics(maps, masks, "ader")
    for name, value in expected.items():
        assert result.categories[0].figures["ader"][name] == pytest.approx(value, abs=1e-9), name


def test_a_finished_run_scores_like_the_live_evaluation(root, tmp_path):
    dataset = open_dataset("folder", root)
    live = run(dataset, tmp_path / "live").results[0]
    predict_run(FakeEvaluated(), [root], tmp_path / "run")
    again = evaluate_runs([tmp_path / "run"], [dataset], tmp_path / "again", Options(**QUICK)).results[0]
    for one, other in zip(live.categories, again.categories, strict=True):
        for protocol in ("exact", "ader"):
            assert one.figures[protocol].keys() == other.figures[protocol].keys()
            for name, value in one.figures[protocol].items():
                tight = 0.0 if name.startswith("image") else 2e-4  # ties and edges within 1/65535
                assert other.figures[protocol][name] == pytest.approx(value, abs=tight), (protocol, name)
    assert (tmp_path / "again/tables.md").is_file()
    ground_truth = next(note for note in again.notes if "belong to no image" in note)  # the run judged the masks too
    assert "10 row(s)" in ground_truth


def test_maps_kept_by_an_evaluation_can_be_scored_as_a_run(root, tmp_path):
    dataset = open_dataset("folder", root)
    live = run(dataset, tmp_path / "live", keep_maps=True)
    folder = next((tmp_path / "live/runs").iterdir())
    again = evaluate_runs([folder], [dataset], tmp_path / "again", Options(**QUICK))
    assert again.results[0].mean["exact"]["pixel_ap"] == pytest.approx(
        live.results[0].mean["exact"]["pixel_ap"], abs=1e-4
    )
    assert not list((tmp_path / "live").rglob("*.counts"))
    assert len(list(folder.rglob("maps/**/*.png"))) == 18

    run(dataset, tmp_path / "tower", keep_maps=True, resolution="tower")
    folder = next((tmp_path / "tower/runs").iterdir())
    with pytest.raises(InputError, match="--resolution tower"):
        evaluate_runs([folder], [dataset], tmp_path / "no", Options(**QUICK, resolution="image"))
    small = evaluate_runs([folder], [dataset], tmp_path / "small", Options(**QUICK)).results[0]
    assert small.categories[0].state.positives.sum() + small.categories[0].state.negatives.sum() == 9 * 28 * 28


def test_maps_that_16_bits_cannot_hold_are_noted(root, tmp_path):
    class Faint(FakeEvaluated):
        def _predict(self, image):
            found = super()._predict(image)
            return replace(found, anomaly_map=found.anomaly_map * np.float32(1e-4))

    dataset = open_dataset("folder", root)
    predict_run(Faint(), [root], tmp_path / "run")
    again = evaluate_runs([tmp_path / "run"], [dataset], tmp_path / "again", Options(**QUICK)).results[0]
    assert "16 bits have lost" in again.notes[0]
    live = run(dataset, tmp_path / "live", Faint()).results[0]  # where scores are counted as they are
    direct = run(dataset, tmp_path / "bright").results[0]
    assert live.mean["exact"]["pixel_auroc"] == pytest.approx(direct.mean["exact"]["pixel_auroc"], abs=1e-6)


def test_two_runs_are_compared_on_the_same_images(root, tmp_path):
    class Worse(FakeEvaluated):
        def _predict(self, image):
            return super()._predict(np.random.default_rng(int(image.sum())).permuted(image, axis=0))

    dataset = open_dataset("folder", root)
    for name, detector in (("one", FakeEvaluated()), ("two", Worse())):
        predict_run(detector, [root], tmp_path / name)
    options = Options(**{**QUICK, "bootstrap": 200})
    evaluation = evaluate_runs([tmp_path / "one", tmp_path / "two"], [dataset], tmp_path / "e", options)
    assert [result.method for result in evaluation.results] == ["one", "two"]
    found = json.loads((tmp_path / "e/results.json").read_text())["comparisons"]
    ap = found[0]["metrics"]["pixel_ap"]
    assert ap["difference"] == pytest.approx(
        evaluation.results[1].mean["exact"]["pixel_ap"] - evaluation.results[0].mean["exact"]["pixel_ap"], abs=5e-3
    )
    assert ap["difference"] < ap["high"] < 0
    assert "two minus one" in (tmp_path / "e/tables.md").read_text()


def test_a_run_of_other_images_is_refused(root, tmp_path):
    picture(tmp_path / "else/a.png", 1)
    predict_run(FakeEvaluated(), [tmp_path / "else"], tmp_path / "run")
    dataset = open_dataset("folder", root)
    with pytest.raises(InputError, match="no image of the run"):
        evaluate_runs([tmp_path / "run"], [dataset], tmp_path / "e", Options(**QUICK))


def test_rows_are_matched_by_name_where_the_folder_has_moved(root, tmp_path):
    predict_run(FakeEvaluated(), [root / "cup"], tmp_path / "run")
    facts = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps(facts | {"root": "/no/longer/here"}))
    dataset = open_dataset("folder", root)
    with pytest.raises(InputError, match="no image of the run"):  # of the cup, or of the nut? nothing says
        evaluate_runs([tmp_path / "run"], [dataset], tmp_path / "no", Options(**QUICK))
    (tmp_path / "run/run.json").write_text(json.dumps(facts | {"root": "/no/longer/here/cup"}))
    result = evaluate_runs([tmp_path / "run"], [dataset], tmp_path / "e", Options(**QUICK)).results[0]
    assert [category.normal + category.anomalous for category in result.categories] == [9, 0]
    rows = scores_of(tmp_path / "e")
    assert {row["status"] for row in rows if row["category"] == "nut"} == {"missing"}
    assert all(row["status"] == "ok" for row in rows if row["category"] == "cup")
    assert any("no row in the run" in note for note in result.notes)


def test_images_of_the_same_names_and_another_content_are_not_those_that_were_judged(root, tmp_path):
    other = shutil.copytree(root, tmp_path / "other")
    for file in other.rglob("test/**/*.png"):
        Image.fromarray(np.asarray(Image.open(file))[::-1]).save(file)
    predict_run(FakeEvaluated(), [root], tmp_path / "run")
    dataset = open_dataset("folder", other)
    with pytest.raises(InputError, match="those of the same names have another content"):
        evaluate_runs([tmp_path / "run"], [dataset], tmp_path / "e", Options(**QUICK))
    same = shutil.copytree(root, tmp_path / "moved")
    assert evaluate_runs([tmp_path / "run"], [open_dataset("folder", same)], tmp_path / "e", Options(**QUICK)).results
    (tmp_path / "run/progress.jsonl").unlink()  # nothing tells the content then
    assert evaluate_runs([tmp_path / "run"], [dataset], tmp_path / "f", Options(**QUICK)).results


def test_moved_images_that_share_a_name_are_told_apart_without_comparing_all_with_all(tmp_path, monkeypatch):
    for index in range(12):
        picture(tmp_path / f"set/test/good/case{index}/image.png", index)
        picture(tmp_path / f"set/test/bad/case{index}/image.png", 20 + index)
    predict_run(FakeEvaluated(), [tmp_path / "set"], tmp_path / "run")
    moved = (tmp_path / "set").rename(tmp_path / "other")
    dataset, looked = open_dataset("folder", moved), []
    shared_parts = runs._shared_parts
    monkeypatch.setattr(runs, "_shared_parts", lambda *pair: looked.append(pair) or shared_parts(*pair))
    found = runs.match_rows(Run.open(tmp_path / "run"), dataset)
    assert {moved / row.path for row in found.values()} == set(found)
    assert len(found) == len(looked) == 24


def test_pixel_only_and_image_only_sets(tmp_path):
    for index in range(4):
        box = (5, 15, 5, 12 + index)
        picture(tmp_path / "polyps/images" / f"{index}.png", index, box)
        mask(tmp_path / "polyps/masks" / f"{index}.png", box)
        picture(tmp_path / "brain/no" / f"{index}.png", 10 + index)
        picture(tmp_path / "brain/yes" / f"{index}.png", 20 + index, box)
    polyps, brain = open_dataset("kvasir", tmp_path / "polyps"), open_dataset("brainmri", tmp_path / "brain")
    evaluation = run([polyps, brain], tmp_path / "e")
    pixel, image = (set(result.mean["exact"]) for result in evaluation.results)
    assert pixel == {"pixel_auroc", "pixel_aupro", "pixel_ap", "pixel_f1", "pixel_iou", "pixel_mad"}
    assert image == {"image_auroc", "image_ap", "image_f1", "image_mad"}
    text = (tmp_path / "e/tables.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| Kvasir-SEG"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2:6] == ["-"] * 4
    assert "-" not in cells[6:]
    average = next(row for row in evaluation.rows if row.kind == "average")
    assert average.values["image_auroc"] == pytest.approx(100 * evaluation.results[1].mean["exact"]["image_auroc"])
    assert average.title == "average of 2 medical datasets (image 1, pixel 1)"  # no mean of two in any column


def test_a_category_of_normals_only_has_no_figures_and_does_not_count(root, tmp_path):
    write_set(tmp_path / "set", ("cup",))
    picture(tmp_path / "set/nut/test/good/0.png", 7)
    dataset = open_dataset("folder", tmp_path / "set")
    evaluation = run(dataset, tmp_path / "e")
    cup, nut = evaluation.results[0].categories
    assert dict(nut.figures["exact"]) == {}
    assert nut.figures["exact"].absent["image_auroc"] == "no anomalous image"
    assert evaluation.results[0].mean["exact"]["pixel_ap"] == cup.figures["exact"]["pixel_ap"]
    row = next(row for row in evaluation.rows if row.category == "nut")
    assert row.values == {}
    assert "| nut | 1 / 0 | - |" in (tmp_path / "e/tables.md").read_text()
    assert any("nut has normal images only" in note for note in evaluation.results[0].notes)


def test_a_category_of_anomalous_images_only_is_in_no_image_mean(root, tmp_path):
    write_set(tmp_path / "set", ("cup",))
    picture(tmp_path / "set/nut/test/bent/0.png", 7, (4, 14, 6, 16))
    mask(tmp_path / "set/nut/ground_truth/bent/0_mask.png", (4, 14, 6, 16))
    evaluation = run(open_dataset("folder", tmp_path / "set"), tmp_path / "e")
    result = evaluation.results[0]
    cup, nut = result.categories
    for protocol in ("exact", "ader"):  # AP and F1 are 1 for whatever scores: no figure to put into a mean
        assert not any(name.startswith("image") for name in nut.figures[protocol])
        assert nut.figures[protocol].absent["image_ap"] == "no normal image"
        assert result.mean[protocol]["image_ap"] == cup.figures[protocol]["image_ap"]
        assert result.mean[protocol]["image_mad"] == cup.figures[protocol]["image_mad"]
    assert "pixel_ap" in nut.figures["exact"]
    assert not any(name.startswith("image") for name in nut.intervals)
    assert result.intervals["image_f1"].value == cup.intervals["image_f1"].value


def test_broken_files_are_rows_and_notes(tmp_path):
    root = write_set(tmp_path / "set", ("cup",))
    (root / "cup/test/good/0.png").write_bytes(b"this is no image")
    (root / "cup/ground_truth/bent/1_mask.png").write_bytes(b"nor this")
    mask(root / "cup/ground_truth/bent/2_mask.png", (12, 32, 12, 36), size=(80, 64))  # twice the image
    Image.new("L", (40, 32)).save(root / "cup/ground_truth/bent/3_mask.png")
    evaluation = run(open_dataset("folder", root), tmp_path / "e")
    category = evaluation.results[0].categories[0]
    assert (category.normal, category.anomalous, category.marked) == (3, 5, 7)
    rows = {row["path"]: row for row in scores_of(tmp_path / "e")}
    assert len(rows) == 9
    broken = rows["cup/test/good/0.png"]
    assert (broken["status"], broken["score"]) == ("failed", "")
    assert "not a PNG" in broken["reason"]
    assert rows["cup/test/bent/1.png"]["status"] == "ok"
    assert "1_mask.png" in rows["cup/test/bent/1.png"]["reason"]
    assert "the mask is 80 x 64, the image 40 x 32" in rows["cup/test/bent/2.png"]["reason"]
    assert "its mask is empty" in rows["cup/test/bent/3.png"]["reason"]
    notes = (tmp_path / "e/tables.md").read_text().split("Notes:")[1]
    for name in ("good/0.png", "bent/1.png", "bent/2.png", "bent/3.png"):
        assert name in notes
    # the resized mask is the box of the image's own size
    record = next(image for image in category.images if image.name.endswith("bent/2.png"))
    maps, truth = brightness(record.record.path), np.zeros((32, 40), bool)
    truth[6:16, 6:18] = True
    direct = pixel_metrics([maps], [truth])["pixel_auroc"]
    assert category.located["cup/test/bent/2.png"] == pytest.approx(direct)


def test_a_stack_is_not_scored_by_its_first_page(tmp_path):
    root = write_set(tmp_path / "set", ("cup",))
    write_tiff(root / "cup/test/bent/stack.tif", [np.full((32, 40), value, np.uint8) for value in (10, 200)])
    mask(root / "cup/ground_truth/bent/stack_mask.png", (4, 14, 6, 16))
    run(open_dataset("folder", root), tmp_path / "e")
    row = next(row for row in scores_of(tmp_path / "e") if row["path"].endswith("stack.tif"))
    assert row["status"] == "failed"
    assert "a TIFF of 2 pages" in row["reason"]


def test_a_missing_mask_is_an_error_that_names_the_image(tmp_path):
    root = write_set(tmp_path / "set", ("cup",))
    (root / "cup/ground_truth/bent/1_mask.png").unlink()
    with pytest.raises(InputError, match=r"cup/test/bent/1\.png has no mask"):
        open_dataset("folder", root)
    lenient = open_dataset("folder", root, lenient=True)
    result = run(lenient, tmp_path / "e").results[0]
    assert result.categories[0].marked == 8
    assert any("bent/1.png" in note and "no mask" in note for note in result.notes)


def test_images_without_a_label_are_listed_and_not_judged(tmp_path):
    for index, label in enumerate(("good", "bad", "")):
        picture(tmp_path / f"{index}.png", index)
        (tmp_path / "manifest.csv").open("a").write(f"{index}.png,{label}\n" if index else "image,label\n0.png,good\n")
    detector = FakeEvaluated()
    evaluation = run(open_dataset("manifest", tmp_path / "manifest.csv"), tmp_path / "e", detector, worst=0)
    assert sum(detector.batches) == 2
    assert [row["status"] for row in scores_of(tmp_path / "e")] == ["ok", "ok", "unlabelled"]
    assert any("no label" in note for note in evaluation.results[0].notes)


def test_limit_takes_some_of_both_labels_of_every_category(root, tmp_path):
    evaluation = run(open_dataset("folder", root), tmp_path / "e", limit=4)
    counts = [(category.normal, category.anomalous) for category in evaluation.results[0].categories]
    assert counts == [(2, 2), (2, 2)]
    assert "a first look" in (tmp_path / "e/tables.md").read_text()


def test_two_folders_of_one_name_are_not_called_the_same(tmp_path):
    sets = [open_dataset("folder", write_set(tmp_path / place / "imgs", seed=seed)) for seed, place in enumerate("ab")]
    with pytest.raises(InputError, match=r"a/imgs and .*b/imgs would both be called imgs.*rename one"):
        run(sets, tmp_path / "e")
    with pytest.raises(InputError, match="imgs is given twice"):
        run([sets[0], open_dataset("folder", tmp_path / "b/../a/imgs")], tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_out_is_never_overwritten_unasked(root, tmp_path):
    dataset = open_dataset("folder", root)
    run(dataset, tmp_path / "e", limit=2)
    with pytest.raises(InputError, match="finished evaluation; add --resume"):
        run(dataset, tmp_path / "e", limit=2)
    with pytest.raises(InputError, match="exclude each other"):
        run(dataset, tmp_path / "e", limit=2, resume=True, overwrite=True)
    (tmp_path / "e/figures").mkdir()
    (tmp_path / "e/figures/old.png").touch()
    run(dataset, tmp_path / "e", limit=4, overwrite=True)
    assert not (tmp_path / "e/figures").exists()
    inside = next((tmp_path / "e/runs").iterdir())
    with pytest.raises(InputError, match="would delete a run"):
        evaluate_runs([inside], [dataset], tmp_path / "e", Options(**QUICK, overwrite=True))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("not to be lost")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(InputError, match="holds no evaluation"):
            run(dataset, tmp_path / "other", **options)


def test_results_json_says_everything(root, tmp_path):
    evaluation = run(open_dataset("folder", root), tmp_path / "e")
    found = json.loads((tmp_path / "e/results.json").read_text())
    entry = found["results"][0]
    assert found["status"] == "finished"
    assert found["versions"].keys() >= {"headclip", "torch", "numpy"}
    assert found["options"]["resolution"] == "image"
    assert entry["detector"]["backbone_hash"] == "0" * 64
    assert len(entry["fingerprint"]) == 64
    mean = evaluation.results[0].mean["exact"]
    assert entry["mean"]["exact"] == pytest.approx(dict(mean))
    assert set(entry["intervals"]["pixel_ap"]) == {"value", "low", "high", "confidence", "replicates"}
    moved = write_set(tmp_path / "moved")
    other = run(open_dataset("folder", moved), tmp_path / "e2")
    again = json.loads((tmp_path / "e2/results.json").read_text())["results"][0]
    assert again["fingerprint"] == entry["fingerprint"]
    assert other.results[0].mean["exact"] == mean


def test_methods_that_ask_are_told_what_each_image_shows(root, tmp_path):
    class Asking(FakeEvaluated):
        class method:  # noqa: N801
            uses_category = True

        def predict_arrays(self, images, categories=None, /):
            assert len(images) == len(categories)
            self.told = [*getattr(self, "told", []), *categories]
            return super().predict_arrays(images)

    detector = Asking()
    run(open_dataset("folder", root), tmp_path / "e", detector, worst=0)
    assert sorted(detector.told) == ["cup"] * 9 + ["nut"] * 9


def test_worst_images_are_the_worst(root, tmp_path):
    evaluation = run(open_dataset("folder", root), tmp_path / "e", worst=1)
    rows = scores_of(tmp_path / "e")
    alarm = max((row for row in rows if row["label"] == "0"), key=lambda row: float(row["score"]))
    miss = min((row for row in rows if row["label"] == "1"), key=lambda row: float(row["score"]))
    page = (tmp_path / "e/worst.html").read_text()
    assert alarm["path"] in page
    assert miss["path"] in page
    assert page.count("<figure>") == 2
    assert page.count("data:image/jpeg") == 4
    assert evaluation.results[0].leakage == ""
