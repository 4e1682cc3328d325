"""Learnable object-agnostic prompts with deep tokens (HeadCLIP 3.2, after AnomalyCLIP)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.clip.backbone import Backbone
from headclip.clip.text import end_positions
from headclip.errors import InputError

PLACEHOLDER = "X"


class PromptLearner(nn.Module):
    """Two sentences, `[V1]..[Vn] object.` and `[W1]..[Wn] damaged object.`, whose first n words are learnt.

    Parameters:
        normal_context, abnormal_context: (n_context, W) word vectors, N(0, 0.02).
        deep_tokens: one (n_deep, W) per layer of `deep_layers`, N(0, 0.02), shared by both sentences.
    """

    prefix: Tensor
    suffix: Tensor
    ends: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        n_context: int = 12,
        n_deep: int = 4,
        deep_layers: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 9),
        words: tuple[str, str] = ("object.", "damaged object."),
        deep_half: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        text = backbone.require_text()
        layers = len(text.blocks)
        wrong = [layer for layer in deep_layers if not 1 <= layer <= layers]
        if wrong:
            raise InputError(f"deep prompt layers {wrong} do not exist: the text tower has {layers} (from 1)")
        if n_deep > n_context:
            raise InputError(f"{n_deep} deep tokens do not fit over {n_context} context tokens")
        self.deep_layers, self.deep_half, self.n_context = deep_layers, deep_half, n_context
        embedded, ids = self._embed(backbone, words)  # (2, L, W), (2, L)
        self.register_buffer("prefix", embedded[:, :1], persistent=False)
        self.register_buffer("suffix", embedded[:, 1 + n_context :], persistent=False)
        self.register_buffer("ends", end_positions(ids), persistent=False)
        width = text.config.width

        def draw(count: int) -> nn.Parameter:
            return nn.Parameter(0.02 * torch.randn(count, width, generator=generator).to(backbone.device))

        self.normal_context = draw(n_context)
        self.abnormal_context = draw(n_context)
        self.deep_tokens = nn.ParameterList([draw(n_deep) for _ in deep_layers])

    def prompts(self) -> Tensor:
        """The two sentences as word embeddings (2, L, W), order normal, abnormal."""
        context = torch.stack([self.normal_context, self.abnormal_context])
        return torch.cat([self.prefix, context, self.suffix], dim=1)

    def _embed(self, backbone: Backbone, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Word embeddings (T, L, W) of sentences with placeholders before the words, and their token ids (T, L)."""
        tokenizer = backbone.require_tokenizer()
        sentences = [" ".join([PLACEHOLDER] * self.n_context + [word]) for word in words]
        ids = tokenizer(sentences).to(backbone.device)
        with torch.no_grad():
            return backbone.require_text().token_embedding(ids).float(), ids

    def forward(self, backbone: Backbone, words: Sequence[str] | None = None) -> Tensor:
        """Unit text vectors (2, E), order normal, abnormal, float32.

        words: other endings of the sentences, alternating normal and abnormal -> (len(words), E).
        """
        text = backbone.require_text()
        prompts, ends = self.prompts(), self.ends
        if words is not None:
            embedded, ids = self._embed(backbone, words)
            context = torch.stack([self.normal_context, self.abnormal_context]).repeat(len(words) // 2, 1, 1)
            prompts = torch.cat([embedded[:, :1], context, embedded[:, 1 + self.n_context :]], dim=1)  # (T, L, W)
            ends = end_positions(ids)
        deep = {
            layer: tokens.half().to(tokens.dtype) if self.deep_half else tokens
            for layer, tokens in zip(self.deep_layers, self.deep_tokens, strict=True)
        }
        vectors = text.encode(prompts.to(text.projection.dtype), ends, deep)
        return F.normalize(vectors.float(), dim=-1)
