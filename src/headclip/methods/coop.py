"""CoOp (Zhou et al., IJCV 2022) as a baseline of anomaly detection: learnt context words before a fixed ending.

The sentences are `[V1]..[V16] normal CATEGORY.` and `[V1]..[V16] anomalous CATEGORY.` with one context for both and
for all categories. Only image labels teach it; the map is what CLIP's ordinary patch tokens make of the sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from headclip.clip.backbone import Backbone
from headclip.clip.text import end_positions
from headclip.clip.vision import VisionRequest, VisionTokens
from headclip.methods.base import TrainableMethod, register
from headclip.methods.ensembles import readable, wanted_categories
from headclip.methods.prompts import PLACEHOLDER
from headclip.methods.similarity import ScoreSettings, SimilarityMethod, first_values


@dataclass(frozen=True)
class CoOpConfig(ScoreSettings):
    """Settings of CoOp.

    category: what the images show, where a call names nothing better.
    n_context: learnt words. shared_context: one context for both sentences rather than one for each.
    endings: what follows the context, normal and abnormal, with {} where the category goes.
    csa_layers: as for `headclip.methods.clip_zero_shot.PlainClipConfig`.
    """

    temperature: float | None = None
    category: str = "object"
    n_context: int = 16
    shared_context: bool = True
    endings: tuple[str, str] = ("normal {}.", "anomalous {}.")
    csa_layers: tuple[int, int] | None = None
    seed: int | None = 111

    def _checks(self) -> list[tuple[bool, str]]:
        return [
            *super()._checks(),
            (self.n_context >= 1, "n_context must be at least 1"),
            (len(self.endings) == 2, "endings must be two, normal and abnormal"),
        ]


@register("coop")
class CoOp(SimilarityMethod, TrainableMethod):
    """CoOp on any backbone that has a text tower. Learnt: `context` (1 or 2, n_context, W), N(0, 0.02)."""

    config_class = CoOpConfig
    config: CoOpConfig
    summary: ClassVar[str] = "CLIP with learnt context words, trained on image labels"
    learns: ClassVar[str] = "prompt context"
    learns_maps: ClassVar[bool] = False
    uses_category: ClassVar[bool] = True

    def __init__(self, backbone: Backbone, config: CoOpConfig | None = None) -> None:
        super().__init__(backbone, config or CoOpConfig())
        text = backbone.require_text()
        backbone.require_tokenizer()
        self.request.check(backbone.config.vision.layers)
        shape = (1 if self.config.shared_context else 2, self.config.n_context, text.config.width)
        self.context = first_values(shape, 0.02, self.config.seed, backbone.device)

    @property
    def taps(self) -> tuple[int, ...]:
        return ((self.config.csa_layers or (1, self.backbone.config.vision.layers))[1],)

    @property
    def request(self) -> VisionRequest:
        return VisionRequest(
            csa=self.config.csa_layers, taps=self.taps, interpolation=self.config.position_interpolation
        )

    def text_vectors(self, categories: Sequence[str] | None = None) -> Tensor:
        """(C, 2, E), one pair for each category (None: the configured one alone).

        Raises:
            InputError: an empty category, one that is too long for the text tower, or none in the list.
        """
        names = [readable(name) for name in wanted_categories(categories, self.config.category)]
        distinct = list(dict.fromkeys(names))
        sentences = [ending.replace("{}", name) for name in distinct for ending in self.config.endings]
        vectors = self._encode(sentences).unflatten(0, (len(distinct), 2))  # (distinct, 2, E)
        return vectors[[distinct.index(name) for name in names]]

    def _encode(self, endings: list[str]) -> Tensor:
        """The learnt context before each of the endings, which alternate normal and abnormal -> (T, E) unit."""
        text, tokenizer = self.backbone.require_text(), self.backbone.require_tokenizer()
        count = self.config.n_context
        ids = tokenizer([" ".join([PLACEHOLDER] * count + [ending]) for ending in endings]).to(self.backbone.device)
        words = text.token_embedding(ids).float()  # (T, L, W)
        pairs = self.context.expand(2, -1, -1).repeat(len(endings) // 2, 1, 1)  # (T, n, W)
        prompts = torch.cat([words[:, :1], pairs, words[:, 1 + count :]], dim=1)
        vectors = text.encode(prompts.to(text.projection.dtype), end_positions(ids))
        return nn.functional.normalize(vectors.float(), dim=-1)

    def pixel_maps(self, tokens: VisionTokens, text: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Nothing: CoOp learns from image labels."""
        return []
