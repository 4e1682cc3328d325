"""Folders and files: what is saved is what is loaded, and what is wrong with a file is said."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headclip.clip.backbone import Backbone
from headclip.clip.layouts import (
    to_openai,
)
from headclip.clip.tokenizer import ClipTokenizer
from headclip.clip.weights import build_backbone, load_backbone, save_backbone
from headclip.errors import BackboneError
from tiny_clip import VOCABULARY, assert_same, make_backbone, make_config, open_clip_settings


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone(make_config())


@pytest.fixture
def folder(tmp_path: Path, backbone: Backbone) -> Path:
    save_backbone(backbone, tmp_path / "model", torch.float32)
    return tmp_path / "model"


def test_save_and_load(tmp_path: Path) -> None:
    wishes = {"default_image_size": 70, "keep_aspect": True, "least_side": 0.8, "mean": (0.1, 0.2, 0.3)}
    config = dataclasses.replace(make_config("gelu"), **wishes)
    original = make_backbone(config)
    save_backbone(original, tmp_path, torch.float32)
    again = load_backbone(str(tmp_path))
    assert again.config == config
    assert_same(again, original)
    assert again.hash == original.hash
    assert again.tokenizer is not None
    assert original.tokenizer is not None
    assert again.tokenizer.encode("a cracked tile") == original.tokenizer.encode("a cracked tile")
    assert not any(p.requires_grad for p in again.parameters())
    assert not any(p.is_meta for p in again.parameters())
    assert not again.training
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }


def test_loading_does_not_load_the_compiler() -> None:
    """Drawing first values on the device "meta" does, for two seconds in which nothing is drawn."""
    code = "import sys; from headclip import Detector; Detector(); sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_vision_only_round_trip(tmp_path: Path) -> None:
    original = make_backbone(make_config(text=False))
    save_backbone(original, tmp_path, torch.float32)
    again = load_backbone(tmp_path)
    assert again.text is None
    assert again.tokenizer is None
    assert all(torch.equal(v, original.vision.state_dict()[k]) for k, v in again.vision.state_dict().items())


def test_half_precision_files(tmp_path: Path, backbone: Backbone) -> None:
    save_backbone(backbone, tmp_path, torch.float16)
    stored = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    again = load_backbone(tmp_path)
    assert again.dtype == torch.float32
    assert again.hash != backbone.hash  # half of the digits are gone, so these are other weights
    for name, value in backbone.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float())


@pytest.mark.parametrize("stored", [torch.float16, torch.float32])
def test_hash_does_not_depend_on_the_precision_in_use(tmp_path: Path, backbone: Backbone, stored: torch.dtype) -> None:
    save_backbone(backbone, tmp_path, stored)
    hashes = {load_backbone(tmp_path, dtype=d).hash for d in (torch.float32, torch.bfloat16, torch.float16)}
    assert len(hashes) == 1
    changed = make_backbone(backbone.config, seed=3)
    assert changed.hash not in hashes


def test_hash_does_not_depend_on_the_layout(folder: Path, backbone: Backbone, tmp_path: Path) -> None:
    save_file(to_openai(backbone.state_dict()), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_settings(backbone.config)))
    assert backbone.tokenizer is not None
    backbone.tokenizer.save(tmp_path)
    assert load_backbone(tmp_path).hash == load_backbone(folder).hash == backbone.hash


def test_precision_and_memory_layout(folder: Path) -> None:
    loaded = load_backbone(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert all(p.is_contiguous() for p in loaded.parameters())
    with pytest.raises(BackboneError, match="int8"):
        load_backbone(folder, dtype=torch.int8)


def test_saving_over_the_folder_a_model_came_from(folder: Path) -> None:
    loaded = load_backbone(folder)
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    save_backbone(loaded, folder, torch.float16)
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    broken = make_backbone(make_config())
    broken.vision.projection[0, 0] = 1e6
    with pytest.raises(BackboneError, match=r"vision\.projection"):
        save_backbone(broken, tmp_path, torch.float16)
    assert list(tmp_path.iterdir()) == []
    save_backbone(broken, tmp_path, torch.float32)


def test_checkpoint_and_shards_in_huggingface_layout(folder: Path, backbone: Backbone) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert load_backbone(folder).hash == backbone.hash
    (folder / "pytorch_model.bin").unlink()
    names = sorted(state)
    weight_map = {}
    for number, part in enumerate((names[:20], names[20:]), start=1):
        shard = f"model-{number:05}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert load_backbone(folder).hash == backbone.hash
    (folder / shard).unlink()
    with pytest.raises(BackboneError, match="00002-of-00002"):
        load_backbone(folder)


class Archive(nn.Module):
    """The shape of an OpenAI archive: parameters under their names, and three facts as buffers."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name, value in state.items():
            *path, last = name.split(".")
            owner: nn.Module = self
            for part in path:
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = getattr(owner, part)
            owner.register_parameter(last, nn.Parameter(value, requires_grad=False))
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(7))

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


