"""Kills and faults in miniature; scripts/drills.py does it at length."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import headclip.files
from drilling.tricks import CACHE_DAMAGES, DAMAGES
from headclip.errors import CheckpointError, HeadclipError, InputError, OutputError
from headclip.files import scratch_folder, write_atomically
from headclip.locks import sole_writer
from headclip.methods import create_method
from headclip.methods.checkpoint import load_checkpoint, read_info, save_checkpoint
from headclip.training.files import append_json_line, load_torch, save_torch, trim_log
from tiny_clip import make_backbone, make_config

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@posix
def test_a_kill_of_each_job(tmp_path):
    counts = tmp_path / "counts.json"
    call = [sys.executable, ROOT / "scripts/drills.py", "--kills", "5", "--no-faults", "--json", counts]
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tallies = json.loads(counts.read_text())["kills"]
    assert [tally["job"] for tally in tallies] == ["predict", "evaluate", "calibrate", "train", "pretrain"]
    for tally in tallies:
        assert tally["kills"] == 1
        assert (tally["lost"], tally["doubled"], tally["half_written"], tally["left_behind"]) == (0, 0, 0, 0)
        assert tally["equal"] == tally["rounds"] > 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_what_cannot_be_written_leaves_the_old_file_and_says_what_to_do(tmp_path, monkeypatch, number):
    def refuse(handle):
        raise OSError(number, os.strerror(number))

    write_atomically(tmp_path / "a.json", "old")
    save_torch({"a": torch.zeros(2)}, tmp_path / "a.state")
    monkeypatch.setattr(headclip.files.os, "fsync", refuse)
    for write in (
        lambda: write_atomically(tmp_path / "a.json", "new"),
        lambda: save_torch({"a": torch.ones(2)}, tmp_path / "a.state"),
    ):
        with pytest.raises(OutputError) as caught:
            write()
        assert os.strerror(number) in str(caught.value)
        assert "repeat the command" in str(caught.value)
        assert caught.value.errno == number
    assert (tmp_path / "a.json").read_text() == "old"
    assert load_torch(tmp_path / "a.state")["a"].tolist() == [0.0, 0.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.state"]


def test_a_log_on_a_full_disk_says_so(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.raises(OutputError, match="make room"):
        append_json_line(Path("/dev/full"), {"a": 1})


@posix
def test_what_a_killed_process_left_is_swept_and_what_a_running_one_writes_is_not(tmp_path, monkeypatch):
    process = os.fork()
    if not process:
        (tmp_path / f"a.json{headclip.files._partial()}").write_text("half")
        (tmp_path / f".work{headclip.files._partial()}").mkdir()
        os._exit(0)
    os.waitpid(process, 0)
    running = tmp_path / f"b.json{headclip.files._partial()}"
    running.write_text("half")
    foreign = tmp_path / "b.json.0000-1-00000000.partial"
    foreign.write_text("of another machine")
    assert len(list(tmp_path.iterdir())) == 4
    write_atomically(tmp_path / "c.json", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([running.name, foreign.name, "c.json"])
    with scratch_folder(tmp_path) as scratch:
        assert scratch.is_dir()
    assert not scratch.exists()


@posix
def test_a_forked_worker_does_not_keep_the_lock(tmp_path):
    """A data loader's worker outlives its killed parent by seconds; --resume must not wait for it."""
    reading, writing = os.pipe()
    waiting, ready = os.pipe()
    parent = os.fork()
    if not parent:
        with sole_writer(tmp_path / "a"):
            worker = os.fork()
            if not worker:
                os.write(ready, b"x")
                os.read(reading, 1)  # until the test is over
                os._exit(0)
            os.read(waiting, 1)
            os.kill(os.getpid(), 9)
    os.waitpid(parent, 0)
    try:
        with sole_writer(tmp_path / "a"):
            pass
    finally:
        os.write(writing, b"x")
        for end in (reading, writing, waiting, ready):
            os.close(end)


@posix
def test_two_writers_at_a_time_are_refused(tmp_path):
    with sole_writer(tmp_path / "a"):
        process = os.fork()
        if not process:
            try:
                with sole_writer(tmp_path / "a"):
                    os._exit(0)
            except InputError:
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 7
    assert not (tmp_path / "a.lock").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_not_used(tmp_path, damage):
    backbone = make_backbone(make_config())
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, create_method("headclip", backbone))
    load_checkpoint(path, backbone)
    DAMAGES[damage](path)
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        load_checkpoint(path, backbone)


def test_a_checkpoint_from_before_check_sums_is_read(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    backbone = make_backbone(make_config())
    save_checkpoint(tmp_path / "a.safetensors", create_method("headclip", backbone))
    with safe_open(tmp_path / "a.safetensors", "pt") as handle:
        facts = {key: value for key, value in handle.metadata().items() if key != "sha256"}
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a dict
    save_file(tensors, tmp_path / "old.safetensors", facts)
    assert read_info(tmp_path / "old.safetensors").method == "headclip"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_not_gone_on_from(tmp_path, damage):
    save_torch({"a": torch.arange(500.0)}, tmp_path / "a.state")
    DAMAGES[damage](tmp_path / "a.state")
    with pytest.raises(InputError, match="start anew without --resume"):
        load_torch(tmp_path / "a.state")


def test_a_torn_log_is_trimmed_and_goes_on(tmp_path):
    log = tmp_path / "log.jsonl"
    for step in (10, 20, 30):
        append_json_line(log, {"step": step})
    with log.open("ab") as handle:
        handle.write(b'{"step": 4')
    trim_log(log, "step", 20)
    append_json_line(log, {"step": 30})
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [10, 20, 30]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_pixel_counts_are_found_out(tmp_path, damage):
    import numpy as np

    from headclip.evaluation.counts import encode_counts, is_sound, read_counts
    from headclip.metrics.state import image_state

    scores = np.random.default_rng(0).random((20, 24)).astype(np.float32)
    path = tmp_path / "a.counts"
    path.write_bytes(encode_counts(image_state(scores, scores > 0.9), {"mask": "x"}))
    assert is_sound(path)
    DAMAGES[damage](path)
    assert not is_sound(path)
    with pytest.raises(HeadclipError):
        read_counts(path)


@pytest.mark.parametrize("damage", CACHE_DAMAGES)
def test_damaged_features_are_found_out_and_computed_anew(tmp_path, damage):
    """In all files at a time: a row that is damaged in one must not hide that it is damaged in another."""
    from headclip.training.features import FeatureStore, image_key, kept_or_computed

    method = create_method("headclip", make_backbone(make_config()))
    images = torch.randint(0, 255, (3, 3, 42, 42), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    keys = [image_key(image) for image in images]

    def tokens():
        store = FeatureStore(method.backbone, (42, 42), folder=tmp_path)
        return kept_or_computed(store, method, keys, lambda rows: images[list(rows)]), store

    wanted, _ = tokens()
    CACHE_DAMAGES[damage](tmp_path)
    found, store = tokens()
    torch.testing.assert_close(found.cls, wanted.cls, atol=1e-4, rtol=0)  # other batches round differently
    for layer in wanted.local:
        torch.testing.assert_close(found.local[layer], wanted.local[layer], atol=1e-2, rtol=0)
    assert store.missing(method, keys) == []
