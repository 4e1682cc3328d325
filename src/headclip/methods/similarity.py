"""Methods that compare tokens with two text vectors: one way from cosines to a map, an image score and losses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from headclip.clip.streams import Stream
from headclip.clip.vision import Interpolation, VisionTokens
from headclip.errors import InputError
from headclip.methods.base import Method, Scores, method_seed
from headclip.methods.peers import PeerMemory
from headclip.methods.references import reference_batches
from headclip.methods.scoring import TopLevel, cosines, grid_to_map, joint_score, scaled_odds, top_share_mean
from headclip.methods.settings import MethodConfig


@dataclass(frozen=True)
class ScoreSettings(MethodConfig):
    """From tokens to map and image score, as `HeadClipConfig` names it; the defaults are the published methods'.

    alpha: weight of the map in the image score (HeadCLIP's joint anomaly score, equations 7 and 8); 0, as
        published, takes the CLS token alone.
    """

    position_interpolation: Interpolation = "bilinear"
    image_size: int = 518
    patch_norm: bool = True  # ln_post before the projection of patch tokens
    cls_norm: bool = True  # and of the CLS token
    temperature: float | None = 0.07  # None: the one that the backbone was trained with
    tap_fusion: Literal["mean", "sum"] = "mean"
    map_from: Literal["both", "abnormal"] = "both"
    sigma: float = 4.0  # pixels of the tower's input
    alpha: float = 0.0
    top_share: float = 0.01
    top_level: TopLevel = "pixels"
    global_score: Literal["probability", "cosine"] = "probability"
    normalise_map: Literal["none", "image"] = "none"

    def _checks(self) -> list[tuple[bool, str]]:
        return [
            (0.0 <= self.alpha <= 1.0, "alpha must lie in [0, 1]"),
            (0.0 < self.top_share <= 1.0, "top_share must lie in (0, 1]"),
            (self.sigma >= 0.0, "sigma must not be negative"),
            (self.temperature is None or self.temperature > 0.0, "temperature must be positive"),
        ]


class SimilarityMethod(Method):
    """Equations 7, 8, 9 and 12 for any taps of the local stream and any two text vectors.

    `config` has the fields of `ScoreSettings`. `memory`: images that each image is compared with, unlabelled ones
    (`set_peers`) or normal ones (`set_references`), None without.
    """

    config: Any
    takes_peers: ClassVar[bool] = True
    takes_references: ClassVar[bool] = True
    least_references: ClassVar[int] = 2

    @property
    @abstractmethod
    def taps(self) -> tuple[int, ...]:
        """Layers (from 1) of the local stream that make a map each."""

    @property
    def map_maximum(self) -> float:
        return float(len(self.taps)) if self.config.tap_fusion == "sum" else 1.0

    @property
    def temperature(self) -> float:
        if self.config.temperature is None:
            return float((-self.backbone.logit_scale.detach().float()).exp())
        return self.config.temperature

    def tokens(self, pixels: Tensor) -> VisionTokens:
        return self.backbone.vision(pixels, self.request)

    def stream(self) -> Stream | None:
        plain = type(self).tokens is SimilarityMethod.tokens
        return Stream(self.request) if plain else None  # a method with a pass of its own has to say what it is

    def patch_probabilities(self, tokens: VisionTokens, text: Tensor) -> list[Tensor]:
        """For each tap, (B, 2, rows, columns) probabilities of normal and abnormal: equation 9."""
        maps = []
        for tap in self.taps:
            features = self.backbone.vision.project(tokens.local[tap][:, 1:], norm=self.config.patch_norm)
            probability = (cosines(features, text) / self.temperature).softmax(dim=-1)  # (B, N, 2)
            maps.append(probability.transpose(1, 2).unflatten(-1, tokens.grid))
        return maps

    def image_logits(self, tokens: VisionTokens, text: Tensor) -> Tensor:
        """(B, 2) cosines of the CLS token divided by the temperature, order normal, abnormal."""
        cls = self.backbone.vision.project(tokens.cls, norm=self.config.cls_norm)
        return cosines(cls, text) / self.temperature

    def global_score(self, tokens: VisionTokens, text: Tensor) -> Tensor:
        """(B,) in [0, 1], from the image logits."""
        logits = self.image_logits(tokens, text)
        if self.config.global_score == "probability":
            return logits.softmax(dim=-1)[:, 1]
        return (logits[:, 1] - logits[:, 0]) * self.temperature / 4 + 0.5  # difference of cosines, from [-2, 2]

    def pixel_maps(self, tokens: VisionTokens, text: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """For each tap, (B, 2, *size) probabilities of normal and abnormal, upsampled and not smoothed."""
        return [at_pixels(p, size) for p in self.patch_probabilities(tokens, text)]

    def patch_map(self, tokens: VisionTokens, text: Tensor) -> Tensor:
        """(B, rows, columns) anomaly values fused over the taps, before upsampling."""
        maps = [
            (p[:, 1] + 1 - p[:, 0]) / 2 if self.config.map_from == "both" else p[:, 1]
            for p in self.patch_probabilities(tokens, text)
        ]
        fused = torch.stack(maps).sum(dim=0)
        return fused / len(maps) if self.config.tap_fusion == "mean" else fused

    @property
    def finer(self) -> int:
        """How many values the map is drawn from along each side of a patch; more than 1 in a method that refines."""
        return 1

    def drawn(self, tokens: VisionTokens, patches: Tensor) -> Tensor:
        """The values of `patch_map` as the map is drawn from them, (B, n rows, n columns), n being `finer`."""
        return patches

    def score(
        self, tokens: VisionTokens, text: Tensor, size: tuple[int, int], output: tuple[int, int] | None = None
    ) -> Scores:
        patches = self.patch_map(tokens, text)
        global_score = self.global_score(tokens, text)
        drawn = self.drawn(tokens, patches)
        if self.memory is not None:
            patches, drawn, global_score = self._beside_peers(self.memory, tokens, patches, drawn, global_score)
        at_tower = grid_to_map(drawn, size, self.config.sigma)
        local_score = self.local_score(patches if self.config.top_level == "patches" else at_tower)
        final = at_tower if output in (None, size) else grid_to_map(drawn, size, self.config.sigma, output)
        return Scores(final, joint_score(global_score, local_score, self.config.alpha), global_score, local_score)

    def set_peers(self, pixels: Sequence[Tensor] | None, weight: float = 1.0) -> None:
        if pixels is None:
            self.memory = None
            return
        with torch.no_grad():
            self.memory = PeerMemory([self.compared(self.tokens(image))[0] for image in pixels], weight)

    def set_references(self, pixels: Tensor | Sequence[Tensor] | None) -> None:
        """Normal images to compare with, at least two, in the way of `set_peers` and in place of its images."""
        self.set_peers(None if pixels is None else reference_batches(pixels, 1))

    def compared(self, tokens: VisionTokens) -> Tensor:
        """(B, N, W): what patches are compared by, those of the local stream at its last tap."""
        return tokens.local[max(self.taps)][:, 1:]

    def _beside_peers(
        self, peers: PeerMemory, tokens: VisionTokens, patches: Tensor, drawn: Tensor, global_score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Patch values, drawn ones and global scores whose odds are multiplied by how unlike the peers they are."""
        of_patches, of_images = peers.log_factors(self.compared(tokens))
        factor = of_patches.exp().unflatten(1, tokens.grid)
        raised = self.with_odds(patches, factor)
        finer = raised
        if drawn is not patches:
            finer = self.with_odds(drawn, grid_to_map(factor, (drawn.shape[-2], drawn.shape[-1])))
        return raised, finer, scaled_odds(global_score, of_images.exp())

    def with_odds(self, values: Tensor, factor: Tensor) -> Tensor:
        """Map values whose odds are multiplied by a factor greater than 0, of the same shape."""
        return scaled_odds(values / self.map_maximum, factor) * self.map_maximum

    def local_score(self, values: Tensor) -> Tensor:
        """Equation 7 on a map or on patch values, (B, ...) -> (B,) in [0, 1]."""
        if self.config.normalise_map == "image":
            low = values.flatten(1).amin(dim=1)[:, None, None]
            high = values.flatten(1).amax(dim=1)[:, None, None]
            values = (values - low) / (high - low).clamp(min=1e-12)
        else:
            values = values / self.map_maximum
        return top_share_mean(values, self.config.top_share)


def at_pixels(probabilities: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 2, rows, columns) -> (B, 2, *size), upsampled and not smoothed."""
    return torch.stack([grid_to_map(probabilities[:, side], size) for side in range(2)], dim=1)


def check_taps(name: str, taps: tuple[int, ...], layers: int) -> None:
    """Raise InputError where a tap does not exist, none is given or one is given twice."""
    wrong = [tap for tap in taps if not isinstance(tap, int) or not 1 <= tap <= layers]
    if wrong or not taps or len(set(taps)) != len(taps):
        raise InputError(
            f"{name}: taps {list(taps)} do not fit; give different layers from 1 to {layers}, the depth of the tower"
        )


def proportional_taps(taps: tuple[int, ...], layers: int, depth: int = 24) -> tuple[int, ...]:
    """Layers of a tower of `depth` layers, as published, scaled to one of another depth; double ones are left out.

    >>> proportional_taps((6, 12, 18, 24), 12)
    (3, 6, 9, 12)
    """
    scaled = (max(1, min(layers, int(tap * layers / depth + 0.5))) for tap in taps)
    return tuple(dict.fromkeys(scaled))


def first_values(shape: tuple[int, ...], std: float, seed: int | None, device: torch.device) -> nn.Parameter:
    """First values of a learnt parameter, N(0, std), the same on every device for a seed."""
    return nn.Parameter(std * torch.randn(shape, generator=method_seed(seed)).to(device))
