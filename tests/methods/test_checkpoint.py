"""Checkpoints go there and back, and say what is wrong with them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from headclip import Detector
from headclip.errors import CheckpointError
from headclip.methods.base import create_method
from headclip.methods.checkpoint import (
    TEXT,
    add_text_vectors,
    learnt_hash,
    load_checkpoint,
    read_info,
    save_checkpoint,
    write_calibration,
)
from headclip.methods.headclip import HeadClip, HeadClipConfig
from tiny_clip import make_backbone, make_config


@pytest.fixture(scope="module")
def backbone():
    return make_backbone(make_config())


def test_round_trip(backbone, tmp_path):
    method = HeadClip(backbone, HeadClipConfig(csa_layers=(1, 3), sigma=2.0, words=("part.", "bad part.")))
    with torch.no_grad():
        method.head_weight.normal_()
    path = tmp_path / "deep" / "a.safetensors"
    saved = save_checkpoint(path, method, training={"seed": 3}, data={"name": "synthetic"})
    loaded, info = load_checkpoint(path, backbone)
    assert info == read_info(path)
    assert (info.training, info.data, info.backbone_hash) == (saved.training, saved.data, backbone.hash)
    assert loaded.config == method.config
    assert info.versions["torch"] == torch.__version__
    for name, value in method.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert torch.equal(method.text_vectors(), loaded.text_vectors())
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


def test_another_backbone_is_refused_by_name(backbone, tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, HeadClip(backbone))
    other = make_backbone(make_config(), seed=1)
    other.name = "other"
    with pytest.raises(CheckpointError, match=r"trained on backbone 'tiny'.*this is 'other'"):
        load_checkpoint(path, other)


@pytest.mark.parametrize("kind", ["missing", "text", "cut", "foreign", "folder"])
def test_bad_files(backbone, tmp_path, kind):
    path = tmp_path / "a.safetensors"
    if kind == "text":
        path.write_text("no weights")
    elif kind == "cut":
        save_checkpoint(path, HeadClip(backbone))
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "foreign":
        save_file({"x": torch.zeros(2)}, path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        load_checkpoint(path, backbone)


def test_missing_tensor(backbone, tmp_path):
    path = tmp_path / "a.safetensors"
    method = HeadClip(backbone)
    state = method.state_dict
    method.state_dict = lambda: {k: v for k, v in state().items() if k != "head_weight"}
    save_checkpoint(path, method)
    with pytest.raises(CheckpointError, match="head_weight"):
        load_checkpoint(path, backbone)


@pytest.fixture
def silent_text(backbone, monkeypatch):
    """Counts the passes of the text tower."""
    passes = []
    encode = backbone.text.encode
    monkeypatch.setattr(backbone.text, "encode", lambda *given: passes.append(1) or encode(*given))
    return passes


def test_text_vectors_come_with_the_checkpoint(backbone, tmp_path, silent_text):
    path = tmp_path / "a.safetensors"
    method = HeadClip(backbone)
    save_checkpoint(path, method)
    silent_text.clear()
    detector = Detector(backbone, path, device="cpu", precision="fp32")
    assert not silent_text
    with torch.no_grad():  # as when they were kept: a tower that could learn rounds differently
        assert torch.equal(detector.text, method.text_vectors()[0])
        assert torch.equal(detector.method.text_vectors(), detector.method.kept_text())


def test_other_words_or_values_are_computed_anew(backbone, tmp_path, silent_text):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, HeadClip(backbone))
    loaded, _ = load_checkpoint(path, backbone, {"words": ("part.", "bad part.")})
    silent_text.clear()
    assert torch.equal(loaded.kept_text(), loaded.text_vectors())
    assert len(silent_text) == 2
    loaded, _ = load_checkpoint(path, backbone, {"sigma": 2.0, "alpha": 0.3})  # neither concerns the text
    silent_text.clear()
    before = loaded.kept_text()
    assert not silent_text
    with torch.no_grad():
        loaded.prompts.normal_context.add_(0.1)  # learning goes on
    assert not torch.equal(loaded.kept_text(), before)
    assert silent_text


def test_a_checkpoint_without_text_vectors_loads_and_can_be_given_them(backbone, tmp_path, silent_text):
    path, old = tmp_path / "a.safetensors", tmp_path / "old.safetensors"
    method = HeadClip(backbone)
    method.text_settings = ()
    save_checkpoint(old, method)
    assert TEXT not in load_file(old)
    assert read_info(old).text == ""
    before = learnt_hash(old)
    loaded, _ = load_checkpoint(old, backbone)
    assert torch.equal(loaded.kept_text(), loaded.text_vectors())
    save_checkpoint(path, HeadClip(backbone))
    add_text_vectors(old, backbone)
    assert learnt_hash(old) == before == learnt_hash(path)
    write_calibration(old, {"image": {"threshold": 0.5}})
    loaded, _ = load_checkpoint(old, backbone)
    silent_text.clear()
    loaded.kept_text()
    assert not silent_text


@pytest.mark.parametrize(
    ("name", "stored", "changes", "words"),
    [
        (
            "headclip",
            {"csa_layers": (1, 2)},
            {"csa_layers": (2, 3)},
            "head weights for layers 1, 2, and .* stand for 2, 3",
        ),
        ("headclip", {"stream_layers": (1, 2)}, {"stream_layers": (1, 3)}, "linear heads for layers 1, 2"),
        ("headclip", {"deep_layers": (1,)}, {"deep_layers": (2,)}, "deep tokens for layers 1"),
        ("linear_heads", {"taps": (1, 2)}, {"taps": (2, 3)}, "linear heads for layers 1, 2"),
        ("adaclip", {"taps": (1, 3)}, {"taps": (2, 3)}, "projections for layers 1, 3"),
    ],
)
def test_what_was_learnt_for_a_layer_serves_no_other(backbone, tmp_path, name, stored, changes, words):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, create_method(name, backbone, stored))
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(path, backbone, changes)
    assert load_checkpoint(path, backbone, stored)[0].learnt_layers()  # the same layers, said again


def test_an_image_size_that_was_asked_for_holds(tmp_path):
    """A backbone with a size of its own, as the embedded one, yields to a setting, but not to that of a checkpoint."""
    backbone = make_backbone(replace(make_config(), default_image_size=56))
    assert create_method("headclip", backbone).image_size == 56
    assert create_method("headclip", backbone, {"image_size": 112}).image_size == 112
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, create_method("headclip", backbone, {"image_size": 112}))
    assert load_checkpoint(path, backbone)[0].image_size == 56
    assert load_checkpoint(path, backbone, {"image_size": 84})[0].image_size == 84
    assert Detector(backbone, path, device="cpu", settings={"image_size": 84}).image_size == 84
    assert Detector(backbone, path, device="cpu", settings={"image_size": 84}, image_size=70).image_size == 70
