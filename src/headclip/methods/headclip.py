"""HeadCLIP: learnable prompts, consistent self-attention with learnable head weights, joint anomaly score.

Where the paper is silent, each reading that was considered is a field of `HeadClipConfig`; docs/paper.md says why
the default was taken. Labels A1 to A23 name the same points there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from headclip.clip.backbone import Backbone
from headclip.clip.vision import Interpolation, Similarity, VisionRequest, VisionTokens
from headclip.errors import InputError
from headclip.methods.base import Method, Scores, method_seed, register
from headclip.methods.prompts import PromptLearner
from headclip.methods.scoring import TopLevel, grid_to_map, joint_score, similarity, top_share_mean


@dataclass(frozen=True)
class HeadClipConfig:
    """Every choice of HeadCLIP's model. Layers count from 1; None means the paper's, scaled to the tower's depth."""

    # image side
    csa_layers: tuple[int, int] | None = None  # A3, A4: 5-19 of 24
    aggregation: Literal["residual", "sum", "layers", "taps"] = "residual"  # A1
    taps: tuple[int, ...] | None = None  # with aggregation "taps"; None taps the last CSA layer
    similarity: Similarity = "vv"
    csa_scale: float | None = None  # A5: 1 / sqrt(head_dim)
    patch_norm: bool = True  # A6: ln_post before the projection
    cls_norm: bool = False  # A7
    position_interpolation: Interpolation = "bilinear"
    image_size: int = 518  # A16
    # learnable head weights
    head_weights: bool = True
    head_init: float | Literal["gaussian"] = 1.0  # Table 8
    head_init_std: float = 1.0  # A20, with head_init "gaussian"
    head_constraint: Literal["none", "softplus", "softmax"] = "none"  # A19
    # text side
    n_context: int = 12
    n_deep: int = 4
    deep_layers: tuple[int, ...] | None = None  # A22: 2-9 of 12
    deep_half: bool = False  # round deep tokens to fp16, as the AnomalyCLIP code base does
    words: tuple[str, str] = ("object.", "damaged object.")
    # map and score
    temperature: float = 0.07  # A8
    tap_fusion: Literal["mean", "sum"] = "mean"  # A9
    map_from: Literal["both", "abnormal"] = "both"  # A10
    sigma: float = 4.0  # A11, pixels of the tower's input
    top_share: float = 0.01  # A12
    top_level: TopLevel = "pixels"  # A12
    alpha: float = 0.5  # A13: weight of the local part
    global_score: Literal["probability", "cosine"] = "probability"  # A14
    normalise_map: Literal["none", "image"] = "none"  # A15: before the joint score
    seed: int | None = 111  # A17: first values of the prompts

    def __post_init__(self) -> None:
        checks = [
            (0.0 <= self.alpha <= 1.0, "alpha must lie in [0, 1]"),
            (0.0 < self.top_share <= 1.0, "top_share must lie in (0, 1]"),
            (self.sigma >= 0.0, "sigma must not be negative"),
            (self.temperature > 0.0, "temperature must be positive"),
            (self.n_context >= 1 and self.n_deep >= 0, "n_context must be at least 1, n_deep at least 0"),
        ]
        for holds, message in checks:
            if not holds:
                raise InputError(f"HeadCLIP: {message}")


def proportional_csa(layers: int) -> tuple[int, int]:
    """The paper's CSA layers 5-19 of 24, scaled to a tower of another depth."""
    first = math.floor(layers * 4 / 24 + 0.5) + 1
    last = layers - math.floor(layers * 5 / 24 + 0.5)
    return min(first, layers), max(min(first, layers), last)


def proportional_deep_layers(layers: int) -> tuple[int, ...]:
    """The paper's deep-token layers 2-9 of 12, scaled to a text tower of another depth."""
    return tuple(range(2, math.floor(layers * 9 / 12 + 0.5) + 1))


