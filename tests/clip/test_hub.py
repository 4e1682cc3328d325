"""Names of backbones, and models from the hub with and without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from headclip.clip import hub, weights
from headclip.clip.backbone import Backbone
from headclip.clip.layouts import (
    to_openai,
)
from headclip.clip.weights import load_backbone, save_backbone
from headclip.errors import BackboneError
from tiny_clip import make_backbone, make_config, open_clip_settings


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone(make_config())


@pytest.fixture
def folder(tmp_path: Path, backbone: Backbone) -> Path:
    save_backbone(backbone, tmp_path / "model", torch.float32)
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-L-41", "Did you mean ViT-L-14"),
        ("embed", "Did you mean embedded"),
        ("something", "hub id"),
        ("./nowhere", "no file or folder"),
        ("nowhere.pt", "no file or folder"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        load_backbone(name)


def test_embedded_model_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "EMBEDDED", tmp_path / "absent")
    with pytest.raises(BackboneError, match="no embedded model"):
        load_backbone()


def test_embedded_model_is_found(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(weights, "EMBEDDED", folder)
    assert load_backbone().name == "embedded"


@pytest.mark.parametrize("name", ["ViT-L-14-336", "ViT-L/14@336px", "vit-l-14-336"])
def test_short_names_resolve_to_the_hub(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda hub_id: asked.append(hub_id) or folder)
    with pytest.raises(BackboneError, match="do not hold a ViT-L-14-336"):  # it is the tiny model
        load_backbone(name)
    assert asked == ["openai/clip-vit-large-patch14-336"]


# The hub


class FakeHub:
    """Stands for huggingface_hub: serves a folder, or fails as it does without a network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, source: Path | None, cache: Path) -> None:
        import huggingface_hub

        self.source, self.cache, self.downloads = source, cache, []
        self.failure: Exception = ConnectionError("Name or service not known")
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot)
        monkeypatch.setattr(huggingface_hub, "model_info", self.info)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)

    def snapshot(self, hub_id: str, *, local_files_only: bool) -> str:
        assert local_files_only
        if not self.cache.is_dir():
            raise FileNotFoundError(hub_id)
        return str(self.cache)

    def info(self, hub_id: str, timeout: float) -> Any:
        if self.source is None:
            raise self.failure
        files = [type("File", (), {"rfilename": path.name}) for path in self.source.iterdir()]
        return type("Info", (), {"siblings": files})

    def download(self, hub_id: str, name: str) -> str:
        assert self.source is not None
        self.downloads.append(name)
        self.cache.mkdir(exist_ok=True)
        (self.cache / name).write_bytes((self.source / name).read_bytes())
        return str(self.cache / name)


def test_hub_downloads_only_what_is_needed_and_then_uses_the_cache(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, backbone: Backbone
) -> None:
    for name in ("README.md", "tf_model.h5", "pytorch_model.bin", "flax_model.msgpack"):
        (folder / name).write_text("not wanted")
    fake = FakeHub(monkeypatch, folder, tmp_path / "cache")
    loaded = load_backbone("someone/tiny-clip")
    assert loaded.hash == backbone.hash
    assert loaded.name == "someone/tiny-clip"
    assert "model.safetensors" in fake.downloads
    assert not {"README.md", "tf_model.h5", "pytorch_model.bin", "flax_model.msgpack"} & set(fake.downloads)
    fake.source = None  # the network is gone
    assert load_backbone("someone/tiny-clip").hash == backbone.hash


def test_hub_repository_in_open_clip_layout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backbone: Backbone
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    save_file(to_openai(backbone.state_dict()), source / "open_clip_model.safetensors")
    (source / "open_clip_config.json").write_text(json.dumps(open_clip_settings(backbone.config)))
    (source / "config.json").write_text(json.dumps({"architecture": "vit_base_patch16"}))  # of timm
    (source / "model.safetensors").write_text("timm's vision tower")
    assert backbone.tokenizer is not None
    backbone.tokenizer.save(source)
    fake = FakeHub(monkeypatch, source, tmp_path / "cache")
    loaded = load_backbone("timm/tiny")
    assert loaded.hash == backbone.hash
    assert loaded.config.vision.activation == "gelu"
    assert "model.safetensors" not in fake.downloads


@pytest.mark.parametrize("cached", ["nothing", "half a download"])
def test_hub_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cached: str) -> None:
    if cached == "half a download":
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "config.json").write_text(json.dumps({"model_type": "clip"}))
    FakeHub(monkeypatch, None, tmp_path / "cache")
    with pytest.raises(BackboneError) as caught:
        load_backbone("openai/clip-vit-large-patch14-336")
    message = str(caught.value)
    assert "https://huggingface.co/openai/clip-vit-large-patch14-336/tree/main" in message
    assert "Name or service not known" in message
    assert "--backbone" in message
    assert all(name in message for name in ("config.json", "tokenizer.json", "model.safetensors"))
    assert "\n" not in message


def test_hub_says_no(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    errors = pytest.importorskip("huggingface_hub.errors")
    fake = FakeHub(monkeypatch, None, tmp_path / "cache")
    fake.failure = errors.OfflineModeIsEnabled("offline")
    with pytest.raises(BackboneError, match="HF_HUB_OFFLINE"):
        load_backbone("ViT-B-16-plus-240")
    for kind, words in [
        (errors.GatedRepoError, "granted"),
        (errors.RepositoryNotFoundError, "no model of that name"),
    ]:
        fake.failure = kind.__new__(kind)
        with pytest.raises(BackboneError, match=words):
            load_backbone("someone/nothing")


def test_hub_repository_that_is_no_clip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (source / "model.safetensors").write_text("")
    fake = FakeHub(monkeypatch, source, tmp_path / "cache")
    with pytest.raises(BackboneError, match="not a CLIP"):
        load_backbone("someone/bert")
    assert "model.safetensors" not in fake.downloads


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BackboneError, match=r"pip install 'headclip\[hub\]'.*huggingface\.co/someone/model"):
        load_backbone("someone/model")
