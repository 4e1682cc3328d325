"""`headclip compare` and `headclip inspect`: figures and pages from the command line, and errors that help."""

from __future__ import annotations

import builtins
import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from evaluation.evaluate_files import write_set
from headclip.cli.app import app
from headclip.cli.common import readable_errors
from headclip.cli.figures_models import plan_columns
from headclip.errors import InputError
from headclip.figures.canvas import shorten
from headclip.figures.compare import row_heights
from headclip.figures.heads import number
from headclip.inference.detector import Detector
from headclip.methods import create_method
from headclip.methods.checkpoint import learnt_hash, save_checkpoint

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def checkpoint(backbone):
    from headclip.clip.weights import load_backbone

    loaded = load_backbone(str(backbone))
    method = create_method("headclip", loaded)
    method.head_weight.data.mul_(1.3)
    save_checkpoint(backbone / "trained.safetensors", method)
    return backbone / "trained.safetensors"


@pytest.fixture
def pictures(tmp_path):
    """images/: a wide and a tall one; masks/: of the wide one."""
    rng = np.random.default_rng(1)
    for name, size in (("wide", (30, 90)), ("tall", (90, 30))):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*size, 3)).astype(np.uint8)).save(path)
    (tmp_path / "masks").mkdir()
    mask = np.zeros((30, 90), np.uint8)
    mask[10:20, 40:60] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "wide_mask.png")
    return tmp_path / "images"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


def done(*arguments):
    result = run(*arguments)
    if result.exception:
        raise result.exception
    assert result.exit_code == 0
    return result.output


def refused(*arguments):
    """The message of a command that ends with status 2."""
    result = run(*arguments)
    assert result.exit_code != 0
    with pytest.raises(SystemExit) as ended, readable_errors():
        raise result.exception
    assert ended.value.code == 2
    return str(result.exception)


def small(backbone):
    return ["--backbone", backbone, "--device", "cpu", "--image-size", 42]


def test_compare_draws_methods_beside_the_truth(backbone, pictures, tmp_path):
    out = tmp_path / "figure.png"
    masks = pictures.parent / "masks"
    text = done("compare", pictures, "--method", "headclip,clip", "--masks", masks, "-o", out, *small(backbone))
    facts = json.loads(out.with_suffix(".json").read_text())
    assert facts["columns"] == ["HeadCLIP (untrained)", "CLIP"]
    assert facts["colours"]["kind"] == "rank"
    labels = {image["name"]: image["label"] for image in facts["images"]}
    assert labels == {"wide.png": 1, "tall.png": None}
    assert all(0 <= score <= 1 for image in facts["images"] for score in image["scores"].values())
    with Image.open(out) as figure:
        width, height = figure.size
    assert width == pytest.approx(300 * (0.17 + 4 * 1.7), rel=0.1)
    assert height > 600
    assert "2 of 2 images (first)" in text


@pytest.mark.parametrize(("kind", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("PNG", b"\x89PNG")])
def test_compare_writes_any_format_and_the_same_twice(backbone, pictures, tmp_path, kind, start):
    contents = []
    for name in ("a", "b"):
        out = tmp_path / f"{name}.{kind}"
        done("compare", pictures, "-o", out, "-n", 1, "--style", "map", "--no-names", "-q", *small(backbone))
        contents.append(out.read_bytes())
    assert contents[0].startswith(start)
    assert contents[0] == contents[1]


def test_compare_takes_a_checkpoint_for_its_method(backbone, checkpoint, pictures, tmp_path):
    out = tmp_path / "f.png"
    options = ["--checkpoint", checkpoint, "--scale", "method", "--titles", "Ours, Theirs", "--outline", "-q"]
    done("compare", pictures, "--method", "headclip,clip", "-o", out, *options, *small(backbone))
    facts = json.loads(out.with_suffix(".json").read_text())
    assert facts["columns"] == ["Ours", "Theirs"]
    assert facts["methods"]["HeadCLIP"]["checkpoint"] == checkpoint.name  # not where it lies on this machine
    assert facts["methods"]["HeadCLIP"]["checkpoint_hash"] == learnt_hash(checkpoint)
    assert str(checkpoint.parent) not in json.dumps(facts["methods"]["HeadCLIP"]["checkpoint_data"])
    assert facts["colours"]["kind"] == "method"


