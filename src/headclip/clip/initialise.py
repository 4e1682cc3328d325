"""First values of a CLIP model that will be pretrained."""

from __future__ import annotations

import torch
from torch import nn

from headclip.clip.backbone import Backbone
from headclip.clip.blocks import Block


def initialise(backbone: Backbone, seed: int = 0) -> Backbone:
    """Draw every parameter as CLIP does: normal with a scale that falls with width and depth. Returns itself."""
    generator = torch.Generator().manual_seed(seed)

    def draw(parameter: nn.Parameter, std: float) -> None:
        with torch.no_grad():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))

    towers = [backbone.vision] if backbone.text is None else [backbone.vision, backbone.text]
    for tower in towers:
        width, layers = tower.config.width, tower.config.layers
        for block in tower.blocks:
            assert isinstance(block, Block)
            draw(block.attn.qkv.weight, width**-0.5)
            draw(block.attn.out.weight, width**-0.5 * (2 * layers) ** -0.5)
            draw(block.mlp.fc.weight, (2 * width) ** -0.5)
            draw(block.mlp.proj.weight, width**-0.5 * (2 * layers) ** -0.5)
            for linear in (block.attn.qkv, block.attn.out, block.mlp.fc, block.mlp.proj):
                nn.init.zeros_(linear.bias)
        draw(tower.projection, width**-0.5)
    vision = backbone.vision
    draw(vision.class_embedding, vision.config.width**-0.5)
    draw(vision.position_embedding, vision.config.width**-0.5)
    fan_in = 3 * vision.config.patch_size**2
    draw(vision.patch_embedding.weight, fan_in**-0.5)
    if backbone.text is not None:
        draw(backbone.text.token_embedding.weight, 0.02)
        draw(backbone.text.position_embedding, 0.01)
    return backbone
