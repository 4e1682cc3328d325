"""Linear heads without language, in the way of UniADet (Gao and Wang, arXiv 2601.05552, 2026).

A text encoder only serves to make decision weights, so the weights themselves are learnt: for each tapped layer one
(normal, abnormal) pair for the CLS token and another one for the patches, 15,360 numbers on ViT-L. The authors have
released no code; layers, temperature and fusion are ours, the losses those of AnomalyCLIP as in their paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from headclip.clip.backbone import Backbone
from headclip.clip.vision import VisionRequest, VisionTokens
from headclip.methods.base import TrainableMethod, register
from headclip.methods.similarity import (
    ScoreSettings,
    SimilarityMethod,
    check_taps,
    first_values,
    proportional_taps,
)
from headclip.methods.stream_heads import head_logits, on_grid


@dataclass(frozen=True)
class LinearHeadsConfig(ScoreSettings):
    """Settings of the linear heads. Layers count from 1.

    taps: layers with heads of their own; None takes 8, 12, 16, 20 and 24 of 24, scaled to the tower's depth.
    space: read tokens after the tower's projection (width E) or before it (width W, 20,480 numbers on ViT-L).
    csa_layers: first and last layer of a local stream to read, CLS slot included; None reads the tower's own.
    """

    taps: tuple[int, ...] | None = None
    space: Literal["projected", "tokens"] = "projected"
    csa_layers: tuple[int, int] | None = None
    seed: int | None = 111

    def _checks(self) -> list[tuple[bool, str]]:
        return [*super()._checks(), (self.space in ("projected", "tokens"), "space must be projected or tokens")]


@register("linear_heads")
class LinearHeads(SimilarityMethod, TrainableMethod):
    """Language-free linear heads on any backbone, one without a text tower included.

    Learnt: `image_heads` and `patch_heads`, each (taps, 2, D), order normal, abnormal; only directions matter.
    """

    config_class = LinearHeadsConfig
    config: LinearHeadsConfig
    summary: ClassVar[str] = "language-free linear heads for images and for patches, layer by layer (UniADet's way)"
    learns: ClassVar[str] = "two linear heads a layer"
    needs_text: ClassVar[bool] = False

    def __init__(self, backbone: Backbone, config: LinearHeadsConfig | None = None) -> None:
        super().__init__(backbone, config or LinearHeadsConfig())
        vision = backbone.config.vision
        asked = self.config.taps
        self._taps = proportional_taps((8, 12, 16, 20, 24), vision.layers) if asked is None else asked
        check_taps("linear heads", self._taps, vision.layers)
        self.request.check(vision.layers)
        width = backbone.config.embed_dim if self.config.space == "projected" else vision.width
        shape, std = (2, len(self._taps), 2, width), width**-0.5
        both = first_values(shape, std, self.config.seed, backbone.device)
        self.image_heads, self.patch_heads = (torch.nn.Parameter(part.clone()) for part in both.detach())

    def learnt_layers(self) -> dict[str, tuple[int, ...]]:
        return {"linear heads": self.taps}

    @property
    def taps(self) -> tuple[int, ...]:
        return self._taps

    @property
    def request(self) -> VisionRequest:
        return VisionRequest(
            csa=self.config.csa_layers, taps=self.taps, interpolation=self.config.position_interpolation
        )

    def text_vectors(self, categories: Sequence[str] | None = None) -> Tensor:
        """(1, 2, 0): there are no sentences."""
        return torch.zeros(1, 2, 0, device=self.backbone.device)

    def features(self, tokens: Tensor, norm: bool) -> Tensor:
        """(..., W) tokens of a tap -> (..., D), what the heads read."""
        if self.config.space == "projected":
            return self.backbone.vision.project(tokens, norm=norm)
        return self.backbone.vision.ln_post(tokens) if norm else tokens

    def patch_probabilities(self, tokens: VisionTokens, text: Tensor) -> list[Tensor]:
        """For each tap, (B, 2, rows, columns) probabilities of normal and abnormal."""
        features = [self.features(tokens.local[tap][:, 1:], self.config.patch_norm) for tap in self.taps]
        return [on_grid(logits, tokens.grid) for logits in head_logits(features, self.patch_heads, self.temperature)]

    def image_logits(self, tokens: VisionTokens, text: Tensor) -> Tensor:
        """(B, 2), the mean over the taps of each one's logits for its CLS token."""
        features = [self.features(tokens.local[tap][:, 0], self.config.cls_norm) for tap in self.taps]
        return torch.stack(head_logits(features, self.image_heads, self.temperature)).mean(dim=0)
