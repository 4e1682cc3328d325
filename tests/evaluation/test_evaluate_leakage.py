"""A model is not scored on images, or a dataset, that it has seen, unless asked; then every table says so."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from evaluation.evaluate_files import FakeEvaluated, write_set
from headclip.data.datasets import open_dataset
from headclip.data.decode import decode
from headclip.data.hashing import perceptual_hash, pixel_hash
from headclip.errors import InputError
from headclip.evaluation.checks import check_every_leakage
from headclip.evaluation.evaluate import Options, evaluate
from headclip.evaluation.runs import evaluate_runs
from headclip.files import file_hash
from headclip.inference.predict import predict_run

QUICK = {"bootstrap": 0, "worst": 1}


def smooth_set(root):
    """Pictures with structure, whose smaller copies look alike."""
    write_set(root, ("cup",), normal=2, defects=2)
    for number, path in enumerate(sorted(root.glob("cup/test/*/*.png"))):
        image = Image.linear_gradient("L").rotate(33 * number).resize((160, 128)).convert("RGB")
        image.paste((250, 40 * number, 90), (20 + 9 * number, 30, 60 + 12 * number, 70 + 5 * number))
        image.save(path)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return smooth_set(tmp_path_factory.mktemp("leak") / "mugs")


def training(root, kind, tmp_path):
    image = root / "cup/test/good/1.png"
    if kind == "exact":
        return {"name": "other", "files": {"a/b.png": file_hash(image)}}
    if kind == "name":
        return {"name": "mugs"}
    copy = tmp_path / "copy.jpg"
    Image.open(image).resize((80, 64)).save(copy, quality=70)
    return {
        "name": "other",
        "files": {"c.jpg": file_hash(copy)},
        "looks": {"c.jpg": f"{perceptual_hash(decode(copy)):016x}"},
    }


@pytest.mark.parametrize(
    ("kind", "words"),
    [("exact", "1 identical image"), ("near", "1 near-identical image"), ("name", "trained on mugs, the same dataset")],
)
def test_shared_images_are_refused_or_marked(root, tmp_path, kind, words):
    dataset = open_dataset("folder", root)
    detector = FakeEvaluated(training(root, kind, tmp_path))
    with pytest.raises(InputError, match=words) as refused:
        evaluate(detector, [dataset], tmp_path / "no", Options(**QUICK))
    assert "--allow-leakage" in str(refused.value)
    assert not (tmp_path / "no").exists()
    assert detector.batches == []  # refused before anything was judged

    evaluation = evaluate(detector, [dataset], tmp_path / "e", Options(**QUICK, allow_leakage=True))
    assert words in evaluation.results[0].leakage
    assert all("†" in row.method for row in evaluation.rows)
    assert "†" in (tmp_path / "e/tables.md").read_text()
    assert words in (tmp_path / "e/tables.md").read_text()
    assert "†" in (tmp_path / "e/tables.csv").read_text()
    assert r"\dag" in (tmp_path / "e/tables.tex").read_text()
    assert words in (tmp_path / "e/worst.html").read_text()
    found = json.loads((tmp_path / "e/results.json").read_text())["results"][0]
    assert words in found["leakage"]
    assert "files" not in found["detector"]["checkpoint_data"]


def test_runs_are_checked_too(root, tmp_path):
    predict_run(FakeEvaluated(training(root, "exact", tmp_path)), [root], tmp_path / "run")
    dataset = open_dataset("folder", root)
    with pytest.raises(InputError, match="identical image"):
        evaluate_runs([tmp_path / "run"], [dataset], tmp_path / "e", Options(**QUICK))


def test_other_training_images_are_no_leakage(root, tmp_path):
    other = smooth_set(tmp_path / "plates")
    for path in other.glob("cup/test/*/*.png"):
        Image.effect_mandelbrot((90, 70), (-2, -1, 1, 1), 60).convert("RGB").save(path)
    files = {str(path): file_hash(path) for path in other.glob("cup/test/*/*.png")}
    looks = {name: f"{perceptual_hash(decode(name)):016x}" for name in files}
    detector = FakeEvaluated({"name": "plates", "files": files, "looks": looks})
    evaluation = evaluate(detector, [open_dataset("folder", root)], tmp_path / "e", Options(**QUICK))
    assert evaluation.results[0].leakage == ""
    assert "†" not in (tmp_path / "e/tables.md").read_text()


def test_own_data_in_a_folder_of_the_same_name_are_no_leakage(root, tmp_path):
    files = {"other.png": "0" * 64}
    detector = FakeEvaluated({"name": "mugs", "files": files})
    evaluation = evaluate(detector, [open_dataset("folder", root)], tmp_path / "e", Options(**QUICK))
    assert evaluation.results[0].leakage == ""


class WithReferences(FakeEvaluated):
    """A detector that compares with normal images."""

    def __init__(self, references):
        super().__init__(None)
        self.references = [pixel_hash(decode(path)) for path in references]

    def describe(self):
        return super().describe() | {"references": self.references}


def test_references_from_the_test_set_are_refused_or_marked(root, tmp_path):
    """By their pixels: a copy in another format is the same image."""
    dataset = open_dataset("folder", root)
    Image.open(root / "cup/test/good/1.png").save(tmp_path / "copy.bmp")
    Image.effect_noise((60, 60), 40).convert("RGB").save(tmp_path / "other.png")
    detector = WithReferences([tmp_path / "copy.bmp", tmp_path / "other.png"])
    with pytest.raises(InputError, match=r"holds 1 of the 2 reference image.*cup/test/good/1.png") as refused:
        evaluate(detector, [dataset], tmp_path / "no", Options(**QUICK))
    assert "other references" in str(refused.value)
    assert detector.batches == []
    evaluation = evaluate(detector, [dataset], tmp_path / "e", Options(**QUICK, allow_leakage=True))
    assert "reference image" in evaluation.results[0].leakage
    assert "†" in (tmp_path / "e/tables.md").read_text()
    predict_run(detector, [root], tmp_path / "run")
    with pytest.raises(InputError, match="holds 1 of the 2 reference"):
        evaluate_runs([tmp_path / "run"], [dataset], tmp_path / "f", Options(**QUICK))


def test_other_references_are_no_leakage(root, tmp_path):
    Image.effect_noise((60, 60), 40).convert("RGB").save(tmp_path / "other.png")
    found = evaluate(
        WithReferences([tmp_path / "other.png"]), [open_dataset("folder", root)], tmp_path / "e", Options(**QUICK)
    )
    assert found.results[0].leakage == ""


def test_references_of_one_method_do_not_mark_another(root, tmp_path):
    dataset = open_dataset("folder", root)
    facts = {
        "few": WithReferences([root / "cup/test/good/0.png"]).describe(),
        "same": WithReferences([root / "cup/test/good/0.png"]).describe(),
        "zero": FakeEvaluated().describe(),
    }
    seen = []
    found = check_every_leakage(facts, [dataset], lambda title, done, total, failed: seen.append(done))
    assert sorted(label for (_, label), words in found.items() if words) == ["few", "same"]
    assert seen == list(range(1, len(dataset) + 1))  # equal references are compared once
