"""A CLIP of a few layers with random weights, for tests that need no trained one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headclip.clip.backbone import Backbone
from headclip.clip.config import Activation, ClipConfig, TextConfig, VisionConfig
from headclip.clip.tokenizer import ClipTokenizer
from headclip.methods.base import Method

VOCABULARY = 700


def make_config(activation: Activation = "quick_gelu", text: bool = True, vocab_size: int = VOCABULARY) -> ClipConfig:
    return ClipConfig(
        name="tiny",
        embed_dim=48,
        vision=VisionConfig(128, 3, 2, 14, 42, activation=activation),
        text=TextConfig(64, 2, 1, vocab_size=vocab_size, activation=activation) if text else None,
    )


def make_backbone(config: ClipConfig, seed: int = 0) -> Backbone:
    """Random weights, every tensor of them other than zero or one."""
    generator = torch.Generator().manual_seed(seed)
    tokenizer = None if config.text is None else ClipTokenizer(config.text.vocab_size)
    backbone = Backbone(config, tokenizer)
    with torch.no_grad():
        for name, value in backbone.named_parameters():
            scale = value.shape[-1] ** -0.5 if value.ndim > 1 else 0.1
            value.copy_(torch.randn(value.shape, generator=generator) * scale)
            if ".ln_" in name and name.endswith("weight"):
                value += 1
        backbone.logit_scale.fill_(3.5)
    return backbone.freeze()


def stirred(method: Method, seed: int = 3) -> Method:
    """The method with a refiner, if it has one, that changes its map, as one that has learnt does."""
    refiner = getattr(method, "refiner", None)
    if refiner is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in (*refiner.mix, refiner.leave):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * 0.4)
    return method


def features(backbone: Backbone, pixels: Tensor, ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
    image = backbone.vision.project(backbone.vision(pixels).cls)
    text = torch.zeros(0) if ids is None else backbone.require_text()(ids)
    return image, text


def assert_same(one: Backbone, other: Backbone) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def open_clip_settings(config: ClipConfig, **model: Any) -> dict[str, Any]:
    vision, text = config.vision, config.text
    assert text is not None
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            "vision_cfg": {
                "image_size": vision.image_size,
                "layers": vision.layers,
                "width": vision.width,
                "head_width": vision.head_dim,
                "patch_size": vision.patch_size,
            },
            "text_cfg": {
                "context_length": 77,
                "vocab_size": text.vocab_size,
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
            },
            **model,
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"},
    }
