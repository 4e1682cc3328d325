"""Two processes train to what one trains to; one that dies takes the other along; either can go on alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import headclip
from headclip.cli.app import app
from headclip.clip.weights import save_backbone
from headclip.errors import InputError
from headclip.methods.checkpoint import load_checkpoint
from headclip.training.batches import pack_items, unpack_items
from headclip.training.distributed import Ranks
from headclip.training.features import image_key
from headclip.training.losses import joint_loss
from headclip.training.trainer import log_path, state_path
from tiny_clip import make_backbone, make_config

sys.path.insert(0, str(Path(__file__).parent))
from rank_runs import COUNT, KINDS, begin, resume, trainer

close = torch.testing.assert_close
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(headclip.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
}
posix = pytest.mark.skipif(os.name != "posix", reason="torchrun with gloo is tried on POSIX systems")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Folder and trainers of runs by this process alone."""
    folder = tmp_path_factory.mktemp("one")
    runs = {kind: trainer(kind, folder) for kind in KINDS}
    for kind, run in runs.items():
        run.run(folder / f"{kind}.safetensors")
    return folder, runs


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folder of the same runs by two processes of torchrun, and what each of them says it ended with."""
    folder = tmp_path_factory.mktemp("two")
    begin("plain", folder / "one.safetensors")
    script = Path(__file__).with_name("rank_runs.py")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, script, folder], env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = {kind: [torch.load(folder / f"{kind}.{rank}.pt") for rank in (0, 1)] for kind in KINDS}
    return folder, found


@posix
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_what_one_learns(one, two, kind):
    ours, (first, second) = one[1][kind].method.state_dict(), two[1][kind]
    for name, value in ours.items():
        assert torch.equal(first["method"][name], second["method"][name]), name
        close(first["method"][name], value, atol=1e-4, rtol=1e-3)
    start = trainer(kind, one[0]).method.state_dict()
    assert any((value - start[name]).abs().max() > 1e-3 for name, value in ours.items()), "it must have learnt"
    info = load_checkpoint(two[0] / f"{kind}.safetensors", one[1][kind].method.backbone)[1]
    assert info.training["keep_features"] == KINDS[kind][2]
    logs = [log_path(place / f"{kind}.safetensors").read_text().splitlines() for place in (one[0], two[0])]
    assert len(logs[0]) == len(logs[1]) == 3
    assert not state_path(two[0] / f"{kind}.safetensors").exists()


@posix
@pytest.mark.parametrize("kind", ["kept", "kept_int8"])
def test_each_keeps_its_share_and_reads_the_whole(one, two, kind):
    passes = [result["passes"] for result in two[1][kind]]
    # two and one of each batch of three, and the last image by the first process; the second one, which has nothing to
    # do, borrows it: one of them computes it, or both
    assert sum(passes[0]) in (6, 7)
    assert sum(passes[1]) in (3, 4)
    assert sum(passes[0] + passes[1]) >= COUNT
    stores = [trainer(kind, place).store for place in (one[0], two[0])]
    method, data = one[1][kind].method, one[1][kind].data
    keys = [image_key(data[number].image) for number in range(COUNT)]
    assert not any(store.missing(method, keys) for store in stores)
    assert stores[0].bytes == stores[1].bytes
    ours, theirs = (store.tokens(method, keys) for store in stores)
    close(theirs.cls, ours.cls, atol=1e-5, rtol=1e-4)
    for tap, value in ours.local.items():
        assert (theirs.local[tap] - value).norm() < 1e-2 * value.norm()


@posix
def test_a_run_goes_on_with_another_number_of_processes(one, two):
    resumed = resume("kept", two[0] / "two.safetensors")
    for name, value in one[1]["kept"].method.state_dict().items():
        close(resumed.method.state_dict()[name], value, atol=1e-4, rtol=1e-3)
    other, _ = load_checkpoint(two[0] / "one.safetensors", one[1]["plain"].method.backbone)
    for name, value in one[1]["plain"].method.state_dict().items():
        close(other.state_dict()[name], value, atol=1e-4, rtol=1e-3)


def start_two(words):
    """The command in two processes that know of each other, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {**ENVIRONMENT, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "headclip", *words],
            env={**place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


@posix
def test_one_that_is_killed_ends_both_and_the_run_can_go_on(tmp_path):
    save_backbone(make_backbone(make_config()), tmp_path / "tiny")
    out = tmp_path / "a.safetensors"
    words = ["train", "--data", "synthetic", "--images", "4", "--image-size", "42", "--workers", "0", "--device", "cpu"]
    words += ["--epochs", "60", "--batch-size", "2", "--backbone", str(tmp_path / "tiny"), "--out", str(out)]
    words += ["--features-in", str(tmp_path / "features")]
    processes = start_two(words)
    try:
        until = time.monotonic() + 300
        while not state_path(out).exists():
            assert processes[0].poll() is None, processes[0].communicate()
            assert time.monotonic() < until
            time.sleep(0.01)
        os.kill(processes[1].pid, signal.SIGKILL)
        _, said = processes[0].communicate(timeout=300)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[0].returncode == 2, said
    assert "error: another process of this training has stopped" in said
    assert "--resume" in said
    assert "Traceback" not in said
    assert not out.exists()
    done = CliRunner().invoke(app, [*words, "--resume"])
    assert done.exit_code == 0, done.output
    assert out.exists()
    assert len(log_path(out).read_text().splitlines()) == 60


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("images", [1, 3, 8])
def test_a_batch_is_dealt_out_whole_and_in_order(count, images):
    numbers = list(range(10, 10 + images))
    shares = [Ranks(rank, count).share(numbers) for rank in range(count)]
    assert [number for share in shares for number in share] == numbers
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("pixel", ["focal_dice", "cross_entropy"])
@pytest.mark.parametrize("kind", ["cross_entropy", "focal"])
def test_losses_of_parts_add_up(pixel, kind):
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(5, 2, generator=draw), torch.tensor([0, 1, 1, 0, 1])
    maps = [torch.randn(5, 2, 8, 8, generator=draw).softmax(dim=1) for _ in range(2)]
    masks = (torch.rand(5, 8, 8, generator=draw) > 0.8).float()
    marked = torch.tensor([True, True, False, True, False])

    def loss(rows, shares):
        known = [row for row in rows if marked[row]]
        return joint_loss(
            logits[rows], [m[known] for m in maps], labels[rows], masks[known], 4.0, False, kind, pixel, shares
        )

    whole = loss([0, 1, 2, 3, 4], (1.0, 1.0))
    parts = [loss([0, 1], (2 / 5, 2 / 3)), loss([2, 3], (2 / 5, 1 / 3)), loss([4], (1 / 5, 0.0))]
    for name in ("total", "local", "image"):
        close(sum(getattr(part, name) for part in parts), getattr(whole, name))


def test_what_is_known_of_images_can_be_sent(tmp_path):
    run = trainer("kept", tmp_path)
    for batch in run.loader(0):
        run.remember(batch)
    again = unpack_items(pack_items(run.items))
    assert again.keys() == run.items.keys()
    for number, item in run.items.items():
        assert torch.equal(again[number].unpacked(), item.unpacked())
        assert (again[number].key, again[number].label, again[number].category) == (item.key, item.label, item.category)
        assert again[number].has_mask == item.has_mask


def test_what_several_processes_cannot_do_is_refused(tmp_path):
    with pytest.raises(InputError, match="4 processes cannot share batches of 3 images"):
        trainer("plain", tmp_path, Ranks(0, 4))
    run = trainer("plain", tmp_path)
    for place in (True, "memory"):
        object.__setattr__(run.config, "keep_features", place)
        with pytest.raises(InputError, match="--features-in FOLDER"):
            type(run)(run.method, run.data, run.config, Ranks(0, 2))
