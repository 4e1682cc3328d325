"""Builds the models of the golden files from our own parts."""

from __future__ import annotations

import torch

import golden_io
from headclip.clip.backbone import Backbone
from headclip.clip.layouts import infer_config, to_ours
from headclip.clip.tokenizer import ClipTokenizer
from headclip.methods.anomalyclip import AnomalyClip, AnomalyClipConfig


def golden_backbone() -> Backbone:
    """The random CLIP of the golden files, read through the OpenAI key layout."""
    state = golden_io.load_clip_state()
    config = infer_config(state, name="golden", activation="quick_gelu")
    backbone = Backbone(config, ClipTokenizer(state["token_embedding.weight"].shape[0]))
    backbone.load_state_dict(to_ours(state, config))
    return backbone.freeze()


def pixels(size: int) -> torch.Tensor:
    """(3, 3, S, S): the official transform of the three images."""
    images = golden_io.load("images")
    return torch.stack([images[f"pre{size}.{i}"] for i in range(3)])


def request_for(variant: str) -> tuple[tuple[int, int], tuple[int, ...]]:
    """CSA layers and taps of `multi`, `last` and `alldual` (every block dual, last tap only)."""
    config = golden_io.config()
    dual, layers = config["dual_blocks_1based"], config["vision_layers"]
    return {
        "multi": ((dual[0], dual[-1]), tuple(config["taps"])),
        "last": ((dual[0], dual[-1]), tuple(config["last"])),
        "alldual": ((1, layers), (layers,)),
    }[variant]


def anomalyclip(backbone: Backbone, variant: str, half: bool = True) -> AnomalyClip:
    """AnomalyCLIP with the golden prompts in place."""
    config, golden = golden_io.config(), golden_io.load("anomalyclip")
    csa, taps = request_for(variant)
    method = AnomalyClip(
        backbone,
        AnomalyClipConfig(
            csa_layers=csa,
            taps=taps,
            n_context=config["n_ctx"],
            n_deep=config["t_n_ctx"],
            deep_layers=tuple(range(2, config["depth"] + 1)),
            deep_half=half,
        ),
    )
    with torch.no_grad():
        method.prompts.normal_context.copy_(golden["ctx_pos"][0, 0])
        method.prompts.abnormal_context.copy_(golden["ctx_neg"][0, 0])
        for i, tokens in enumerate(method.prompts.deep_tokens):
            tokens.copy_(golden[f"compound_prompts_text.{i}"])
    return method
