"""Checkpoints go there and back, and say what is wrong with them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from headclip.errors import CheckpointError
from headclip.methods.checkpoint import load_checkpoint, read_info, save_checkpoint
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
