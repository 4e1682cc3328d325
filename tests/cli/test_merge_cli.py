"""`headclip merge` and `--shard` as users meet them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands import run
from evaluation.evaluate_files import FakeEvaluated, write_set
from headclip.runs.run import Run
from inference.pictures import write_pictures

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with `in`, twelve pictures; the model is the fake one."""
    for command in ("predict", "evaluate"):
        monkeypatch.setattr(f"headclip.cli.{command}.load_detector", lambda arguments, quiet: FakeEvaluated())
    monkeypatch.delenv("HEADCLIP_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "in", 12)
    return tmp_path


def test_shards_then_merge(folder, capsys):
    for index in (1, 2):
        assert run("predict", "in", "--out", "run", "--shard", f"{index}/2", "--resume") == 0
        assert f"Shard {index}/2 is in run/shards/{index}-of-2" in capsys.readouterr().out
    assert run("merge", "run") == 0
    printed = capsys.readouterr().out
    assert "12 images joined: 12 judged, 0 failed" in printed
    assert "run/report.html" in printed
    assert run("merge", "run") == 0
    assert "12 of them earlier" in capsys.readouterr().out
    assert run("predict", "in", "--out", "one", "--quiet") == 0
    columns = (folder / "one/results.csv").read_text().splitlines()[0].split(",")
    kept = [number for number, column in enumerate(columns) if column != "seconds"]
    one, merged = (
        [
            [line.split(",")[number] for number in kept]
            for line in (folder / name / "results.csv").read_text().splitlines()
        ]
        for name in ("one", "run")
    )
    assert one == merged


def test_a_shard_without_images_is_a_shard(folder):
    for index in (1, 2, 3):
        assert run("predict", "in/left/part 1.png", "--out", "run", "--shard", f"{index}/3", "--quiet") == 0
    assert run("merge", "run", "--quiet") == 0
    assert len(Run.open("run").ok) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "in", "--out", "run", "--shard", "3/2"], "no shard 3/2; write i/n with i from 1 to n"),
        (["predict", "in", "--out", "run", "--shard", "half"], "--shard half: write i/n"),
        (
            ["predict", "in", "--out", "run", "--shard", "1/2"],
            "run/shards/1-of-2 already holds a finished run; add --resume",
        ),
        (["merge", "run"], "1 of 2 shards are missing: 2/2"),
        (["merge", "nowhere"], "nowhere is no folder"),
        (["merge", "in"], "in holds no shard; `headclip predict --shard i/n`"),
        (["merge", "run/shards/1-of-2"], "1 of 2 shards are missing"),
        (["merge", "run", "--json"], "are for evaluations"),
    ],
)
def test_wrong_use_says_what_is_right(folder, capsys, arguments, words):
    assert run("predict", "in", "--out", "run", "--shard", "1/2", "--quiet") == 0
    capsys.readouterr()
    assert run(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]


def test_evaluation_in_shards(folder, capsys, monkeypatch):
    write_set(folder / "set", ("cup",))
    for name, shards in (("e", ["1/2", "2/2"]), ("one", [None])):
        for shard in shards:
            more = [] if shard is None else ["--shard", shard]
            words = ["evaluate", "--data", "folder=set", "--out", name, "--bootstrap", "20", "--no-figures", *more]
            monkeypatch.setattr(sys, "argv", ["headclip", *[word.replace("one", "e") for word in words]])
            assert run(*words) == 0
    assert "Shard 2/2 is in e/shards/2-of-2. When all are done: headclip merge e" in capsys.readouterr().out
    assert run("merge", "e", "--json") == 0
    assert json.loads(capsys.readouterr().out)["merged"] == {"shards": 2}
    for name in ("tables.md", "tables.csv", "scores.csv"):
        assert (folder / "e" / name).read_text() == (folder / "one" / name).read_text()
    assert "--shard" not in (folder / "e/tables.md").read_text()
    assert run("predict", "in", "--out", "run", "--shard", "1/1", "--quiet") == 0
    capsys.readouterr()
    assert run("merge", "run", "e", "--out", "all") == 2
    assert "merge the ones and the others on their own" in capsys.readouterr().err


def test_the_array_script_is_sound_and_calls_what_there_is(tmp_path):
    script = ROOT / "examples/slurm_array.sh"
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    assert subprocess.run([bash, "-n", str(script)]).returncode == 0
    calls = tmp_path / "calls"
    for name in ("headclip", "sbatch"):  # in place of the real ones: they only say how they were called
        stand_in = tmp_path / name
        stand_in.write_text(f'#!/bin/sh\necho "{name} $*" >> "{calls}"\necho 17\n')
        stand_in.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}
    assert subprocess.run([bash, str(script), "in", "run"], env=environment).returncode == 0
    assert subprocess.run([bash, str(script), "in", "run"], env={"PATH": environment["PATH"]}).returncode == 0
    lines = calls.read_text().splitlines()
    assert lines[0] == "headclip predict in --out run --shard 3/8 --resume --quiet"
    assert lines[1].startswith("sbatch --parsable --array=1-")
    assert "--dependency=afterok:17" in lines[2]
    assert "headclip merge" in lines[2]
