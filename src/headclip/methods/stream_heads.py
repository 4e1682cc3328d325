"""Linear heads: learnt pairs of directions, normal and abnormal, that compare a layer's tokens without any sentence.

The way of UniADet (Gao and Wang, arXiv 2601.05552, 2026): one pair a layer for the class token and one for the patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.clip.vision import VisionTokens, VisionTower
from headclip.methods.scoring import cosines


def head_logits(features: Sequence[Tensor], heads: Tensor, temperature: float) -> list[Tensor]:
    """For each layer, (..., 2) cosines divided by the temperature, order normal, abnormal.

    Args:
        features: one (..., D) a layer, any length.
        heads: (layers, 2, D); only directions matter.
    """
    return [
        cosines(layer, F.normalize(pair, dim=-1)) / temperature for layer, pair in zip(features, heads, strict=True)
    ]


def on_grid(logits: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, N, 2) logits of patches -> (B, 2, rows, columns) probabilities."""
    return logits.softmax(dim=-1).transpose(1, 2).unflatten(-1, grid)


class StreamHeads(nn.Module):
    """Linear heads on the tower's own stream, after its projection.

    image_heads, patch_heads: (layers, 2, E).

    Args:
        layers: from 1, those of `VisionRequest.plain`.
        width: E, of the space shared with text.
    """

    def __init__(self, layers: tuple[int, ...], width: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.layers = layers
        first = width**-0.5 * torch.randn(2, len(layers), 2, width, generator=generator)
        self.image_heads, self.patch_heads = (nn.Parameter(part.clone()) for part in first)

    def patch_probabilities(
        self, vision: VisionTower, tokens: VisionTokens, temperature: float, norm: bool
    ) -> list[Tensor]:
        """For each layer, (B, 2, rows, columns) probabilities of normal and abnormal."""
        features = [vision.project(tokens.plain[layer][:, 1:], norm=norm) for layer in self.layers]
        return [on_grid(logits, tokens.grid) for logits in head_logits(features, self.patch_heads, temperature)]

    def image_logits(self, vision: VisionTower, tokens: VisionTokens, temperature: float, norm: bool) -> Tensor:
        """(B, 2), the mean over the layers of each one's logits for its class token."""
        features = [vision.project(tokens.plain[layer][:, 0], norm=norm) for layer in self.layers]
        return torch.stack(head_logits(features, self.image_heads, temperature)).mean(dim=0)
