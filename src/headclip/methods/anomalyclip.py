"""AnomalyCLIP (Zhou et al., ICLR 2024): object-agnostic learnt prompts, value-value attention in the upper layers.

It is HeadCLIP without head weights and without the joint score. The published results read the last layer alone
(preset `official`); the code's default lists four layers, which earlier versions tapped as four equal tensors
(preset `multi` taps them for real).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from headclip.clip.backbone import Backbone
from headclip.clip.vision import Similarity, VisionRequest
from headclip.errors import CheckpointError
from headclip.methods.base import TrainableMethod, config_from_dict, method_seed, register
from headclip.methods.ensembles import readable, wanted_categories
from headclip.methods.headclip import proportional_deep_layers
from headclip.methods.prompts import PromptLearner
from headclip.methods.similarity import ScoreSettings, SimilarityMethod, check_taps, proportional_taps

PRESETS: dict[str, tuple[int, ...]] = {"official": (24,), "multi": (6, 12, 18, 24)}


@dataclass(frozen=True)
class AnomalyClipConfig(ScoreSettings):
    """Every choice of AnomalyCLIP's model. Layers count from 1; None means the preset's, scaled to the tower's depth.

    preset: which layers make a map: the last of 24, or 6, 12, 18 and 24, whose maps are added.
    deep_half: round the deep tokens to fp16 as the published code does.
    words: what follows the context, normal and abnormal; {} stands for what the image shows, which makes the prompts
        class-aware.
    """

    cls_norm: bool = False
    tap_fusion: Literal["mean", "sum"] = "sum"
    preset: Literal["official", "multi"] = "official"
    taps: tuple[int, ...] | None = None
    csa_layers: tuple[int, int] | None = None  # 6-24 of 24
    similarity: Similarity = "vv"
    n_context: int = 12
    n_deep: int = 4
    deep_layers: tuple[int, ...] | None = None  # 2-9 of 12
    deep_half: bool = True
    words: tuple[str, str] = ("object.", "damaged object.")
    seed: int | None = 111

    def _checks(self) -> list[tuple[bool, str]]:
        return [
            *super()._checks(),
            (self.preset in PRESETS, f"preset must be one of {', '.join(PRESETS)}"),
            (self.similarity in ("vv", "qq", "kk"), "similarity must be vv, qq or kk"),
            (self.n_context >= 1 and self.n_deep >= 0, "n_context must be at least 1, n_deep at least 0"),
        ]


@register("anomalyclip")
class AnomalyClip(SimilarityMethod, TrainableMethod):
    """AnomalyCLIP on any backbone that has a text tower. Learnt: the prompts' context and deep tokens."""

    config_class = AnomalyClipConfig
    config: AnomalyClipConfig
    summary: ClassVar[str] = "learnt object-agnostic prompts, value-value attention"
    learns: ClassVar[str] = "prompt context, deep tokens"

    def __init__(self, backbone: Backbone, config: AnomalyClipConfig | None = None) -> None:
        super().__init__(backbone, config or AnomalyClipConfig())
        text, layers = backbone.require_text().config, backbone.config.vision.layers
        self.csa = self.config.csa_layers or (int(layers * 5 / 24 + 0.5) + 1, layers)
        asked = self.config.taps
        self._taps = proportional_taps(PRESETS[self.config.preset], layers) if asked is None else asked
        check_taps("AnomalyCLIP", self._taps, layers)
        self.request.check(layers)
        deep = self.config.deep_layers
        if any("{}" in word for word in self.config.words):
            object.__setattr__(self, "uses_category", True)  # of this instance: the class itself names no object
        normal, abnormal = (word.replace("{}", "object") for word in self.config.words)
        self.prompts = PromptLearner(
            backbone,
            n_context=self.config.n_context,
            n_deep=self.config.n_deep,
            deep_layers=proportional_deep_layers(text.layers) if deep is None else deep,
            words=(normal, abnormal),
            deep_half=self.config.deep_half,
            generator=method_seed(self.config.seed),
        )

    def learnt_layers(self) -> dict[str, tuple[int, ...]]:
        return {"deep tokens": self.prompts.deep_layers}

    @property
    def taps(self) -> tuple[int, ...]:
        return self._taps

    @property
    def request(self) -> VisionRequest:
        return VisionRequest(
            csa=self.csa,
            taps=self.taps,
            similarity=self.config.similarity,
            interpolation=self.config.position_interpolation,
        )

    @property
    def local_weight(self) -> float:
        return 4.0 if len(self.taps) == 1 else 1.0

    def text_vectors(self, categories: Sequence[str] | None = None) -> Tensor:
        """(1, 2, E): the learnt prompts name no object. Class-aware ones: (C, 2, E), a pair for each category.

        Raises:
            InputError: an empty category, or none in the list, for class-aware prompts.
        """
        if not self.uses_category or categories is None:
            return self.prompts(self.backbone)[None]
        names = [readable(name) for name in wanted_categories(categories)]
        distinct = list(dict.fromkeys(names))
        words = [word.replace("{}", name) for name in distinct for word in self.config.words]
        vectors = self.prompts(self.backbone, words).unflatten(0, (len(distinct), 2))  # (distinct, 2, E)
        return vectors[[distinct.index(name) for name in names]]

    @classmethod
    def from_official(
        cls, content: Mapping[str, Any], backbone: Backbone, settings: Mapping[str, Any] | None = None
    ) -> AnomalyClip | None:
        """AnomalyCLIP with the prompts of a published `epoch_15.pth`: `{"prompt_learner": {"ctx_pos": ...}}`.

        The file's other tensors, projections that its code never calls and embeddings of fixed words, are not read.
        """
        state = content.get("prompt_learner")
        if not isinstance(state, Mapping):
            return None
        context, deep = official_prompts(state)
        width, layers = backbone.require_text().config.width, len(backbone.require_text().blocks)
        if context.shape[-1] != width:
            raise CheckpointError(
                f"its prompts are {context.shape[-1]} wide, but the text tower of '{backbone.name}' is {width} wide; "
                "AnomalyCLIP's published checkpoints belong to ViT-L-14-336"
            )
        if len(deep) >= layers:
            raise CheckpointError(f"it has deep tokens for {len(deep) + 1} layers, but the text tower has {layers}")
        facts: dict[str, Any] = {
            "n_context": context.shape[1],
            "n_deep": len(deep[0]) if deep else 0,
            "deep_layers": tuple(range(2, len(deep) + 2)),
        }
        method = cls(backbone, config_from_dict(AnomalyClipConfig, {**facts, **(settings or {})}))
        if [p.shape for p in method.prompts.deep_tokens] != [t.shape for t in deep] or (
            method.prompts.normal_context.shape != context.shape[1:]
        ):
            raise CheckpointError("its prompts have other shapes than the settings ask for; leave those settings out")
        with torch.no_grad():
            method.prompts.normal_context.copy_(context[0])
            method.prompts.abnormal_context.copy_(context[1])
            for parameter, tokens in zip(method.prompts.deep_tokens, deep, strict=True):
                parameter.copy_(tokens)
        return method


