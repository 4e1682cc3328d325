"""First values of a CLIP model that will be pretrained on little data.

A vision transformer that starts from noise needs very many images before it attends to neighbours and sees edges.
Here it starts with both: patch filters from a whitened cosine basis, positions that tell distance, and attention
that already mixes near tokens (mimetic initialisation: Trockman and Kolter, 2023). Everything stays learnable.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from headclip.clip.backbone import Backbone
from headclip.clip.blocks import Attention
from headclip.clip.config import ClipConfig
from headclip.clip.text import TextTower
from headclip.clip.vision import VisionTower
from headclip.errors import InputError

COLOURS = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])  # luminance and two differences
DETAIL_GAIN = 4.0  # grain that deviates by a hundredth of the range from black to white is answered with about 0.1


def initialise(backbone: Backbone, seed: int = 0) -> Backbone:
    """Draw every parameter of both towers from `seed`. Returns the backbone itself."""
    generator = torch.Generator().manual_seed(seed)
    initialise_vision(backbone.vision, generator)
    if backbone.text is not None:
        initialise_text(backbone.text, generator)
    return backbone


@torch.no_grad()
def grow(backbone: Backbone, config: ClipConfig, seed: int = 0) -> Backbone:
    """A deeper copy, or one with detail filters or rarity: the vision tower of `config` begins with what `backbone`
    has, and what is new changes nothing at first: the output projections of its layers and the mixes start from zero.

    Raises:
        InputError: the two differ in more than vision layers, detail filters, rarity and how images are prepared, or
            `config` has fewer layers.
    """
    ours = backbone.config
    detail = ours.vision.detail or config.vision.detail
    rarity = ours.vision.rarity or config.vision.rarity
    vision = replace(ours.vision, layers=config.vision.layers, detail=detail, rarity=rarity)
    prepared = {name: getattr(config, name) for name in ("default_image_size", "keep_aspect", "least_side")}
    if config != replace(ours, vision=vision, **prepared):
        raise InputError(
            f"{backbone.name} differs from the architecture in more than the number of vision layers, detail filters "
            "and rarity"
        )
    if config.vision.layers < ours.vision.layers:
        raise InputError(f"{backbone.name} has {ours.vision.layers} vision layers, more than {config.vision.layers}")
    grown = initialise(Backbone(config, backbone.tokenizer, backbone.name), seed)
    for index in range(ours.vision.layers, config.vision.layers):
        block = grown.vision.blocks[index]
        for linear in (block.attn.out, block.mlp.proj):
            nn.init.zeros_(linear.weight)
    grown.load_state_dict(backbone.state_dict(), strict=False)  # all but what is new
    return grown


@torch.no_grad()
def initialise_vision(tower: VisionTower, generator: torch.Generator) -> None:
    width = tower.config.width
    blocks(tower, generator)
    for layer, block in enumerate(tower.blocks, start=1):
        # The last quarter starts from even attention, where the class token gathers the patches; near-identity
        # attention would leave it looking at itself.
        if layer <= tower.config.layers * 3 / 4:
            mimetic(block.attn, generator)
    draw(tower.class_embedding, 0.3, generator)
    tower.patch_embedding.weight.copy_(cosine_filters(width, tower.config.patch_size, generator))
    if tower.detail is not None:
        filters = tower.detail.filters
        filters.weight.copy_(signed_filters(len(filters.weight), filters.weight.shape[-1], generator))
        assert filters.bias is not None
        filters.bias.zero_()
        tower.detail.mix.zero_()
        if tower.detail.rarity is not None:
            tower.detail.rarity.mix.zero_()
    tower.position_embedding.zero_()
    tower.position_embedding[1:] = 0.5 * grid_positions(tower.config.grid, width)


@torch.no_grad()
def initialise_text(tower: TextTower, generator: torch.Generator) -> None:
    blocks(tower, generator)
    draw(tower.token_embedding.weight, 0.02, generator)
    draw(tower.position_embedding, 0.01, generator)


def blocks(tower: VisionTower | TextTower, generator: torch.Generator) -> None:
    """Normal weights whose scale falls with width and depth, as in CLIP; biases zero."""
    width, layers = tower.config.width, tower.config.layers
    residual = width**-0.5 * (2 * layers) ** -0.5
    for block in tower.blocks:
        draw(block.attn.qkv.weight, width**-0.5, generator)
        draw(block.attn.out.weight, residual, generator)
        draw(block.mlp.fc.weight, (2 * width) ** -0.5, generator)
        draw(block.mlp.proj.weight, residual, generator)
        for linear in (block.attn.qkv, block.attn.out, block.mlp.fc, block.mlp.proj):
            nn.init.zeros_(linear.bias)
    draw(tower.projection, width**-0.5, generator)


def draw(parameter: Tensor, std: float, generator: torch.Generator) -> None:
    with torch.no_grad():
        parameter.copy_(std * torch.randn(parameter.shape, generator=generator))


def mimetic(attention: Attention, generator: torch.Generator, near: float = 0.7, away: float = 0.4) -> None:
    """Queries and keys whose product is near the identity (like attends to like, and near to near), values and
    output whose product is near minus the identity (a token is compared with what it attends to)."""
    width = attention.out.in_features
    head_dim = width // attention.heads
    noise = torch.randn(attention.heads + 1, width, width, generator=generator) * width**-0.5
    identity = torch.eye(width)
    weight = attention.qkv.weight
    for head in range(attention.heads):
        u, s, v = torch.linalg.svd(near * noise[head] + near * identity)
        rows = slice(head * head_dim, (head + 1) * head_dim)
        root = s[:head_dim].sqrt()[:, None] * math.sqrt(math.sqrt(head_dim))
        weight[:width][rows] = root * u.T[:head_dim]
        weight[width : 2 * width][rows] = root * v[:head_dim]
    u, s, v = torch.linalg.svd(away * noise[-1] - away * identity)
    weight[2 * width :] = s.sqrt()[:, None] * v
    attention.out.weight.copy_(u * s.sqrt())


def cosine_waves(side: int) -> dict[tuple[int, int], Tensor]:
    """Half-periods along rows and columns -> a wave (side, side), lowest frequencies first."""
    positions = (torch.arange(side) + 0.5) / side
    waves = torch.cos(math.pi * torch.arange(side)[:, None] * positions)  # (frequency, position)
    order = sorted(((u, v) for u in range(side) for v in range(side)), key=lambda f: (f[0] ** 2 + f[1] ** 2, f))
    return {(u, v): torch.outer(waves[u], waves[v]) for u, v in order}


def cosine_filters(count: int, patch: int, generator: torch.Generator) -> Tensor:
    """(count, 3, patch, patch): 2-D cosine waves, lowest frequencies first, mostly on luminance, some on colour.

    High frequencies get a higher gain, since natural images have little of them, so that texture and fine lines
    are as visible to the first layer as brightness is.
    """
    waves = cosine_waves(patch)
    order = list(waves)
    chromatic = min(count // 8, len(order))
    chosen = [(f, 0) for f in order[: count - 2 * (chromatic // 2)]]
    chosen += [(f, c) for c in (1, 2) for f in order[: chromatic // 2]]
    filters = torch.randn(count, 3, patch, patch, generator=generator) * (0.02 / patch)
    for index, (frequency, colour) in enumerate(chosen[:count]):
        wave = waves[frequency]
        gain = (1 + math.hypot(*frequency)) / (patch * 3)
        filters[index] += gain * COLOURS[colour][:, None, None] * wave / wave.norm()
    return filters


def signed_filters(count: int, cell: int, generator: torch.Generator) -> Tensor:
    """(count, 3, cell, cell): cosine waves, each with both signs, so that together they answer to its size; two thirds
    of them on luminance, the rest on two differences of colour, lowest frequencies first."""
    waves = cosine_waves(cell)
    colours = COLOURS * torch.tensor([1.0, 1.5, 1.5])[:, None] / 3
    chosen = [(f, 0) for f in list(waves)[: -(-count // 3)]]
    chosen += [(f, c) for f in waves for c in (1, 2)]
    filters = torch.randn(count, 3, cell, cell, generator=generator) * (0.1 / cell)
    for index in range(count):
        frequency, colour = chosen[min(index // 2, len(chosen) - 1)]
        wave = waves[frequency]
        sign = DETAIL_GAIN * (-1) ** (index % 2)
        filters[index] += sign * colours[colour][:, None, None] * wave / wave.norm()
    return filters


def grid_positions(side: int, width: int) -> Tensor:
    """(side*side, width) sine and cosine waves of row and column."""
    quarter = width // 4
    rates = 1.0 / (100 ** (torch.arange(quarter) / quarter))
    angles = torch.arange(side)[:, None] * rates  # (side, quarter)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width/2)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    table = torch.zeros(side * side, width)
    table[:, : 4 * quarter] = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    return table
