"""`headclip data` as its users meet it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data.dataset_files import mask, mvtec, picture
from headclip.cli.common import readable_errors
from headclip.cli.data import app

runner = CliRunner()


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("HEADCLIP_DEBUG", raising=False)


def run(*arguments: str) -> tuple[int, str]:
    result = runner.invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout


def refused(capsys, *arguments: str) -> str:
    """The message of a command that ends with status 2, through the same door as the process."""
    with pytest.raises(SystemExit) as caught, readable_errors():
        app(args=list(arguments), prog_name="headclip data")
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_list():
    status, out = run("list")
    assert status == 0
    lines = out.splitlines()
    line = next(line for line in lines if line.startswith("mvtec "))
    assert line.split() == ["mvtec", "MVTec", "AD", "both", "467", "1,258", "yes"]
    assert any(line.startswith("sdd-anomalyclip") for line in lines)
    _, paper = run("list", "--paper")
    assert sum(line.rstrip().endswith(" yes") for line in paper.splitlines()) == 17
    assert "sdd-dra" not in paper
    assert "licence: CC BY-NC-SA 4.0" in run("list", "--details")[1]


def test_check_of_a_sound_folder(tmp_path):
    mvtec(tmp_path, ["cup"])
    status, out = run("check", f"folder={tmp_path}")
    assert status == 0
    assert "No problems; 3 images, every file was read." in out
    assert run("check", str(tmp_path), "--quick")[1].rstrip().endswith("no pixels were read.")


def test_check_names_problems(tmp_path):
    mvtec(tmp_path, ["bottle"])
    picture(tmp_path / "bottle/test/bad/8.png", 8)
    mask(tmp_path / "bottle/ground_truth/bad/7_mask.png", size=(24, 20))
    status, out = run("check", f"mvtec={tmp_path}")
    assert status == 1
    assert "error: image without mask (1)\n  bottle/test/bad/8.png has no mask\n" in out
    assert "problem: mask of another size (1)" in out
    assert "Version: a part of MVTec AD" in out
    assert "problem: missing category (14)" in out
    assert "and 9 more; --all names them" in out
    assert "the category zipper is missing" not in out
    assert "the category zipper is missing" in run("check", f"mvtec={tmp_path}", "--all")[1]


def test_check_of_something_else(tmp_path, capsys):
    assert "did you mean mvtec" in refused(capsys, "check", f"mvtek={tmp_path}")
    assert "does not look like MVTec AD" in refused(capsys, "check", f"mvtec={tmp_path}")
    assert "does not exist" in refused(capsys, "check", "mvtec=/no/such/folder")
    assert "neither NAME=PATH nor an existing path" in refused(capsys, "check", "mvtec")


def test_synth_and_check(tmp_path, capsys):
    out = tmp_path / "set"
    arguments = ("synth", "--out", str(out), "--size", "48", "--seed", "2")
    status, text = run(*arguments, "--count", "2")
    assert status == 0
    assert "2 pictures, 2 new, 0 already there" in text
    assert "3 pictures, 1 new, 2 already there" in run(*arguments, "--count", "3")[1]
    assert run(*arguments, "--count", "4", "--quiet")[1] == ""
    assert Path(out / "captions.csv").is_file()
    assert run("check", str(out))[0] in (0, 1)
    assert "other settings: defect_rate 0.5 (now 0.1)" in refused(
        capsys, *arguments, "--count", "4", "--defect-rate", "0.1"
    )


def test_synth_of_one_kind(tmp_path, capsys):
    out = tmp_path / "set"
    arguments = (
        "synth",
        "--out",
        str(out),
        "--size",
        "64",
        "--count",
        "4",
        "--defect-rate",
        "1",
        "--family",
        "leather",
    )
    assert run(*arguments, "--defect", "crack")[0] == 0
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert {(row["family"], row["defect"]) for row in rows} == {("leather", "crack")}
    assert "other settings: defect crack (now hole)" in refused(capsys, *arguments, "--defect", "hole")
    assert "no family 'lether'" in refused(capsys, "synth", "--out", str(tmp_path / "b"), "--family", "lether")
    assert "no defect 'dirt'" in refused(capsys, "synth", "--out", str(tmp_path / "b"), "--defect", "dirt")
    assert not (tmp_path / "b").exists()


def test_help_imports_no_torch():
    import subprocess
    import sys

    code = "import sys, headclip.cli.data; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
