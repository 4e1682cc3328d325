"""HeadCLIP: learnable prompts, consistent self-attention with learnable head weights, joint anomaly score.

Where the paper is silent, each reading that was considered is a field of `HeadClipConfig`; docs/paper.md says why
the default was taken. Labels A1 to A23 name the same points there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from headclip.clip.backbone import Backbone
from headclip.clip.neighbours import odds_factor
from headclip.clip.streams import Stream
from headclip.clip.vision import Interpolation, Similarity, VisionRequest, VisionTokens
from headclip.errors import InputError
from headclip.methods.base import TrainableMethod, method_seed, register
from headclip.methods.prompts import PromptLearner
from headclip.methods.refiner import Refiner
from headclip.methods.scoring import TopLevel
from headclip.methods.settings import MethodConfig
from headclip.methods.similarity import SimilarityMethod, at_pixels, check_taps
from headclip.methods.stream_heads import StreamHeads

LEAST_SHARE = 1e-6  # of certainty that a map leaves to the refiner, whose logits would be infinite otherwise


@dataclass(frozen=True)
class HeadClipConfig(MethodConfig):
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
    # beyond the paper: linear heads on the tower's own stream, in these layers, and their weight in map and score
    stream_layers: tuple[int, ...] = ()
    stream_share: float = 0.4
    # and how much a patch's unlikeness to the others of its image counts: an exponent on the odds of the map
    neighbour_weight: float = 0.0
    # and channels of the network that draws the map of patches finer; 0: upsampled as it is
    refiner: int = 0

    def _checks(self) -> list[tuple[bool, str]]:
        return [
            (0.0 <= self.alpha <= 1.0, "alpha must lie in [0, 1]"),
            (0.0 < self.top_share <= 1.0, "top_share must lie in (0, 1]"),
            (self.sigma >= 0.0, "sigma must not be negative"),
            (self.temperature > 0.0, "temperature must be positive"),
            (0.0 <= self.stream_share <= 1.0, "stream_share must lie in [0, 1]"),
            (self.neighbour_weight >= 0.0, "neighbour_weight must not be negative"),
            (0 <= self.refiner <= 512, "refiner must lie in [0, 512]"),
            (
                self.head_constraint != "softplus" or self.head_init == "gaussian" or self.head_init > 0.0,
                "head_init must be positive with softplus",
            ),
            (self.n_context >= 1 and self.n_deep >= 0, "n_context must be at least 1, n_deep at least 0"),
        ]


def proportional_csa(layers: int) -> tuple[int, int]:
    """The paper's CSA layers 5-19 of 24, scaled to a tower of another depth."""
    first = math.floor(layers * 4 / 24 + 0.5) + 1
    last = layers - math.floor(layers * 5 / 24 + 0.5)
    return min(first, layers), max(min(first, layers), last)


def proportional_deep_layers(layers: int) -> tuple[int, ...]:
    """The paper's deep-token layers 2-9 of 12, scaled to a text tower of another depth."""
    return tuple(range(2, math.floor(layers * 9 / 12 + 0.5) + 1))


