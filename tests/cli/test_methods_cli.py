"""`headclip methods`, and any method through `headclip train` and `headclip predict`."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from headclip.cli.app import app
from headclip.cli.common import readable_errors
from headclip.methods import list_methods
from headclip.methods.checkpoint import read_info

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")


@pytest.fixture
def picture(tmp_path):
    Image.effect_noise((60, 50), 80).convert("RGB").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    """The message of a command that ends with status 2."""
    result = run(*arguments)
    assert result.exit_code != 0
    with pytest.raises(SystemExit) as ended, readable_errors():
        raise result.exception
    assert ended.value.code == 2
    return str(result.exception)


def train(backbone, out, method, *extra):
    return ["train", "--data", "synthetic", "--method", method, "--backbone", backbone, "--out", out, "--quiet",
            "--images", 4, "--epochs", 1, "--image-size", 42, "--workers", 0, "--device", "cpu", *extra]  # fmt: skip


def predict(backbone, picture, out, *extra):
    return ["predict", picture, "--out", out, "--backbone", backbone, "--device", "cpu", "--image-size", 56, *extra]


def test_methods_are_listed():
    result = run("methods")
    assert result.exit_code == 0
    for name in list_methods():
        assert f"\n{name} " in f"\n{result.stdout}"
    facts = {fact["name"]: fact for fact in json.loads(run("methods", "--json").stdout)}
    assert list(facts) == list_methods()
    assert facts["coop"]["needs"] == ["a text tower", "a checkpoint"]
    assert facts["coop"]["uses"] == ["--category", "--reference", "--peers"]
    assert "--peers" not in facts["winclip"]["uses"]
    assert facts["clip"]["trains"] is None
    assert facts["linear_heads"]["needs"] == ["a checkpoint"]


@pytest.mark.parametrize("name", list_methods())
def test_settings_of_a_method_are_listed(name):
    result = run("methods", name)
    assert result.exit_code == 0
    assert "alpha=" in result.stdout
    assert "alpha" in json.loads(run("methods", name, "--json").stdout)["settings"]


def test_an_unknown_method_lists_the_known(backbone, picture, tmp_path):
    assert "anomalyclip" in refused("methods", "nope")
    assert "anomalyclip" in refused(*train(backbone, tmp_path / "a.safetensors", "nope"))
    assert "anomalyclip" in refused(*predict(backbone, picture, tmp_path / "run", "--method", "nope"))


@pytest.mark.parametrize("name", ["anomalyclip", "coop", "linear_heads"])
def test_train_then_predict(backbone, picture, tmp_path, name):
    out = tmp_path / "a.safetensors"
    assert run(*train(backbone, out, name, "--set", "sigma=1")).exit_code == 0
    info = read_info(out)
    assert (info.method, info.config["sigma"], info.config["seed"]) == (name, 1, 111)
    result = run(*predict(backbone, picture, tmp_path / "run", "--checkpoint", out, "--set", "alpha=0.5"))
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert f'"{name}"' in json.dumps(facts)


def test_a_method_brings_its_training_defaults(backbone, tmp_path):
    out = tmp_path / "a.safetensors"
    assert run(*train(backbone, out, "adaclip", "--batch-size", 2)).exit_code == 0
    training = read_info(out).training
    assert (training["rate"], training["batch_size"], training["epochs"]) == (0.01, 2, 1)


def test_what_cannot_be_trained_says_so(backbone, tmp_path):
    message = refused(*train(backbone, tmp_path / "a.safetensors", "clip_ac"))
    assert "learns nothing" in message
    assert "coop" in message


def score(backbone, picture, out, *extra):
    result = run(*predict(backbone, picture, out, *extra))
    assert result.exit_code == 0, result.output
    with (out / "results.csv").open(newline="", encoding="utf-8") as handle:
        return next(csv.DictReader(handle))["score"]


def test_the_category_changes_what_is_compared(backbone, picture, tmp_path):
    values = {
        name: score(backbone, picture, tmp_path / name, "--method", "clip", "--category", name)
        for name in ("bottle", "wood")
    }
    default = score(backbone, picture, tmp_path / "default", "--method", "clip")
    named = score(backbone, picture, tmp_path / "object", "--method", "clip", "--category", "object")
    assert len({default, *values.values()}) == 3
    assert default == named


def test_references_turn_on_the_few_shot_variant(backbone, picture, tmp_path):
    normal = tmp_path / "normal"
    normal.mkdir()
    Image.open(picture).save(normal / "n.png")
    plain = score(backbone, picture, tmp_path / "plain", "--method", "winclip")
    few = score(backbone, picture, tmp_path / "few", "--method", "winclip", "--reference", normal)
    assert plain != few
    message = refused(*predict(backbone, picture, tmp_path / "no", "--method", "anovl", "--reference", normal))
    assert "no few-shot variant" in message
    assert "winclip" in message
    message = refused(*predict(backbone, picture, tmp_path / "one", "--method", "clip", "--reference", normal))
    assert "1 image(s) to compare with; give at least two" in message


def test_wrong_settings_name_the_right_ones(backbone, picture, tmp_path):
    base = predict(backbone, picture, tmp_path / "run", "--method", "clip")
    assert "NAME=VALUE" in refused(*base, "--set", "alpha")
    assert "ClipZeroShotConfig has" in refused(*base, "--set", "no_such=1")
    assert "no category" in refused(*base, "--category", "")
