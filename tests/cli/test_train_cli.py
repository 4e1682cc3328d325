"""`headclip train` and `headclip pretrain` as a user runs them, kills included."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from headclip.clip.weights import save_backbone
from headclip.methods.checkpoint import read_info
from tiny_clip import make_backbone, make_config

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*arguments):
    command = [sys.executable, "-m", "headclip", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)


def options(backbone, out, **changes):
    values = {"epochs": 2, "images": 24, "image-size": 42, "workers": 0, "device": "cpu", **changes}
    flat = [part for name, value in values.items() for part in (f"--{name}", value)]
    return ["train", "--data", "synthetic", "--backbone", backbone, "--out", out, *flat]


def test_train_then_predict(backbone, tmp_path):
    out = tmp_path / "adapted.safetensors"
    done = run(*options(backbone, out), "--set", "sigma=2", "--set", 'words=["part.", "bad part."]')
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    info = read_info(out)
    assert info.config["sigma"] == 2
    assert info.config["words"] == ["part.", "bad part."]
    log = [json.loads(line) for line in (tmp_path / "adapted.safetensors.log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2]

    again = run(*options(backbone, out))
    assert again.returncode == 2
    assert "--overwrite" in again.stderr

    assert run("data", "synth", "--help").returncode in (0, 2)
    other = tmp_path / "other"
    save_backbone(make_backbone(make_config(), seed=1), other)
    picture = tmp_path / "a.png"
    from PIL import Image

    Image.new("RGB", (60, 50), (90, 120, 60)).save(picture)
    good = run("predict", picture, "--out", tmp_path / "run", "--backbone", backbone, "--checkpoint", out)
    assert good.returncode == 0, good.stderr
    bad = run("predict", picture, "--out", tmp_path / "run2", "--backbone", other, "--checkpoint", out)
    assert bad.returncode == 2
    assert "was trained on backbone" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_a_killed_training_resumes_to_the_same_checkpoint(backbone, tmp_path):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    size = {"epochs": 12, "images": 16, "batch-size": 4}
    assert run(*options(backbone, whole, **size)).returncode == 0
    command = [sys.executable, "-m", "headclip", *map(str, options(backbone, cut, **size))]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = tmp_path / "cut.safetensors.log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not cut.exists(), "the run was over before it could be killed"
    refused = run(*options(backbone, cut, **size))
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    resumed = run(*options(backbone, cut, **size), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    one, other = load_file(whole), load_file(cut)
    assert all((one[name] == other[name]).all() for name in one)
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == list(range(1, 13))


@pytest.mark.parametrize(
    ("changes", "extra", "words"),
    [
        ({}, ["--resume"], "nothing to resume"),
        ({}, ["--set", "alpha"], "NAME=VALUE"),
        ({}, ["--set", "alpha=3"], "alpha must lie"),
        ({}, ["--set", "no_such=3"], "HeadClipConfig has"),
        ({"epochs": 0}, [], "epochs"),
        ({"backbone": "no-such-model"}, [], "no-such-model"),
    ],
)
def test_wrong_use_says_what_is_right(backbone, tmp_path, changes, extra, words):
    done = run(*options(changes.pop("backbone", backbone), tmp_path / "a.safetensors", **changes), *extra)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_pretrain_resume_and_use(tmp_path):
    shape = tmp_path / "tiny.json"
    shape.write_text(json.dumps(make_config("gelu").to_dict()))
    base = ["pretrain", "--out", tmp_path / "p", "--architecture", shape, "--images", 8, "--batch-size", 4]
    base += ["--workers", 0, "--device", "cpu"]
    part = run(*base, "--minutes", 0)
    assert part.returncode == 0, part.stderr
    assert "step 1 of 2" in part.stdout
    assert run(*base).returncode == 2
    rest = run(*base, "--resume")
    assert rest.returncode == 0, rest.stderr
    trained = run(*options(tmp_path / "p" / "model", tmp_path / "a.safetensors", epochs=1, images=8))
    assert trained.returncode == 0, trained.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_scheduler_that_ends_a_pretraining_loses_no_step(tmp_path, workers):
    """It may tell all processes of the job, in any order."""
    shape = tmp_path / "tiny.json"
    shape.write_text(json.dumps(make_config("gelu").to_dict()))
    words = ["pretrain", "--out", tmp_path / "p", "--architecture", shape, "--images", 40_000, "--batch-size", 4]
    command = [sys.executable, "-m", "headclip", *map(str, words), "--workers", str(workers), "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    log = tmp_path / "p" / "log.jsonl"

    def until(lines):
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and len(log.read_text().splitlines()) >= lines:
                return
            time.sleep(0.05)

    until(1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == workers
    for child in children:
        os.kill(int(child), signal.SIGTERM)
    until(len(log.read_text().splitlines()) + 2)  # it goes on
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in err
    logged = json.loads(log.read_text().splitlines()[-1])["step"]
    assert torch.load(tmp_path / "p" / "state.pt", weights_only=False)["step"] >= logged