@register("headclip")
class HeadClip(SimilarityMethod, TrainableMethod):
    """HeadCLIP on any backbone that has a text tower.

    Learnt: the prompts' context and deep tokens, and `head_weight` (CSA layers, heads). With `stream_layers`, linear
    heads on the tower's own stream too: map and logits are then means of what the prompts and they say,
    weighted by `stream_share`. With `neighbour_weight`, the odds of each patch are multiplied by its distance to the
    most similar patches of its image (`clip.neighbours`), to that power. With `refiner`, a small network draws that map
    finer (`methods.refiner`). The paper has none of them; benchmarks/unseen_families.py says why one may want the first
    two.
    """

    config_class = HeadClipConfig
    config: HeadClipConfig
    summary: ClassVar[str] = "learnt prompts, self-attention with head weights, joint anomaly score"
    learns: ClassVar[str] = "prompt context, deep tokens, head weights"
    text_settings: ClassVar[tuple[str, ...]] = ("n_context", "n_deep", "deep_layers", "deep_half", "words")

    def __init__(self, backbone: Backbone, config: HeadClipConfig | None = None) -> None:
        super().__init__(backbone, config or HeadClipConfig())
        vision, text = backbone.config.vision, backbone.require_text().config
        self.csa = self.config.csa_layers or proportional_csa(vision.layers)
        if self.config.stream_layers:
            check_taps("HeadCLIP's stream_layers", self.config.stream_layers, vision.layers)
        if self.config.taps is not None:
            if self.config.aggregation != "taps":
                raise InputError("HeadCLIP reads taps with aggregation=taps alone; set that too, or leave taps out")
            check_taps("HeadCLIP", self.config.taps, vision.layers)
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
                if self.config.head_constraint == "softplus":
                    first = first.expm1().log()  # so that the effective weights begin there
            self.head_weight = nn.Parameter(first.to(backbone.device))
        self.stream_heads: StreamHeads | None = None
        if self.config.stream_layers:
            heads = StreamHeads(self.config.stream_layers, backbone.config.embed_dim, generator)
            self.stream_heads = heads.to(backbone.device)
        self.refiner: Refiner | None = None
        if self.config.refiner:
            kinds = len(self.taps) + len(self.config.stream_layers)
            refiner = Refiner(kinds * vision.width, vision.patch_size, self.config.refiner, generator)
            self.refiner = refiner.to(backbone.device)

    def learnt_layers(self) -> dict[str, tuple[int, ...]]:
        found = {"deep tokens": self.prompts.deep_layers}
        if self.head_weight is not None:
            found["head weights"] = tuple(range(self.csa[0], self.csa[1] + 1))
        if self.stream_heads is not None:
            found["linear heads"] = self.stream_heads.layers
        return found

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
            plain=self.config.stream_layers,
            neighbours=self.config.neighbour_weight > 0.0,
            cells=self.config.refiner > 0,
        )

    @property
    def local_weight(self) -> float:
        return 4.0 if len(self.taps) + len(self.config.stream_layers) == 1 else 1.0

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The prompts, the head weights apart from them, the linear heads and the refiner."""
        groups = {
            "prompts": list(self.prompts.parameters()),
            "heads": [] if self.head_weight is None else [self.head_weight],
            "stream": [] if self.stream_heads is None else list(self.stream_heads.parameters()),
            "refiner": [] if self.refiner is None else list(self.refiner.parameters()),
        }
        return {name: values for name, values in groups.items() if values}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of any module; a refiner that the settings turn off is left out, and one that they add begins anew."""
        rest = {name: value for name, value in state_dict.items() if not name.startswith("refiner.")}
        if self.refiner is None:
            state_dict = rest
        elif len(rest) == len(state_dict):
            begun = self.refiner.state_dict()
            state_dict = {**rest, **{f"refiner.{name}": value for name, value in begun.items()}}
        return super().load_state_dict(state_dict, strict, assign)

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

    def stream(self) -> Stream:
        return Stream(self.request, self.effective_head_weights())

    def pixel_maps(self, tokens: VisionTokens, text: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Those of the prompts, one a tap, of the linear heads, one a layer, and what the refiner draws of them all."""
        maps = super().pixel_maps(tokens, text, size) + [at_pixels(p, size) for p in self._of_heads(tokens)]
        if self.refiner is not None:
            with torch.no_grad():  # it learns from the map, and the map nothing from it
                patches = self.patch_map(tokens, text)
            drawn = self.drawn(tokens, patches) / self.map_maximum
            maps.append(at_pixels(torch.stack([1 - drawn, drawn], dim=1), size))
        return maps

    def patch_map(self, tokens: VisionTokens, text: Tensor) -> Tensor:
        learnt = super().patch_map(tokens, text)
        if self.stream_heads is not None:
            heads = torch.stack([p[:, 1] for p in self._of_heads(tokens)]).mean(dim=0) * self.map_maximum
            learnt = torch.lerp(learnt, heads, self.config.stream_share)
        if not self.config.neighbour_weight:
            return learnt
        assert tokens.neighbours is not None
        return self.with_odds(learnt, odds_factor(tokens.neighbours, self.config.neighbour_weight))

    @property
    def finer(self) -> int:
        return 1 if self.refiner is None else self.refiner.cells

    def drawn(self, tokens: VisionTokens, patches: Tensor) -> Tensor:
        if self.refiner is None:
            return patches
        assert tokens.cells is not None
        own = [tokens.plain[layer] for layer in self.config.stream_layers]
        kinds = [tokens.local[tap] for tap in self.taps] + own
        logits = (patches / self.map_maximum).logit(eps=LEAST_SHARE)
        finer = self.refiner(logits, tokens.cells, [kind[:, 1:].detach() for kind in kinds])
        return finer.sigmoid() * self.map_maximum

    def image_logits(self, tokens: VisionTokens, text: Tensor) -> Tensor:
        prompts = super().image_logits(tokens, text)
        if self.stream_heads is None:
            return prompts
        vision, norm = self.backbone.vision, self.config.cls_norm
        heads = self.stream_heads.image_logits(vision, tokens, self.temperature, norm)
        return torch.lerp(prompts, heads, self.config.stream_share)

    def _of_heads(self, tokens: VisionTokens) -> list[Tensor]:
        """For each layer with linear heads, (B, 2, rows, columns) probabilities of normal and abnormal."""
        if self.stream_heads is None:
            return []
        vision, norm = self.backbone.vision, self.config.patch_norm
        return self.stream_heads.patch_probabilities(vision, tokens, self.temperature, norm)
