"""The command: its plan, its messages, and one small run."""

from __future__ import annotations

import pytest

from evaluation.evaluate_files import write_set
from headclip.cli.app import main


def call(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["ablate", *map(str, words)])
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


def test_a_plan_names_models_and_trains_nothing(capsys, tmp_path):
    status, out, _ = call(capsys, "modules", "--plan", "--seeds", 2, "--out", tmp_path / "out")
    assert status == 0
    assert "modules: neither <- neither-" in out
    assert "4 models to train; 4 detectors to run (2 seeds)" in out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["heads"], "unknown ablation 'heads'; choose one of lhw, layers"),
        (["lhw"], "an ablation needs a dataset to test on, --eval NAME=PATH"),
        (["lhw", "--plan", "--set", "alphas=1"], "no trained method of lhw has it; there is aggregation, alpha"),
        (["lhw", "--plan", "--train", "epochs"], "--train epochs: write NAME=VALUE"),
        (["lhw", "--plan", "--only", "LHW"], "nothing of lhw is called so; it has 'without LHW', 'with LHW'"),
        (["lhw", "--eval", "sdd=/nowhere", "--out", "x"], "/nowhere does not exist"),
    ],
)
def test_what_is_wrong_is_said(capsys, words, message):
    status, _, err = call(capsys, *words)
    assert status == 2
    assert message in err.replace("\n", " ")


def test_what_cannot_be_trained_is_said_at_the_end(capsys, tmp_path):
    data = write_set(tmp_path / "data", categories=("cup",), normal=2, defects=2)
    words = ["init", "--only", "0.0", "--seeds", 1, "--images", 2, "--epochs", 2, "--image-size", 32, "--quiet"]
    words += ["--eval", data, "--out", tmp_path / "out", "--no-figures", "--train", "rate=1e30"]
    status, out, err = call(capsys, *words)
    assert (status, out) == (1, "")
    assert "error: 0.0, seed 111, could not be trained: the loss is nan in epoch 2; lower" in err
    assert "1 model(s) could not be trained; the table has no figures of them" in err
    assert "No row has figures; the notes say why." in (tmp_path / "out" / "table.md").read_text()


def test_a_small_run(capsys, tmp_path):
    data = write_set(tmp_path / "data", categories=("cup",), normal=2, defects=2)
    words = ["init", "--only", "0.0", "--seeds", 1, "--images", 2, "--epochs", 1, "--image-size", 32, "--quiet"]
    words += ["--eval", data, "--out", tmp_path / "out", "--no-figures"]
    status, out, _ = call(capsys, *words)
    assert (status, out) == (0, "")
    table = (tmp_path / "out" / "table.md").read_text()
    assert "`headclip ablate init`: Table 8." in table
    assert "*60.1*" in table
