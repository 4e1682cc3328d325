"""AnoVL (Deng et al., 2023): domain-aware prompts, value-value attention in every layer, and an adapter that learns
from each image while judging it. Nothing is trained beforehand.

The authors published two scripts that differ in more than the data they read; both are presets here. Probabilities
have no temperature, as published: they lie close to 0.5, and only their order means anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.clip.backbone import Backbone
from headclip.clip.vision import Interpolation, VisionRequest, VisionTokens
from headclip.errors import InputError
from headclip.methods.anovl_adaptation import adapt, cosines, draw
from headclip.methods.anovl_tiles import Tiles, augmented_copies
from headclip.methods.base import Method, Scores, register
from headclip.methods.ensembles import (
    ANOVL_ABNORMAL_STATES,
    ANOVL_NORMAL_STATES,
    anovl_templates,
    compose,
    mean_vector,
    named_by,
    readable,
    sentence_vectors,
    wanted_categories,
)
from headclip.methods.scoring import joint_score, top_share_mean
from headclip.methods.settings import MethodConfig

Preset = Literal["visa", "mvtec"]
PRESETS: dict[str, dict[str, Any]] = {
    "visa": {"tiling": True, "adapter": "linear", "loss_on": "pixels", "augment": False},
    "mvtec": {"tiling": False, "adapter": "text", "loss_on": "tokens", "augment": True},
}
RENAMED = {"macaroni1": "macaroni", "macaroni2": "macaroni"}


@dataclass(frozen=True)
class AnoVlConfig(MethodConfig):
    """Settings of AnoVL; None is filled in from the preset.

    category: what the images show, where a call names nothing better.
    preset: "visa" and "mvtec" are the authors' scripts for the two data sets; "visa" costs one vision pass a tile,
        "mvtec" one and 22 more.
    tiling: cut an image that is not square into squares, else the tower sees it whole.
    adapter: "text" makes coefficients of the 924 sentences, "linear" the feature itself.
    loss_on: the patch grid, or the upsampled and joined map.
    augment: average the image score over 22 turned, shifted, mirrored and grey copies.
    adapt: test-time adaptation, with `steps` steps of AdamW at `rate`; noise_std is the spread of the noise.
    keep_optimiser: go on with the optimiser's state from image to image of a category, as the published code does:
        scores then depend on the order of the images.
    pool: side, in patches, of the average that smooths the map; odd, 1 for none.
    underscores: leave `_` in category names as the published code does; else it becomes a space.
    alpha, top_share: the joint anomaly score of HeadCLIP (equations 7 and 8) as an option; 0 is AnoVL's own score.
    """

    category: str = "object"
    preset: Preset = "visa"
    tiling: bool | None = None
    adapter: Literal["text", "linear"] | None = None
    loss_on: Literal["tokens", "pixels"] | None = None
    augment: bool | None = None
    adapt: bool = True
    steps: int = 5
    rate: float = 1e-3
    noise_std: float = 0.055
    keep_optimiser: bool = False
    pool: int = 3
    underscores: bool = True
    position_interpolation: Interpolation = "bicubic_antialias"
    image_size: int = 240
    alpha: float = 0.0
    top_share: float = 0.01
    seed: int = 111

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in PRESETS[self.preset].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def _checks(self) -> list[tuple[bool, str]]:
        return [
            (self.preset in PRESETS, f"preset must be one of {', '.join(PRESETS)}"),
            (self.adapter in (None, "text", "linear"), "adapter must be text or linear"),
            (self.loss_on in (None, "tokens", "pixels"), "loss_on must be tokens or pixels"),
            (self.steps >= 0, "steps must not be negative"),
            (self.rate > 0.0, "rate must be positive"),
            (self.noise_std >= 0.0, "noise_std must not be negative"),
            (self.pool >= 1 and self.pool % 2 == 1, "pool must be an odd number of patches, 1 for none"),
            (0.0 <= self.alpha <= 1.0, "alpha must lie in [0, 1]"),
            (0.0 < self.top_share <= 1.0, "top_share must lie in (0, 1]"),
        ]


@dataclass
class AnoVlTokens(VisionTokens):
    """A pass over the tiles of B images. The local tokens are (B * tiles, 1 + N, W), grid is that of one tile.

    views: (B, V, W), CLS tokens over which the image score is averaged: of the tiles, or of the augmented copies.
    """

    views: Tensor | None = None
    tiles: Tiles | None = None


@register("anovl")
class AnoVl(Method):
    """AnoVL on any backbone that has a text tower. Nothing is learnt that outlives an image."""

    config_class = AnoVlConfig
    config: AnoVlConfig
    summary: ClassVar[str] = "domain-aware prompts, value-value attention everywhere, adaptation to each image"
    uses_category: ClassVar[bool] = True

    def __init__(self, backbone: Backbone, config: AnoVlConfig | None = None) -> None:
        super().__init__(backbone, config or AnoVlConfig())
        backbone.require_text()
        self._known: dict[str, tuple[Tensor, Tensor]] = {}
        self._optimisers: dict[str, dict[str, Any]] = {}

    @property
    def request(self) -> VisionRequest:
        layers = self.backbone.config.vision.layers
        return VisionRequest(csa=(1, layers), taps=(layers,), interpolation=self.config.position_interpolation)

    @property
    def keep_aspect(self) -> bool:
        """Whether an image should keep its aspect ratio on the way to the tower."""
        return bool(self.config.tiling)

    # --- sentences

    def sentences(self, category: str) -> tuple[list[str], list[str]]:
        """The 462 normal and 462 abnormal sentences of a category: 66 templates around 7 states each.

        Raises:
            InputError: no category.
        """
        words = readable(category)  # refuses empty names and braces
        name = RENAMED.get(category, category if self.config.underscores else words)
        normal, abnormal = (
            compose(name, states, anovl_templates(category)) for states in (ANOVL_NORMAL_STATES, ANOVL_ABNORMAL_STATES)
        )
        return normal, abnormal

    def _describe(self, category: str) -> tuple[Tensor, Tensor]:
        """(2, E) means of the sentences' vectors, not of unit length before the mean; and (924, E) unit vectors."""
        with torch.inference_mode(False):
            sides = [sentence_vectors(self.backbone, sentences) for sentences in self.sentences(category)]
            means = torch.stack([mean_vector(side, normalise_each=False) for side in sides])
            return means, F.normalize(torch.cat(sides), dim=-1)

    def text_vectors(self, categories: Sequence[str] | None = None) -> Tensor:
        """(C, 2, E), one pair for each category (None: the configured one alone); each is computed once.

        Raises:
            InputError: an empty category, or none in the list.
        """
        names = wanted_categories(categories, self.config.category)
        for name in dict.fromkeys(names):
            if name not in self._known:
                self._known[name] = self._describe(name)
        return torch.stack([self._known[name][0] for name in names]).to(self.backbone.device)

    def named_by(self, text: Tensor) -> list[str]:
        """The category of each entry of (B, 2, E).

        Raises:
            InputError: an entry that `text_vectors` did not make.
        """
        names = named_by(text, {name: means for name, (means, _) in self._known.items()})
        if names is None:
            raise InputError("AnoVL's adapter reads the sentences of a category; give what its text_vectors gave")
        return names

    # --- images

    def tokens(self, pixels: Tensor) -> AnoVlTokens:
        """One pass over all tiles, and one over the augmented copies where they are asked for."""
        size = (pixels.shape[-2], pixels.shape[-1])
        tiles = Tiles.squares(size) if self.config.tiling else Tiles.whole(size)
        found = self.backbone.vision(tiles.cut(pixels).flatten(0, 1), self.request)
        views = found.cls.unflatten(0, (len(pixels), -1))  # (B, tiles, W)
        if self.config.augment:
            plain = VisionRequest(interpolation=self.config.position_interpolation)
            copies = augmented_copies(pixels)  # (B, 22, 3, H, W)
            views = torch.stack([self.backbone.vision(image, plain).cls for image in copies])
        return AnoVlTokens(views[:, 0], found.local, found.grid, views=views, tiles=tiles)

    def image_scores(self, tokens: AnoVlTokens, text: Tensor) -> Tensor:
        """(B,) probability of abnormal, the mean over the views. text: (B, 2, E)."""
        assert tokens.views is not None
        vectors = self.backbone.vision.project(tokens.views).float()  # (B, V, E)
        return cosines(vectors, text).softmax(dim=-1)[..., 1].mean(dim=1)

    def patch_features(self, tokens: AnoVlTokens) -> Tensor:
        """(B, n, E) of all tiles' patches, not of unit length; n = tiles * rows * columns."""
        assert tokens.tiles is not None
        (local,) = tokens.local.values()
        features = self.backbone.vision.project(local[:, 1:]).float()
        return features.unflatten(0, (-1, len(tokens.tiles.corners))).flatten(1, 2)

    def adapted_features(self, tokens: AnoVlTokens, text: Tensor) -> Tensor:
        """`patch_features` after test-time adaptation, (B, n, E). text: (B, 2, E)."""
        config, features = self.config, self.patch_features(tokens)
        by_text = config.adapter == "text"
        names = self.named_by(text) if by_text or config.keep_optimiser else []
        prompts = torch.stack([self._known[name][1] for name in names]).to(features.device) if by_text else None
        draws = draw(
            features.shape[-1] if prompts is None else prompts.shape[1],
            features.shape[-1],
            features.shape[1],
            steps=config.steps,
            noise_std=config.noise_std,
            seed=config.seed,
        )

        def probabilities(values: Tensor) -> Tensor:
            return self.loss_probabilities(values, tokens)

        if not config.keep_optimiser:
            return adapt(features, text, prompts, draws, probabilities, rate=config.rate)[0]
        done = []
        for i, name in enumerate(names):
            one = slice(i, i + 1)
            adapted, _, self._optimisers[name] = adapt(
                features[one],
                text[one],
                None if prompts is None else prompts[one],
                draws,
                probabilities,
                rate=config.rate,
                state=self._optimisers.get(name),
            )
            done.append(adapted)
        return torch.cat(done)

    def forget(self) -> None:
        """Drop the optimiser states that `keep_optimiser` keeps."""
        self._optimisers.clear()

    def loss_probabilities(self, values: Tensor, tokens: AnoVlTokens) -> Tensor:
        """Cosines (B, n, 2) -> the probabilities (B, m, 2) that the adaptation's loss looks at."""
        if self.config.loss_on == "tokens":
            return values.softmax(dim=-1)
        assert tokens.tiles is not None
        square = values.unflatten(1, (len(tokens.tiles.corners), *tokens.grid)).permute(0, 1, 4, 2, 3)
        return upsample_tiles(square, tokens.tiles).softmax(dim=1).flatten(2).transpose(1, 2)

    def patch_map(self, features: Tensor, tokens: AnoVlTokens, text: Tensor) -> Tensor:
        """(B, tiles, rows, columns) probability of abnormal before smoothing. text: (B, 2, E)."""
        assert tokens.tiles is not None
        abnormal = cosines(features, text).softmax(dim=-1)[..., 1]
        return abnormal.unflatten(1, (len(tokens.tiles.corners), *tokens.grid))

    def score(
        self, tokens: VisionTokens, text: Tensor, size: tuple[int, int], output: tuple[int, int] | None = None
    ) -> Scores:
        if not isinstance(tokens, AnoVlTokens) or tokens.tiles is None:
            raise InputError("AnoVL needs its tiles and copies of an image; take tokens from its own `tokens`")
        batch = len(tokens.cls)
        if text.dim() == 3 and len(text) not in (1, batch):
            raise InputError(f"{len(text)} categories were given for {batch} images")
        text = text.float().expand(batch, -1, -1)
        features = self.adapted_features(tokens, text) if self.config.adapt else self.patch_features(tokens)
        pooled = pool(self.patch_map(features, tokens, text), self.config.pool)
        at_tower = upsample_tiles(pooled[:, :, None], tokens.tiles)[:, 0]  # (B, H, W)
        final = at_tower
        if output not in (None, size):
            final = F.interpolate(at_tower[:, None], size=output, mode="bilinear", align_corners=False)[:, 0]
        global_score = self.image_scores(tokens, text)
        local_score = top_share_mean(at_tower, self.config.top_share)
        return Scores(final, joint_score(global_score, local_score, self.config.alpha), global_score, local_score)


def pool(values: Tensor, side: int) -> Tensor:
    """Average of side x side patches, (B, tiles, rows, columns); the border is repeated outwards."""
    margin = side // 2
    padded = F.pad(values, (margin,) * 4, mode="replicate") if margin else values
    return F.avg_pool2d(padded, side, stride=1)


def upsample_tiles(values: Tensor, tiles: Tiles) -> Tensor:
    """(B, tiles, C, rows, columns) -> (B, C, H, W): bilinear with aligned corners to a tile's size, then joined."""
    flat = F.interpolate(values.flatten(0, 1), size=tiles.tile, mode="bilinear", align_corners=True)
    return tiles.join(flat.unflatten(0, values.shape[:2]))