@register("headclip")
class HeadClip(Method):
    """HeadCLIP on any backbone that has a text tower.

    Learnt: the prompts' context and deep tokens, and `head_weight` (CSA layers, heads).
    """

    config_class = HeadClipConfig
    config: HeadClipConfig

    def __init__(self, backbone: Backbone, config: HeadClipConfig | None = None) -> None:
        super().__init__(backbone, config or HeadClipConfig())
        vision, text = backbone.config.vision, backbone.require_text().config
        self.csa = self.config.csa_layers or proportional_csa(vision.layers)
        self.request.check(vision.layers)
        deep = self.config.deep_layers
        generator = method_seed(self.config.seed)
        self.prompts = PromptLearner(
            backbone,
            n_context=self.config.n_context,
            n_deep=self.config.n_deep,
            deep_layers=proportional_deep_layers(text.layers) if deep is None else deep,
            words=self.config.words,
            deep_half=self.config.deep_half,
            generator=generator,
        )
        shape = (self.csa[1] - self.csa[0] + 1, vision.heads)
        self.head_weight: nn.Parameter | None = None
        if self.config.head_weights:
            if self.config.head_init == "gaussian":
                first = self.config.head_init_std * torch.randn(shape, generator=generator)
            else:
                first = torch.full(shape, float(self.config.head_init))
            self.head_weight = nn.Parameter(first.to(backbone.device))

    @property
    def taps(self) -> tuple[int, ...]:
        """Layers of the local stream that make a map each."""
        if self.config.aggregation == "layers":
            return tuple(range(self.csa[0], self.csa[1] + 1))
        if self.config.aggregation == "taps" and self.config.taps:
            return self.config.taps
        return (self.csa[1],)

    @property
    def request(self) -> VisionRequest:
        return VisionRequest(
            csa=self.csa,
            taps=self.taps,
            similarity=self.config.similarity,
            with_base=self.config.aggregation != "sum",
            scale=self.config.csa_scale,
            interpolation=self.config.position_interpolation,
        )

    @property
    def map_maximum(self) -> float:
        return float(len(self.taps)) if self.config.tap_fusion == "sum" else 1.0

    @property
    def image_size(self) -> int:
        return self.backbone.config.default_image_size or self.config.image_size

    def effective_head_weights(self) -> Tensor | None:
        """The weights that multiply the heads, (CSA layers, heads), after the constraint; None where LHW is off."""
        if self.head_weight is None:
            return None
        if self.config.head_constraint == "softplus":
            return nn.functional.softplus(self.head_weight)
        if self.config.head_constraint == "softmax":
            return self.head_weight.softmax(dim=-1) * self.head_weight.shape[-1]
        return self.head_weight

    def text_vectors(self, categories: Sequence[str] | None = None) -> Tensor:
        """(1, 2, E): the learnt prompts name no object, so categories are not used."""
        return self.prompts(self.backbone)[None]

    def tokens(self, pixels: Tensor) -> VisionTokens:
        return self.backbone.vision(pixels, self.request, self.effective_head_weights())

    def patch_probabilities(self, tokens: VisionTokens, text: Tensor) -> list[Tensor]:
        """For each tap, (B, 2, rows, columns) probabilities of normal and abnormal: equation 9."""
        maps = []
        for tap in self.taps:
            features = self.backbone.vision.project(tokens.local[tap][:, 1:], norm=self.config.patch_norm)
            probability = similarity(features, text, self.config.temperature)  # (B, N, 2)
            maps.append(probability.transpose(1, 2).unflatten(-1, tokens.grid))
        return maps

    def image_logits(self, tokens: VisionTokens, text: Tensor) -> Tensor:
        """(B, 2) cosines of the CLS token divided by the temperature, order normal, abnormal."""
        cls = self.backbone.vision.project(tokens.cls, norm=self.config.cls_norm)
        unit = nn.functional.normalize(cls.float(), dim=-1)
        return unit @ text.float().T / self.config.temperature

    def patch_map(self, tokens: VisionTokens, text: Tensor) -> Tensor:
        """(B, rows, columns) anomaly values fused over the taps, before upsampling."""
        maps = [
            (p[:, 1] + 1 - p[:, 0]) / 2 if self.config.map_from == "both" else p[:, 1]
            for p in self.patch_probabilities(tokens, text)
        ]
        fused = torch.stack(maps).sum(dim=0)
        return fused / len(maps) if self.config.tap_fusion == "mean" else fused

    def score(
        self, tokens: VisionTokens, text: Tensor, size: tuple[int, int], output: tuple[int, int] | None = None
    ) -> Scores:
        patches = self.patch_map(tokens, text)
        at_tower = grid_to_map(patches, size, self.config.sigma)
        logits = self.image_logits(tokens, text)
        if self.config.global_score == "probability":
            global_score = logits.softmax(dim=-1)[:, 1]
        else:  # difference of cosines, from [-2, 2] to [0, 1]
            global_score = (logits[:, 1] - logits[:, 0]) * self.config.temperature / 4 + 0.5
        local_score = self.local_score(patches if self.config.top_level == "patches" else at_tower)
        final = at_tower if output in (None, size) else grid_to_map(patches, size, self.config.sigma, output)
        return Scores(final, joint_score(global_score, local_score, self.config.alpha), global_score, local_score)

    def local_score(self, values: Tensor) -> Tensor:
        """Equation 7 on a map or on patch values, (B, ...) -> (B,)."""
        if self.config.normalise_map == "image":
            low = values.flatten(1).amin(dim=1)[:, None, None]
            high = values.flatten(1).amax(dim=1)[:, None, None]
            values = (values - low) / (high - low).clamp(min=1e-12)
        return top_share_mean(values, self.config.top_share)
