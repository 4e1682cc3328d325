"""Hybrid prompts of AdaCLIP (Cao et al., ECCV 2024) and the passes over both towers that read them.

A static prompt is a set of learnt tokens for each of the first layers; a dynamic one is made from the image by linear
generators, is the same for all of those layers, and is added to the static one. The towers themselves are only read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from headclip.clip.blocks import Block
from headclip.clip.text import TextTower
from headclip.clip.vision import VisionTower

Activate = Callable[[Tensor], Tensor]


class HybridPrompts(nn.Module):
    """The prompt tokens of one tower.

    Args:
        layers: prompted layers, from 1.
        length: tokens of a prompt.
        width: of the tower.
        embed_dim: of the image vector that the generators read.
        static, dynamic: which of the two kinds there are.

    Parameters:
        static: one (length, width) per layer, N(0, 0.02).
        generators: `length` linear maps from the image vector to one token each.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        length: int,
        width: int,
        embed_dim: int,
        *,
        static: bool = True,
        dynamic: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.layers, self.length, self.width = layers, length, width
        self.static: nn.ParameterList | None = None
        self.generators: nn.ModuleList | None = None
        if static:
            self.static = nn.ParameterList(
                [nn.Parameter(0.02 * torch.randn(length, width, generator=generator)) for _ in layers]
            )
        if dynamic:
            self.generators = nn.ModuleList([linear(embed_dim, width, generator) for _ in range(length)])

    def dynamic_tokens(self, image_vectors: Tensor) -> Tensor | None:
        """(B, E) -> (B, length, width), or None where this tower has static prompts alone."""
        if self.generators is None:
            return None
        return torch.stack([layer(image_vectors) for layer in self.generators], dim=1)

    def forward(self, dynamic: Tensor | None, batch: int) -> dict[int, Tensor]:
        """Layer -> (batch, length, width), the sum of the two kinds; dynamic: (batch, length, width)."""
        prompts = {}
        for index, layer in enumerate(self.layers):
            tokens = None if self.static is None else self.static[index].expand(batch, -1, -1)
            if tokens is None:
                assert dynamic is not None  # the configuration asks for one kind at least
                tokens = dynamic
            elif dynamic is not None:
                tokens = tokens + dynamic
            prompts[layer] = tokens
        return prompts


def linear(inputs: int, outputs: int, generator: torch.Generator | None = None) -> nn.Linear:
    """A linear layer with torch's own first values, U(-1/sqrt(inputs), 1/sqrt(inputs)), from `generator`."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = inputs**-0.5
    with torch.no_grad():
        for value in (layer.weight, layer.bias):
            value.uniform_(-bound, bound, generator=generator)
    return layer


def run_block(block: Block, x: Tensor, activate: Activate | None = None, causal: bool = False) -> Tensor:
    """A block of either tower, with another activation than its own if one is given."""
    q, k, v = block.attn.project(block.ln_1(x))
    x = x + block.attn(q, k, v, causal)
    return x + block.mlp.proj((activate or block.mlp.activation)(block.mlp.fc(block.ln_2(x))))


def image_vector(tower: VisionTower, embedded: Tensor, activate: Activate | None = None) -> Tensor:
    """CLIP's own image vector (B, E), float32, not of unit length, from the tokens that enter layer 1; no gradients."""
    with torch.no_grad():
        x = embedded
        for block in tower.blocks:
            x = run_block(block, x, activate)
        return tower.project(x[:, 0]).float()


def prompted_vision(
    tower: VisionTower,
    embedded: Tensor,
    prompts: Mapping[int, Tensor],
    taps: tuple[int, ...],
    activate: Activate | None = None,
) -> tuple[Tensor, dict[int, Tensor]]:
    """The vision tower with prompt tokens after the patches.

    The first prompted layer appends them, the others replace what became of them, later layers leave them in.

    Args:
        embedded: (B, 1 + N, W), what enters layer 1.
        prompts: layer (from 1) -> (B, length, W).

    Returns:
        The CLS token after the last layer, (B, W), and tap -> (B, 1 + N, W) without the prompt tokens.
    """
    x, count, tapped = embedded, embedded.shape[1], {}
    for layer, block in enumerate(tower.blocks, start=1):
        if layer in prompts:
            x = torch.cat([x[:, :count], prompts[layer].to(x.dtype)], dim=1)  # (B, 1 + N + length, W)
        x = run_block(block, x, activate)
        if layer in taps:
            tapped[layer] = x[:, :count]
    return x[:, 0], tapped


def first_text_layer(tower: TextTower, ids: Tensor, activate: Activate | None = None) -> Tensor:
    """(C, S, L) token ids -> (C, S, L, W) after layer 1, which is the same whatever the image shows; no gradients."""
    with torch.no_grad():
        flat = ids.flatten(0, 1)  # (C * S, L)
        x = tower.token_embedding(flat) + tower.position_embedding[: flat.shape[1]]
        return run_block(tower.blocks[0], x, activate, causal=True).unflatten(0, ids.shape[:2])


def prompted_text(
    tower: TextTower,
    states: Tensor,
    ends: Tensor,
    prompts: Mapping[int, Tensor],
    activate: Activate | None = None,
) -> Tensor:
    """The text tower from layer 2 on; the prompts replace the states of the first words after the start token.

    Args:
        states: (B, S, L, W) of S sentences of each image, after layer 1.
        ends: (B, S) where each sentence ends.
        prompts: layer (from 2) -> (B, length, W), shared by the S sentences of an image.

    Returns:
        (B, S, E) vectors, not of unit length.
    """
    batch, sentences = states.shape[:2]
    x = states.flatten(0, 1)  # (B * S, L, W)
    for layer, block in enumerate(tower.blocks, start=1):
        if layer == 1:
            continue
        if layer in prompts:
            tokens = prompts[layer].to(x.dtype).repeat_interleave(sentences, dim=0)  # (B * S, length, W)
            x = torch.cat([x[:, :1], tokens, x[:, 1 + tokens.shape[1] :]], dim=1)
        x = run_block(block, x, activate, causal=True)
    last = x[torch.arange(len(x), device=x.device), ends.flatten()]  # (B * S, W)
    return (tower.ln_final(last) @ tower.projection).unflatten(0, (batch, sentences))