def test_compare_reads_runs_without_a_model(backbone, pictures, tmp_path):
    for method in ("clip", "clip_ac"):
        done("predict", pictures, "-o", tmp_path / method, "--method", method, "-q", *small(backbone))
    out = tmp_path / "runs.png"
    text = done("compare", tmp_path / "clip", tmp_path / "clip_ac", "-o", out, "-n", 1, "--range", 0.3, 0.7)
    facts = json.loads(out.with_suffix(".json").read_text())
    assert facts["columns"] == ["CLIP", "CLIP-AC"]
    assert facts["chosen"] == {"rule": "different", "of": 2}
    assert facts["colours"]["CLIP"] == {"first": 0.3, "last": 0.7}
    assert "1 of 2 images (different)" in text
    assert "not both at once" in refused("compare", tmp_path / "clip", pictures, "-o", out)
    assert "made them" in refused("compare", tmp_path / "clip", "--method", "clip", "-o", out)


def test_compare_says_what_is_wrong(backbone, pictures, tmp_path):
    out = tmp_path / "f.png"
    assert "ends in .png" in refused("compare", pictures, "-o", tmp_path / "f.gif")
    assert "nothing to show" in refused("compare", "-o", out)
    assert "known: " in refused("compare", pictures, "--method", "headclp", "-o", out)
    assert "no checkpoint at" in refused("compare", pictures, "--checkpoint", tmp_path / "none.safetensors", "-o", out)
    (tmp_path / "other").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "other" / "x.png")
    assert "names must agree" in refused("compare", pictures, "--masks", tmp_path / "other", "-o", out)
    titles = ["--titles", "A,B", *small(backbone)]
    with pytest.MonkeyPatch.context() as patch:  # all this before an image is judged
        patch.setattr(Detector, "predict_arrays", lambda *rest: pytest.fail("an image was judged"))
        assert "2 titles for 1 columns" in refused("compare", pictures, "--method", "clip", "-o", out, *titles)
        assert "the lower one first" in refused("compare", pictures, "-o", out, "--range", 0.5, 0.2)
        assert "scale by rank" in refused("compare", pictures, "-o", out, "--scale", "rank", "--range", 0.2, 0.5)
    assert "two methods" in refused("compare", pictures, "--choose", "different", "-o", out, *small(backbone))
    assert not out.exists()


def test_compare_points_to_the_runs_of_an_evaluation(backbone, tmp_path):
    cups, out = write_set(tmp_path / "cups"), tmp_path / "e"
    done("evaluate", "--data", cups, "-o", out, "--method", "clip", "-q", *small(backbone))
    message = refused("compare", out, "-o", tmp_path / "f.png")
    assert f"is an evaluation; name the runs in it: {out / 'runs/cups'}" in " ".join(message.split())


def test_columns_are_planned(checkpoint, tmp_path):
    both = plan_columns("clip,headclip", [str(checkpoint)])
    assert [(column.method, column.checkpoint) for column in both] == [("clip", None), ("headclip", checkpoint)]
    twice = plan_columns(None, [str(checkpoint), f"headclip={checkpoint}"])
    assert [(column.method, column.checkpoint) for column in twice] == [("headclip", checkpoint)] * 2
    assert [column.method for column in plan_columns(None, [])] == [None]
    published = tmp_path / "epoch_15.pth"
    published.write_bytes(b"")
    assert plan_columns("anomalyclip", [str(published)])[0].checkpoint == published
    with pytest.raises(InputError, match="METHOD="):
        plan_columns("anomalyclip,clip", [str(published)])


def test_rows_keep_the_aspect_of_their_images():
    assert row_heights([(100, 200), (100, 200)], 2.0) == [1.0, 1.0]
    assert row_heights([(252, 100)] * 3, 1.0) == pytest.approx([2.52] * 3)
    assert max(row_heights([(100, 100), (100, 120), (900, 100)], 1.0)) == 1.25
    assert row_heights([(10, 900)], 1.0) == [0.25]