@pytest.fixture(scope="module")
def official_size() -> Backbone:
    """OpenAI's archives come without tokenizer files, so the vocabulary has to be CLIP's."""
    return make_backbone(make_config(vocab_size=49408))


def test_torchscript_archive(tmp_path: Path, official_size: Backbone) -> None:
    state = {name: value.half() for name, value in to_openai(official_size.state_dict()).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Archive(state), torch.zeros(1)).save(str(tmp_path / "ViT-tiny.pt"))
    loaded = load_backbone(tmp_path / "ViT-tiny.pt")
    assert loaded.config.vision.activation == "quick_gelu"
    assert loaded.dtype == torch.float32
    assert len(loaded.tokenizer or []) == 49408
    for name, value in official_size.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float())


@pytest.mark.parametrize(
    ("file", "activation"),
    [
        ("vit_b_16_plus_240-laion400m_e32-699c4b84.pt", "gelu"),
        ("vit_b_32-quickgelu-laion400m_e32-46683a32.pt", "quick_gelu"),
        ("openai-copy.pt", "quick_gelu"),
        ("mystery.pt", None),
    ],
)
def test_activation_of_a_bare_checkpoint(
    tmp_path: Path, official_size: Backbone, file: str, activation: str | None
) -> None:
    content = {f"module.{name}": value for name, value in to_openai(official_size.state_dict()).items()}
    torch.save({"epoch": 1, "state_dict": content}, tmp_path / file)
    if activation is None:
        with pytest.warns(UserWarning, match="activation"):
            loaded = load_backbone(tmp_path / file)
        assert loaded.config.vision.activation == "quick_gelu"
        (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_settings(official_size.config)))
        assert load_backbone(tmp_path / file).config.vision.activation == "gelu"
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = load_backbone(tmp_path / file)
        assert loaded.config.vision.activation == activation
    assert loaded.hash == official_size.hash


def test_settings_of_another_model_beside_a_checkpoint(tmp_path: Path, official_size: Backbone) -> None:
    save_file(to_openai(official_size.state_dict()), tmp_path / "a.safetensors")
    other = dataclasses.replace(official_size.config, embed_dim=64)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_settings(other)))
    with pytest.raises(BackboneError, match="do not fit"):
        load_backbone(tmp_path / "a.safetensors")


class Refused:
    """Anything but a tensor: `weights_only` does not build it."""


@pytest.mark.parametrize("kind", ["noise", "cut", "empty", "object", "list", "no tensors"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_corrupt_files(tmp_path: Path, backbone: Backbone, kind: str, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    state = to_openai(backbone.state_dict())
    if suffix == ".safetensors" and kind in ("object", "list", "no tensors"):
        save_file({}, path)
    elif suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"object": Refused(), "list": [1, 2], "no tensors": {"a": 1}}.get(kind, state), path)
    if kind in ("noise", "empty"):
        path.write_bytes(b"these are not weights" * 40 if kind == "noise" else b"")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(BackboneError, match="weights"):
        load_backbone(path)


def test_truncated_archive_in_a_folder(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BackboneError, match="cut short"):
        load_backbone(folder)


def test_integer_weights_are_refused(backbone: Backbone) -> None:
    state = to_openai(backbone.state_dict())
    state["visual.proj"] = state["visual.proj"].to(torch.int8)
    with pytest.raises(BackboneError, match="int8"):
        build_backbone(state, backbone.config)


def test_wrong_vocabulary(folder: Path, backbone: Backbone) -> None:
    ClipTokenizer(VOCABULARY + 1).save(folder)
    with pytest.raises(BackboneError, match=f"{VOCABULARY + 1} tokens but the model expects {VOCABULARY}"):
        load_backbone(folder)
    with pytest.raises(BackboneError, match="49408 tokens but the text tower"):
        build_backbone(to_openai(backbone.state_dict()), backbone.config, ClipTokenizer())
    with pytest.raises(BackboneError, match="places"):
        build_backbone(to_openai(backbone.state_dict()), backbone.config, ClipTokenizer(VOCABULARY, context_length=32))
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    with pytest.raises(BackboneError, match="no tokenizer came with it"):
        load_backbone(folder)


def test_config_that_does_not_fit_the_weights(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["vision_config"]["num_hidden_layers"] = 4
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(BackboneError, match="missing"):
        load_backbone(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(BackboneError, match=r"config\.json"):
        load_backbone(folder)


def test_folders_without_a_model(tmp_path: Path, folder: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BackboneError, match="does not hold a CLIP model"):
        load_backbone(empty)
    with pytest.raises(BackboneError, match="pass the folder"):
        load_backbone(folder / "model.safetensors")
