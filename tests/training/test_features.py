"""Kept features give what the tower gives, whatever happens to the files."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections import namedtuple

import numpy as np
import pytest
import torch

from headclip.clip.vision import VisionRequest
from headclip.errors import InputError
from headclip.locks import try_lock
from headclip.methods import create_method
from headclip.training.feature_codec import Plane
from headclip.training.feature_files import FileRows, read_entry
from headclip.training.features import (
    FeatureStore,
    frozen_pass,
    image_key,
    kept_or_computed,
    kept_request,
)
from headclip.training.trainer import normalise
from tiny_clip import make_backbone, make_config, stirred

close = torch.testing.assert_close
SIZE = (42, 56)
METHODS = {
    "headclip": {},
    "headclip without head weights": {"head_weights": False},
    "headclip with taps below": {"aggregation": "taps", "taps": [1, 2, 3], "csa_layers": [2, 3]},
    "headclip without base": {"aggregation": "sum"},
    "headclip with neighbours": {"neighbour_weight": 0.5},
    "headclip with a refiner": {"refiner": 4},
    "headclip with linear heads": {"stream_layers": [1, 3]},
    "headclip with linear heads alone": {"stream_layers": [2], "head_weights": False},
    "anomalyclip": {"preset": "multi"},
    "linear_heads": {},
    "linear_heads with csa": {"csa_layers": [2, 3]},
}
METHOD = [pytest.param(name.split()[0], config, id=name) for name, config in METHODS.items()]


@pytest.fixture(scope="module")
def backbone():
    return make_backbone(make_config())


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (4, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def keys(images):
    return [image_key(image) for image in images]


def built(name, backbone, config):
    method = create_method(name, backbone, {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})
    if getattr(method, "head_weight", None) is not None:
        with torch.no_grad():
            method.head_weight.copy_(torch.randn(method.head_weight.shape, generator=torch.Generator().manual_seed(1)))
    return stirred(method)


def direct(method, images):
    config = method.backbone.config
    return method.tokens(normalise(images, config.mean, config.std, torch.float32))


def test_accumulating_kept_heads_equals_a_pass(backbone):
    pixels = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(2, 2, generator=torch.Generator().manual_seed(1))
    for with_base in (True, False):
        request = VisionRequest(csa=(2, 3), taps=(1, 2, 3), with_base=with_base, keep_heads=True)
        kept = frozen_pass(backbone.vision, pixels, request)
        with torch.no_grad():
            whole = backbone.vision(pixels, request, weights)
        again = backbone.vision.accumulate(kept, request, weights)
        assert again.local.keys() == whole.local.keys() == {1, 2, 3}
        for tap, value in whole.local.items():
            close(again.local[tap], value)
        close(again.cls, whole.cls)
        assert again.grid == whole.grid


@pytest.mark.parametrize("arithmetic", [torch.float32, torch.bfloat16])
def test_gradients_of_head_weights_are_those_of_a_pass(backbone, images, keys, arithmetic):
    method = built("headclip", backbone, {})
    store = FeatureStore(backbone, SIZE, arithmetic=arithmetic)
    store.add(method, keys, images)
    found = []
    for tokens in (direct(method, images), store.tokens(method, keys)):
        method.zero_grad()
        tokens.local[2].square().mean().backward()
        found.append(method.head_weight.grad.clone())
    close(found[1], found[0], atol=1e-4, rtol=2e-3)


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize(
    ("dtype", "arithmetic", "error"),
    [("fp16", torch.float32, 1e-3), ("fp16", torch.bfloat16, 4e-3), ("int8", None, 0.02)],
)
@pytest.mark.parametrize(("name", "config"), METHOD)
def test_tokens_equal_those_of_the_tower(
    backbone, images, keys, tmp_path, name, config, dtype, arithmetic, error, on_disk
):
    method = built(name, backbone, config)
    store = FeatureStore(backbone, SIZE, folder=tmp_path if on_disk else None, dtype=dtype, arithmetic=arithmetic)
    assert store.missing(method, keys) == keys
    store.add(method, keys, images)
    order = [2, 0, 3, 1]
    kept, whole = store.tokens(method, [keys[i] for i in order]), direct(method, images[order])
    assert torch.equal(kept.cls, whole.cls) or (kept.cls - whole.cls).abs().max() < 1e-5
    assert kept.local.keys() == whole.local.keys()
    for tap, value in whole.local.items():
        assert (kept.local[tap] - value).norm() < error * value.norm()
    assert kept.grid == whole.grid
    assert (kept.neighbours is None) == ("neighbour_weight" not in config)
    if kept.neighbours is not None:
        assert torch.equal(kept.neighbours, whole.neighbours)
    assert (kept.cells is None) == ("refiner" not in config)
    if kept.cells is not None:
        assert torch.equal(kept.cells, whole.cells)
    with torch.no_grad():  # and so whatever the method makes of them works
        scores = [method.score(tokens, method.text_vectors()[0], SIZE).score for tokens in (kept, whole)]
    close(scores[0], scores[1], atol=0.02, rtol=0)
    assert store.bytes == len(keys) * store.bytes_per_image(method)


def test_coop_keeps_the_class_token_alone(backbone, images, keys):
    method, store = built("coop", backbone, {}), FeatureStore(backbone, SIZE)
    store.add(method, keys, images)
    kept = store.tokens(method, keys)
    close(kept.cls, direct(method, images).cls)
    assert not kept.local
    assert store.bytes_per_image(method) == 4 * 128


def test_methods_share_what_they_have_in_common(backbone, images, keys, tmp_path):
    store = FeatureStore(backbone, SIZE, folder=tmp_path)
    store.add(built("headclip", backbone, {"csa_layers": [2, 3]}), keys, images)
    before = store.bytes
    for config in ({"csa_layers": [2, 3], "aggregation": "layers"}, {"csa_layers": [2, 2]}, {"temperature": 0.5}):
        other = built("headclip", backbone, config)
        assert not FeatureStore(backbone, SIZE, folder=tmp_path).missing(other, keys), config
    upper = built("headclip", backbone, {"csa_layers": [3, 3]})  # lacks what enters layer 3 alone
    assert store.missing(upper, keys) == keys
    store.add(upper, keys, images)
    assert store.bytes - before == len(keys) * 13 * 128 * 2
    assert store.missing(built("headclip", backbone, {"similarity": "qq"}), keys) == keys


@pytest.mark.parametrize("what", ["backbone", "size", "precision", "image"])
def test_features_of_something_else_are_not_taken(backbone, images, keys, tmp_path, what):
    method = built("anomalyclip", backbone, {})
    FeatureStore(backbone, SIZE, folder=tmp_path).add(method, keys, images)
    if what == "image":
        changed = images.clone()
        changed[:, 0, 0, 0] += 1
        store, method, keys = FeatureStore(backbone, SIZE, folder=tmp_path), method, [image_key(i) for i in changed]
    elif what == "size":
        store = FeatureStore(backbone, (42, 42), folder=tmp_path)
    else:
        other = make_backbone(make_config(), seed=int(what == "backbone"))
        other = other.to(torch.bfloat16) if what == "precision" else other
        store, method = FeatureStore(other, SIZE, folder=tmp_path), built("anomalyclip", other, {})
    assert store.missing(method, keys) == keys


def test_adaclip_says_that_it_needs_the_tower(backbone):
    with pytest.raises(InputError, match="adaclip needs the tower anew in every step"):
        kept_request(create_method("adaclip", backbone))


def test_values_beyond_half_precision_are_refused():
    for code in ("fp16", "int8"):
        with pytest.raises(InputError, match="half precision"):
            Plane("a", 2, 4, 2, code).encode(torch.full((1, 2, 4), 1e5))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 6e4])
def test_eight_bits_follow_the_size_of_each_head(scale):
    plane = Plane("a", 5, 8, 4, "int8")
    values = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1) * scale
    values[..., 4:] /= 100
    again = plane.decode(plane.encode(values), torch.device("cpu"), torch.float32)
    for head in (slice(0, 4), slice(4, 8)):
        step = (values[..., head].abs().amax(-1, keepdim=True) * 1.002).clamp(min=2.0**-14) / 127
        assert ((again - values)[..., head].abs() <= 0.51 * step).all()


def passes(backbone, monkeypatch):
    """How many images the tower has seen since, as a list of batch sizes."""
    seen, forward = [], backbone.vision.forward
    monkeypatch.setattr(backbone.vision, "forward", lambda x, *rest: seen.append(len(x)) or forward(x, *rest))
    return seen


def files(folder, ending):
    return sorted(folder.rglob(f"*.{ending}"))


@pytest.mark.parametrize("what", ["row", "short", "line", "index", "gone"])
def test_damage_is_found_and_mended(backbone, images, keys, tmp_path, monkeypatch, what):
    method = built("headclip", backbone, {})
    store = FeatureStore(backbone, SIZE, folder=tmp_path)
    store.add(method, keys, images)
    whole = {path: path.read_bytes() for path in files(tmp_path, "rows")}
    rows, index = files(tmp_path, "rows")[1], files(tmp_path, "index")[1]
    content = bytearray(rows.read_bytes())
    hurt = [keys[3]]
    if what == "row":  # one bit of the last row
        content[-7] ^= 4
        rows.write_bytes(content)
    elif what == "short":
        rows.write_bytes(content[:-1])
    elif what == "line":  # a line says that another row is this image
        lines = index.read_text().splitlines()
        last = {**json.loads(lines[-1]), "row": 0}
        index.write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")
    elif what == "index":  # the end was never written
        index.write_bytes(index.read_bytes()[:-40])
    else:
        rows.unlink()
        hurt = keys
    again = FeatureStore(backbone, SIZE, folder=tmp_path)
    assert again.missing(method, keys) == hurt
    with pytest.raises(KeyError):
        again.tokens(method, keys)
    seen = passes(backbone, monkeypatch)
    tokens = kept_or_computed(again, method, keys, lambda wanted: images[wanted])
    assert seen == [len(hurt)]
    close(tokens.local[2], direct(method, images).local[2], atol=5e-3, rtol=5e-3)
    fresh = FeatureStore(backbone, SIZE, folder=tmp_path)
    assert not fresh.missing(method, keys)
    added = {path.stat().st_size - len(whole[path]) for path in whole}
    assert added == {0} if what in ("line", "index", "gone") else added == {0, rows.stat().st_size // 5}


def _write_for_ever(folder):
    rows = FileRows(folder / "a", 200_000)
    for number in range(10**6):
        rows.write({f"{number}-{i}": np.full(200_000, number % 251, np.uint8) for i in range(3)})


@pytest.mark.parametrize("attempt", range(3))
def test_a_killed_writer_leaves_whole_rows(tmp_path, attempt):
    context = multiprocessing.get_context("fork")
    writer = context.Process(target=_write_for_ever, args=(tmp_path,))
    writer.start()
    index = tmp_path / "a.index"
    while not index.exists() or index.stat().st_size < 2000:
        time.sleep(0.005)
    time.sleep(0.003 * attempt)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    with index.open("ab") as handle:
        handle.write(b'{"key": "torn')  # as if it had been killed in the middle of a line
    rows = FileRows(tmp_path / "a", 200_000)
    found = [entry[0] for line in index.read_bytes().splitlines() if (entry := read_entry(line))]
    assert len(found) >= 10
    assert all(rows.has(key) for key in found)
    assert all((rows.read(key) == int(key.split("-")[0]) % 251).all() for key in found)
    rows.write({"new": torch.full((200_000,), 7, dtype=torch.uint8).numpy()})
    again = FileRows(tmp_path / "a", 200_000)
    assert again.has("new")
    assert (again.read("new") == 7).all()
    assert all(again.has(key) for key in found)


def _write_some(folder, first):
    rows = FileRows(folder / "a", 5000)
    for number in range(first, first + 60):
        rows.write({str(number): torch.full((5000,), number % 251, dtype=torch.uint8).numpy()})


def test_two_writers_at_a_time(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_some, args=(tmp_path, first)) for first in (0, 30)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    rows = FileRows(tmp_path / "a", 5000)
    assert all(rows.has(str(number)) and (rows.read(str(number)) == number % 251).all() for number in range(90))
    assert rows.rows.stat().st_size == 90 * 5000, "no row is written twice"


def test_a_run_sees_what_another_has_written_since(tmp_path):
    ours, other = FileRows(tmp_path / "a", 4), FileRows(tmp_path / "a", 4)
    assert not ours.has("x")
    other.write({"x": torch.arange(4, dtype=torch.uint8).numpy()})
    assert ours.has("x")
    assert ours.read("x").tolist() == [0, 1, 2, 3]
    ours.write({"x": torch.zeros(4, dtype=torch.uint8).numpy()})
    assert ours.read("x").tolist() == [0, 1, 2, 3]


def test_a_writer_that_never_ends_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("headclip.training.feature_files.PATIENCE", 0.05)
    rows = FileRows(tmp_path / "a", 4)
    with (tmp_path / "a.index").open("ab") as handle:
        assert try_lock(handle)
        with pytest.raises(TimeoutError, match="another process has held"):
            rows.write({"x": torch.zeros(4, dtype=torch.uint8).numpy()})
    rows.write({"x": torch.zeros(4, dtype=torch.uint8).numpy()})
    assert rows.has("x")


def test_room_is_asked_for_before_anything_is_written(backbone, images, keys, tmp_path, monkeypatch):
    method, usage = built("headclip", backbone, {}), namedtuple("usage", "total used free")
    store = FeatureStore(backbone, SIZE, folder=tmp_path)
    per_image = store.bytes_per_image(method)
    free = [2**30 + 100 * per_image]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, free[0]))
    assert store.shortage(method, 100) is None
    assert "where 1." in store.shortage(method, 101)
    store.add(method, keys, images)
    assert store.shortage(method, 104) is None
    assert store.shortage(method, 105) is not None
    free[0] = 2**30
    assert store.shortage(method, 4) is None
    with pytest.raises(OSError, match="kept features need"):
        store.add(method, ["another"], images[:1])


def test_memory_is_asked_for_too(backbone, monkeypatch):
    monkeypatch.setattr("headclip.training.features.available_memory", lambda: 2**30 + 1000)
    store = FeatureStore(backbone, SIZE)
    assert "in memory" in store.shortage(built("headclip", backbone, {}), 1)
    assert store.shortage(built("coop", backbone, {}), 1) is None
