"""The text tower: CLIP's causal transformer, with learnable deep tokens in its early layers (HeadCLIP 3.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from headclip.clip.blocks import Blocks
from headclip.clip.config import TextConfig


class TextTower(nn.Module):
    """Byte-pair tokens, or ready embeddings with learnable words among them, to one vector per text."""

    def __init__(self, config: TextConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        words = torch.zeros(config.vocab_size, config.width)  # drawing them on "meta" would load torch's compiler
        self.token_embedding = nn.Embedding.from_pretrained(words, freeze=False)
        self.position_embedding = nn.Parameter(torch.zeros(config.context_length, config.width))
        self.blocks = Blocks(config)
        self.ln_final = nn.LayerNorm(config.width)
        self.projection = nn.Parameter(torch.zeros(config.width, embed_dim))

    def encode(self, embeddings: Tensor, ends: Tensor, deep_tokens: Mapping[int, Tensor] | None = None) -> Tensor:
        """Word embeddings to text vectors.

        Args:
            embeddings: (T, L, W) with L up to the context length, before position embeddings.
            ends: (T,) position of the end-of-text token, whose state is read.
            deep_tokens: layer (from 1) -> (n, W); before that layer runs, they replace the n states that follow
                the start token, for every text alike.

        Returns:
            (T, E) vectors in the space shared with images, not of unit length.
        """
        deep_tokens = deep_tokens or {}
        embeddings = embeddings[:, : int(ends.max()) + 1]  # attention is causal: nothing beyond the last end is read
        x = embeddings + self.position_embedding[: embeddings.shape[1]]
        for layer, block in enumerate(self.blocks, start=1):
            if layer in deep_tokens:
                deep = deep_tokens[layer].to(x.dtype).expand(len(x), -1, -1)
                x = torch.cat([x[:, :1], deep, x[:, 1 + deep.shape[1] :]], dim=1)
            x = block(x, causal=True)
        last = x[torch.arange(len(x), device=x.device), ends]  # (T, W)
        return self.ln_final(last) @ self.projection

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (T, L), zero-padded after the end-of-text token -> (T, E), not of unit length."""
        return self.encode(self.token_embedding(ids), end_positions(ids))


def end_positions(ids: Tensor) -> Tensor:
    """Where each text ends: the end-of-text token has the highest id of the vocabulary. (T, L) -> (T,)."""
    return ids.argmax(dim=-1)