def test_inspect_writes_page_numbers_and_figures(checkpoint, pictures, tmp_path):
    out = tmp_path / "seen"
    text = done("inspect", checkpoint, "--image", pictures, "-o", out, "--device", "cpu", "--image-size", 42)
    facts = json.loads((out / "inspect.json").read_text())
    names = {path.name for path in out.iterdir()}
    assert names == {*facts["files"], "inspect.json"}
    assert {"head_weights.png", "prompt_words.png", "layers-01-tall.png", "score-02-wide.png"} <= names
    np.testing.assert_allclose(facts["model"]["heads"]["weights"], 1.3)
    layers = facts["images"][0]["layers"]
    total = np.array(layers["contributions"]).sum(axis=0) + np.array(layers["constant"])
    np.testing.assert_allclose(total, layers["logits"], atol=1e-4)
    split = facts["images"][0]["split"]
    joined = (1 - split["alpha"]) * split["global_score"] + split["alpha"] * split["local_score"]
    assert split["score"] == pytest.approx(joined, abs=1e-6)
    page = (out / "inspect.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", page)
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert "often meaningless" in page
    assert f"{out / 'inspect.html'}" in text
    with Image.open(out / "head_weights.png") as figure:
        assert figure.width > 200


def test_inspect_replaces_its_own_files_only(checkpoint, pictures, tmp_path):
    out = tmp_path / "seen"
    small_size = ["--device", "cpu", "--image-size", 42, "-q"]
    done("inspect", checkpoint, "--image", pictures / "tall.png", "-o", out, *small_size)
    (out / "notes.txt").write_text("mine")
    assert "--overwrite" in refused("inspect", checkpoint, "-o", out, *small_size)
    done("inspect", checkpoint, "-o", out, "--overwrite", *small_size)
    assert {path.name for path in out.glob("*.png")} == {"head_weights.png", "prompt_words.png"}
    assert (out / "notes.txt").read_text() == "mine"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    assert "holds no inspection" in refused("inspect", checkpoint, "-o", tmp_path / "full", *small_size)


def test_inspect_of_a_method_without_heads_and_prompts(backbone, pictures, tmp_path):
    out = tmp_path / "seen"
    bad = pictures / "bad.png"
    bad.write_bytes(b"nothing")
    done("inspect", "--method", "clip", "--image", pictures, "-o", out, *small(backbone), "-q")
    facts = json.loads((out / "inspect.json").read_text())
    assert facts["model"]["heads"] is None
    assert facts["model"]["absent"].keys() == {"heads", "prompts"}
    assert [item["name"] for item in facts["left_out"]] == ["bad.png"]
    page = (out / "inspect.html").read_text()
    assert page.count("Not shown:") == 4
    assert not list(out.glob("layers-*"))


def test_a_name_cannot_break_the_page(backbone, tmp_path):
    name = "<script>alert(1)<_script> & “x”.png"
    Image.effect_noise((40, 40), 60).convert("RGB").save(tmp_path / name)
    done("inspect", "--method", "clip", "--image", tmp_path / name, "-o", tmp_path / "o", *small(backbone), "-q")
    page = (tmp_path / "o" / "inspect.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_too_many_images_are_refused(tmp_path):
    (tmp_path / "many").mkdir()
    for index in range(41):
        (tmp_path / "many" / f"{index}.png").write_bytes(b"")
    assert "at most 40" in refused("inspect", "--image", tmp_path / "many", "-o", tmp_path / "o")


def test_without_matplotlib_both_say_what_to_install(monkeypatch, pictures, tmp_path):
    real = builtins.__import__

    def missing(name, *rest, **options):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert "headclip[plots]" in refused("compare", pictures, "-o", tmp_path / "f.png")
    assert "headclip[plots]" in refused("inspect", "-o", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_numbers_and_names_as_figures_write_them():
    assert [number(value) for value in (1.234, -1.234, -0.001, 0.0)] == ["1.23", "−1.23", "0.00", "0.00"]
    assert shorten("a" * 10, 10) == "a" * 10
    assert len(shorten("a" * 11, 10)) == 10