def official_prompts(state: Mapping[str, Any]) -> tuple[Tensor, list[Tensor]]:
    """Context (2, n, W), order normal, abnormal, and the deep tokens (m, W) of text layers 2, 3, ...

    Raises:
        CheckpointError: a tensor is missing or has a shape that AnomalyCLIP's prompts cannot have.
    """
    sides = []
    for name in ("ctx_pos", "ctx_neg"):
        value = state.get(name)
        if not isinstance(value, Tensor):
            raise CheckpointError(f"its prompt_learner has no {name}; AnomalyCLIP's has ctx_pos and ctx_neg")
        if value.dim() != 4 or value.shape[:2] != (1, 1) or not value.is_floating_point():
            raise CheckpointError(f"its {name} has shape {tuple(value.shape)}; (1, 1, words, width) is expected")
        sides.append(value[0, 0].float())
    if sides[0].shape != sides[1].shape:
        raise CheckpointError(f"ctx_pos {tuple(sides[0].shape)} and ctx_neg {tuple(sides[1].shape)} differ in shape")
    found = [re.fullmatch(r"compound_prompts_text\.(\d+)", str(key)) for key in state]
    numbers = sorted(int(match.group(1)) for match in found if match)
    if numbers != list(range(len(numbers))):
        raise CheckpointError(f"its compound_prompts_text are numbered {numbers}; some are missing")
    deep = [state[f"compound_prompts_text.{number}"] for number in numbers]
    for number, tokens in enumerate(deep):
        wanted = (len(deep[0]), sides[0].shape[1])
        if not isinstance(tokens, Tensor) or tuple(tokens.shape) != wanted:
            raise CheckpointError(f"its compound_prompts_text.{number} should have shape {wanted}")
    return torch.stack(sides), [tokens.float() for tokens in deep]
