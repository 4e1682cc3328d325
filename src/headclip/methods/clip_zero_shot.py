"""CLIP without any training (Radford et al., 2021): one pair of sentences, or CLIP-AC's ensemble of them.

Patch tokens are those of the last layer of CLIP's ordinary stream, so that maps come out as they do from CLIP
itself: often inverted on defects, which is what value-value attention repairs. Settings of the baselines of
AnomalyCLIP (Zhou et al., ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from headclip.clip.backbone import Backbone
from headclip.clip.vision import VisionRequest
from headclip.methods.base import register
from headclip.methods.ensembles import (
    ABNORMAL_STATES,
    CLIP_AC_TEMPLATES,
    NORMAL_STATES,
    compose,
    ensemble_vectors,
    readable,
    wanted_categories,
)
from headclip.methods.similarity import ScoreSettings, SimilarityMethod


@dataclass(frozen=True)
class PlainClipConfig(ScoreSettings):
    """Settings that both baselines share.

    category: what the images show, where a call names nothing better.
    csa_layers: first and last layer of a local stream (CLIP Surgery) to take the patches from; None, as published,
        takes CLIP's own stream.
    """

    temperature: float | None = None
    category: str = "object"
    csa_layers: tuple[int, int] | None = None


@dataclass(frozen=True)
class ClipZeroShotConfig(PlainClipConfig):
    """Settings of plain CLIP. sentences: normal and abnormal, with {} where the category goes."""

    sentences: tuple[str, str] = ("a photo of a normal {}.", "a photo of an anomalous {}.")

    def _checks(self) -> list[tuple[bool, str]]:
        return [
            *super()._checks(),
            (len(self.sentences) == 2, "sentences must be two, normal and abnormal"),
            (all(item.count("{}") <= 1 for item in self.sentences), "a sentence takes one category, written {}"),
        ]


@dataclass(frozen=True)
class ClipAcConfig(PlainClipConfig):
    """Settings of CLIP-AC. Each list is tried in full: templates around states around the category."""

    templates: tuple[str, ...] = CLIP_AC_TEMPLATES
    normal_states: tuple[str, ...] = NORMAL_STATES
    abnormal_states: tuple[str, ...] = ABNORMAL_STATES

    def _checks(self) -> list[tuple[bool, str]]:
        lists = (self.templates, self.normal_states, self.abnormal_states)
        return [
            *super()._checks(),
            (all(lists), "templates and states must not be empty"),
            (all(item.count("{}") == 1 for part in lists for item in part), "each template and state needs one {}"),
        ]


class PlainClip(SimilarityMethod):
    """Sentences in words, CLIP's own image embedding and patch tokens. Nothing is learnt."""

    config: PlainClipConfig
    uses_category: ClassVar[bool] = True

    def __init__(self, backbone: Backbone, config: PlainClipConfig) -> None:
        super().__init__(backbone, config)
        backbone.require_text()
        self.request.check(backbone.config.vision.layers)
        self._known: dict[str, Tensor] = {}

    @property
    def taps(self) -> tuple[int, ...]:
        return ((self.config.csa_layers or (1, self.backbone.config.vision.layers))[1],)

    @property
    def request(self) -> VisionRequest:
        return VisionRequest(
            csa=self.config.csa_layers, taps=self.taps, interpolation=self.config.position_interpolation
        )

    def sentences(self, category: str) -> tuple[list[str], list[str]]:
        """What is said of a category: normal sentences and abnormal ones."""
        raise NotImplementedError

    def text_vectors(self, categories: Sequence[str] | None = None) -> Tensor:
        """(C, 2, E), one pair for each category (None: the configured one alone); each is computed once.

        Raises:
            InputError: an empty category, or none in the list.
        """
        names = [readable(name) for name in wanted_categories(categories, self.config.category)]
        for name in names:
            if name not in self._known:
                self._known[name] = ensemble_vectors(self.backbone, *self.sentences(name), normalise_each=True)
        return torch.stack([self._known[name] for name in names]).to(self.backbone.device)


@register("clip")
class ClipZeroShot(PlainClip):
    """CLIP with one normal and one abnormal sentence."""

    config_class = ClipZeroShotConfig
    config: ClipZeroShotConfig
    summary: ClassVar[str] = "CLIP as it is, one sentence for normal and one for abnormal"

    def __init__(self, backbone: Backbone, config: ClipZeroShotConfig | None = None) -> None:
        super().__init__(backbone, config or ClipZeroShotConfig())

    def sentences(self, category: str) -> tuple[list[str], list[str]]:
        normal, abnormal = (text.replace("{}", category) for text in self.config.sentences)
        return [normal], [abnormal]


@register("clip_ac")
class ClipAc(PlainClip):
    """CLIP with an ensemble of state words and templates."""

    config_class = ClipAcConfig
    config: ClipAcConfig
    summary: ClassVar[str] = "CLIP as it is, 35 templates around state words"

    def __init__(self, backbone: Backbone, config: ClipAcConfig | None = None) -> None:
        super().__init__(backbone, config or ClipAcConfig())

    def sentences(self, category: str) -> tuple[list[str], list[str]]:
        normal, abnormal = (
            compose(category, states, self.config.templates)
            for states in (self.config.normal_states, self.config.abnormal_states)
        )
        return normal, abnormal
