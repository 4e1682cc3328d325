"""Every key layout and configuration format in which CLIP is published, there and back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import golden_io
from headclip.clip import config_formats, weights
from headclip.clip.backbone import Backbone
from headclip.clip.config import Activation, ClipConfig, VisionConfig, known_architectures
from headclip.clip.layouts import (
    detect_layout,
    expected_shapes,
    infer_config,
    to_huggingface,
    to_openai,
    to_ours,
    unwrap,
)
from headclip.clip.tokenizer import ClipTokenizer
from headclip.clip.weights import build_backbone, load_backbone, save_backbone
from headclip.errors import BackboneError
from tiny_clip import VOCABULARY, features, make_backbone, make_config, open_clip_settings


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone(make_config())


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(2, 3, 42, 42, generator=torch.Generator().manual_seed(1))


def test_expected_shapes_are_those_of_the_towers(backbone: Backbone) -> None:
    shapes = {name: tuple(value.shape) for name, value in backbone.state_dict().items()}
    assert expected_shapes(backbone.config) == shapes
    assert len(expected_shapes(make_config(text=False))) == sum(not n.startswith("text.") for n in shapes)


@pytest.mark.parametrize("export", [to_openai, to_huggingface])
@pytest.mark.parametrize("text", [True, False])
def test_layouts_round_trip(export: Any, text: bool) -> None:
    config = make_config(text=text)
    state = make_backbone(config).state_dict()
    theirs = export(state, vision_only=not text)
    again = to_ours(theirs, config)
    assert again.keys() == state.keys()
    names = [name for name in state if text or name != "logit_scale"]
    assert all(torch.equal(again[name], state[name]) for name in names)


def test_openai_names_are_the_published_ones(backbone: Backbone) -> None:
    state = to_openai(backbone.state_dict())
    for name in [
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.proj",
        "visual.conv1.weight",
        "visual.ln_pre.weight",
        "visual.ln_post.bias",
        "visual.transformer.resblocks.2.attn.in_proj_weight",
        "visual.transformer.resblocks.0.attn.in_proj_bias",
        "visual.transformer.resblocks.0.attn.out_proj.weight",
        "visual.transformer.resblocks.0.mlp.c_fc.weight",
        "visual.transformer.resblocks.0.mlp.c_proj.bias",
        "visual.transformer.resblocks.0.ln_1.weight",
        "transformer.resblocks.1.ln_2.bias",
        "positional_embedding",
        "text_projection",
        "token_embedding.weight",
        "ln_final.weight",
        "logit_scale",
    ]:
        assert name in state
    assert detect_layout(state) == "openai"
    assert len(state) == len(backbone.state_dict())


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_transformers_computes_the_same_from_our_folder(tmp_path: Path, pixels: Tensor, activation: Activation) -> None:
    transformers = pytest.importorskip("transformers")
    ours = make_backbone(make_config(activation))
    save_backbone(ours, tmp_path, torch.float32)
    theirs, report = transformers.CLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert ours.tokenizer is not None
    ids = ours.tokenizer(["a damaged part", "a photo of an object without a flaw"])
    with torch.no_grad():
        output = theirs.eval()(input_ids=ids, pixel_values=pixels)
    image, text = (nn.functional.normalize(f, dim=-1) for f in features(ours, pixels, ids))
    assert torch.allclose(image, output.image_embeds, atol=1e-6)
    assert torch.allclose(text, output.text_embeds, atol=1e-6)
    logits = ours.logit_scale.exp() * image @ text.T
    assert torch.allclose(logits, output.logits_per_image, atol=1e-4)


@pytest.mark.parametrize("text", [True, False])
def test_a_folder_that_transformers_wrote(tmp_path: Path, pixels: Tensor, text: bool) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {**sizes, "image_size": 42, "patch_size": 14, "hidden_act": "gelu"}
    if text:
        words = {**sizes, "vocab_size": VOCABULARY, "eos_token_id": VOCABULARY - 1}
        config = transformers.CLIPConfig(text_config=words, vision_config=vision, projection_dim=24)
        theirs = transformers.CLIPModel(config).eval()
    else:
        config = transformers.CLIPVisionConfig(**vision, projection_dim=24)
        theirs = transformers.CLIPVisionModelWithProjection(config).eval()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.4, 0.3]}))
    if text:
        ClipTokenizer(VOCABULARY).save(tmp_path)
    ours = load_backbone(tmp_path)
    assert ours.config.vision == VisionConfig(64, 2, 4, 14, 42, 2.5, "gelu")
    assert ours.config.mean == (0.5, 0.4, 0.3)
    assert (ours.text is not None) == text
    image, _ = features(ours, pixels)
    with torch.no_grad():
        expected = theirs.vision_model(pixels).pooler_output @ theirs.visual_projection.weight.T
    assert torch.allclose(image, expected, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("route", ["state", "openai file", "huggingface folder"])
def test_official_features_by_every_route(tmp_path: Path, route: str) -> None:
    state = golden_io.load_clip_state()
    config = infer_config(state, name="golden", activation="quick_gelu")
    ours = build_backbone(state, config, ClipTokenizer())
    if route == "openai file":
        facts = {key: torch.tensor(1) for key in ("input_resolution", "context_length", "vocab_size")}
        torch.save(state | facts, tmp_path / "golden.pt")
        ours = load_backbone(tmp_path / "golden.pt")
    elif route == "huggingface folder":
        save_backbone(ours, tmp_path, torch.float32)
        ours = load_backbone(tmp_path)
    golden, images = golden_io.load("clip"), golden_io.load("images")
    size = ours.config.vision.image_size
    pixels = torch.stack([images[f"pre{size}.{i}"] for i in range(len(golden["image_features"]))])
    image, text = features(ours, pixels, golden["token_ids"])
    assert torch.allclose(image, golden["image_features"], atol=2e-5)
    assert torch.allclose(text, golden["text_features"], atol=2e-5)


@pytest.mark.parity
def test_architecture_is_read_from_the_official_shapes() -> None:
    facts = golden_io.config()
    config = infer_config(golden_io.load_clip_state(), name="golden", activation="quick_gelu")
    vision, text = config.vision, config.text
    assert text is not None
    assert (vision.width, vision.layers, vision.heads) == (
        facts["vision_width"],
        facts["vision_layers"],
        facts["vision_heads"],
    )
    assert (vision.patch_size, vision.image_size) == (facts["patch"], facts["image"])
    assert (text.width, text.layers, text.heads) == (
        facts["text_width"],
        facts["text_layers"],
        facts["text_heads"],
    )
    assert (text.context_length, text.vocab_size) == (facts["context_length"], facts["vocab_size"])


@pytest.mark.parametrize("wrapper", ["plain", "module", "state_dict", "custom text", "all"])
def test_open_clip_wrappers(backbone: Backbone, wrapper: str) -> None:
    content: dict[str, Any] = to_openai(backbone.state_dict())
    if wrapper in ("custom text", "all"):
        content = {
            name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}": value
            for name, value in content.items()
        }
    content["attn_mask"] = torch.zeros(77, 77)
    if wrapper in ("module", "all"):
        content = {f"module.{name}": value for name, value in content.items()}
    if wrapper in ("state_dict", "all"):
        content = {"epoch": 31, "name": "a run", "state_dict": content, "optimizer": {"state": {}}}
    again = to_ours(unwrap(content), backbone.config)
    assert all(torch.equal(again[name], value) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("export", [to_openai, to_huggingface])
def test_errors_name_the_tensors(backbone: Backbone, export: Any) -> None:
    state = export(backbone.state_dict())
    some = [name for name in state if ".1." in name]
    missing = {name: value for name, value in state.items() if name != some[0]}
    with pytest.raises(BackboneError, match=rf"1 missing \({some[0]}"):
        to_ours(missing, backbone.config)
    wrong = state | {some[1]: state[some[1]][:-1]}
    with pytest.raises(BackboneError, match="wrong shape"):
        to_ours(wrong, backbone.config)
    extra = state | {"logit_bias": torch.zeros(())}
    with pytest.raises(BackboneError, match=r"1 left over \(logit_bias\)"):
        to_ours(extra, backbone.config)
    many = {name: value for name, value in state.items() if name not in some}
    with pytest.raises(BackboneError) as caught:
        to_ours(many, backbone.config)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("visual.layer1.0.conv1.weight", "ResNet"),
        ("visual.trunk.cls_token", "timm"),
        ("foo.bar", r"foo\.bar"),
    ],
)
def test_other_models_are_refused(name: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        detect_layout([name, "logit_scale"])


def test_heads_of_very_wide_towers_are_not_guessed() -> None:
    config = dataclasses.replace(make_config(text=False), vision=VisionConfig(1280, 1, 16, 14, 28))
    with torch.device("meta"):
        state = to_openai(Backbone(config).state_dict())
    with pytest.raises(BackboneError, match=r"open_clip_config\.json"):
        infer_config(state, name="wide", activation="gelu")


def test_shipped_architectures() -> None:
    known = {name: ClipConfig.load(path) for name, path in known_architectures().items()}
    assert set(weights.HUB_IDS) <= set(known)
    assert all(name == config.name for name, config in known.items())
    paper = known["ViT-L-14-336"]
    assert (paper.vision.layers, paper.vision.width, paper.vision.heads, paper.vision.grid) == (
        24,
        1024,
        16,
        24,
    )
    plus = known["ViT-B-16-plus-240"]
    assert (plus.vision.width, plus.vision.heads, plus.vision.image_size, plus.embed_dim) == (
        896,
        14,
        240,
        640,
    )
    assert plus.text is not None
    assert (plus.text.width, plus.text.activation, plus.vision.activation) == (640, "gelu", "gelu")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("vision.activation", "relu"),
        ("vision.layers", True),
        ("text.mlp_ratio", "four"),
        ("vision.mlp_ratio", 0.0),
        ("vision.mlp_ratio", float("nan")),
        ("embed_dim", "wide"),
        ("mean", [0.5, 0.5]),
        ("std", [0.5, 0.0, 0.5]),
        ("default_image_size", "large"),
        ("keep_aspect", "yes"),
        ("least_side", 1.5),
    ],
)
def test_a_configuration_of_impossible_values_is_refused(where: str, value: Any) -> None:
    values = make_config().to_dict()
    *outer, name = where.split(".")
    (values[outer[0]] if outer else values)[name] = value
    with pytest.raises(BackboneError, match=f"{name} "):
        ClipConfig.from_dict(values)


@pytest.mark.parametrize("name", sorted(weights.HUB_IDS))
def test_shipped_architectures_are_what_shapes_and_foreign_files_say(name: str) -> None:
    config = ClipConfig.load(known_architectures()[name])
    with torch.device("meta"):
        state = to_openai(Backbone(config).state_dict())
    assert infer_config(state, name=name, activation=config.vision.activation) == config
    assert config_formats.from_huggingface(*config_formats.to_huggingface(config)) == config
    other = dataclasses.replace(config, name="unnamed")
    named = config_formats.named_architecture(other)
    assert named is not None
    assert named.name == name


def test_huggingface_defaults_and_legacy_fields() -> None:
    # The oldest files leave out what equals the default, and repeat the rest in *_config_dict.
    content = {
        "model_type": "clip",
        "projection_dim": 768,
        "vision_config": {},
        "vision_config_dict": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
        },
        "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    }
    config = config_formats.from_huggingface(content, None, name="ViT-L-14-336")
    assert config == ClipConfig.load(known_architectures()["ViT-L-14-336"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "siglip"}, "siglip"),
        ({"vision_config": {"hidden_act": "relu"}}, "relu"),
        ({"vision_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps"),
        ({"vision_config": {"num_channels": 4}}, "4 channels"),
        ({"vision_config": {"hidden_size": "wide"}}, "not valid"),
        ({"vision_config": {"num_attention_heads": 7}}, "multiple"),
    ],
)
def test_huggingface_settings_that_would_change_numbers(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        config_formats.from_huggingface({"model_type": "clip", **change})


def test_open_clip_settings() -> None:
    config = make_config()
    read = config_formats.from_open_clip(open_clip_settings(config, quick_gelu=True), name="tiny")
    assert read == dataclasses.replace(config, mean=(0.5,) * 3, std=(0.25,) * 3)
    assert config_formats.from_open_clip(open_clip_settings(config)).vision.activation == "gelu"
    strange = open_clip_settings(config)
    strange["model_cfg"]["vision_cfg"]["pool_type"] = "avg"
    with pytest.raises(BackboneError, match=r"vision_cfg\.pool_type"):
        config_formats.from_open_clip(strange)
    with pytest.raises(BackboneError, match="not valid"):
        config_formats.from_open_clip({"embed_dim": 3})
