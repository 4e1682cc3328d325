"""WinCLIP (Jeong et al., CVPR 2023): a compositional prompt ensemble, windows at two scales and, where a few normal
images are at hand, what they look like (WinCLIP+). Nothing is trained.

The numbers follow the public re-implementations that reach the paper's results; the authors published no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from headclip.clip.backbone import Backbone
from headclip.clip.vision import Interpolation, VisionRequest, VisionTokens
from headclip.errors import InputError
from headclip.methods.base import Method, Scores, register
from headclip.methods.ensembles import (
    WINCLIP_ABNORMAL_STATES,
    WINCLIP_NORMAL_STATES,
    WINCLIP_TEMPLATES,
    WINCLIP_TEMPLATES_STOPPED,
    compose,
    ensemble_vectors,
    readable,
    wanted_categories,
)
from headclip.methods.references import ReferenceMemory, reference_batches
from headclip.methods.scoring import grid_to_map, joint_score, similarity, top_share_mean
from headclip.methods.settings import MethodConfig
from headclip.methods.windows import check_windows, harmonic_mean, harmonic_patches, window_vectors

TEMPLATES = {"stopped": WINCLIP_TEMPLATES_STOPPED, "plain": WINCLIP_TEMPLATES}


@dataclass(frozen=True)
class WinClipConfig(MethodConfig):
    """Settings of WinCLIP.

    category: what the images show, where a call names nothing better.
    scales: sides of the windows, in patches.
    templates: "stopped" are the 21 of the public re-implementations, each with a full stop (one of them occurs
        twice); "plain" are 22 without one.
    patch_norm: few-shot patch features pass the tower's last norm; the re-implementations disagree.
    alpha, top_share: the joint anomaly score of HeadCLIP (equations 7 and 8) as an option; 0 is WinCLIP's own score.
    """

    category: str = "object"
    scales: tuple[int, ...] = (2, 3)
    templates: Literal["stopped", "plain"] = "stopped"
    temperature: float = 0.07
    patch_norm: bool = True
    position_interpolation: Interpolation = "bicubic_antialias"
    image_size: int = 240
    alpha: float = 0.0
    top_share: float = 0.01

    def _checks(self) -> list[tuple[bool, str]]:
        return [
            (len(self.scales) > 0 and min(self.scales, default=0) >= 1, "scales must be sides in patches, from 1"),
            (len(set(self.scales)) == len(self.scales), "scales must differ from each other"),
            (self.templates in TEMPLATES, f"templates must be one of {', '.join(TEMPLATES)}"),
            (self.temperature > 0.0, "temperature must be positive"),
            (0.0 <= self.alpha <= 1.0, "alpha must lie in [0, 1]"),
            (0.0 < self.top_share <= 1.0, "top_share must lie in (0, 1]"),
        ]


@dataclass
class WindowTokens(VisionTokens):
    """A vision pass with the windows. windows: scale -> (B, windows, E), projected, not of unit length."""

    windows: dict[int, Tensor] = field(default_factory=dict)


@register("winclip")
class WinClip(Method):
    """WinCLIP on any backbone that has a text tower; with `set_references`, its few-shot variant.

    Nothing is learnt. The memory of reference images is not part of a checkpoint: give the images again.
    """

    config_class = WinClipConfig
    config: WinClipConfig
    summary: ClassVar[str] = "prompt ensemble on windows of two scales; a few normal images make it few-shot"
    uses_category: ClassVar[bool] = True
    takes_references: ClassVar[bool] = True

    def __init__(self, backbone: Backbone, config: WinClipConfig | None = None) -> None:
        super().__init__(backbone, config or WinClipConfig())
        backbone.require_text()
        self._text: dict[str, Tensor] = {}

    @property
    def request(self) -> VisionRequest:
        layers = self.backbone.config.vision.layers
        return VisionRequest(taps=(layers,), interpolation=self.config.position_interpolation)

    def text_vectors(self, categories: Sequence[str] | None = None) -> Tensor:
        """(C, 2, E), one pair for each category (None: the configured one alone); each is computed once.

        Raises:
            InputError: an empty category, or none in the list.
        """
        names = [readable(name) for name in wanted_categories(categories, self.config.category)]
        for name in dict.fromkeys(names):
            if name not in self._text:
                self._text[name] = self._describe(name)
        return torch.stack([self._text[name] for name in names]).to(self.backbone.device)

    def _describe(self, category: str) -> Tensor:
        """(2, E): the mean over templates and states, of sentence vectors that are not of unit length."""
        templates = TEMPLATES[self.config.templates]
        normal, abnormal = (
            compose(category, states, templates) for states in (WINCLIP_NORMAL_STATES, WINCLIP_ABNORMAL_STATES)
        )
        return ensemble_vectors(self.backbone, normal, abnormal, normalise_each=False)

    def tokens(self, pixels: Tensor) -> WindowTokens:
        return self.with_windows(self.backbone.vision(pixels, self.request), pixels)

    def with_windows(self, whole: VisionTokens, pixels: Tensor) -> WindowTokens:
        """Add the tower's view of all windows, scale by scale, to a pass over the same images that met `request`."""
        vision = self.backbone.vision
        embedded, grid = vision.embed(pixels, self.config.position_interpolation)
        check_windows(grid, self.config.scales, self.backbone.config.vision.patch_size)
        windows = {scale: window_vectors(vision, embedded, grid, scale) for scale in self.config.scales}
        return WindowTokens(whole.cls, whole.local, grid, windows=windows)

    def set_references(self, pixels: Tensor | Sequence[Tensor] | None, batch_size: int = 8) -> None:
        """Remember normal images, in place of those remembered so far; scores are few-shot from here on.

        Args:
            pixels: normalised pixels (K, 3, H, W) as `tokens` takes them, or several such where sizes differ; the
                sizes need not be those of the images to judge. None forgets all references.
            batch_size: images a pass.

        Raises:
            InputError: no image, a wrong shape, or images too small for the windows.
        """
        if pixels is None:
            self.memory = None
            return
        with torch.no_grad():
            features = [self._few_shot_features(self.tokens(batch)) for batch in reference_batches(pixels, batch_size)]
        banks = {name: [image for part in features for image in part[name]] for name in features[0]}
        self.memory = ReferenceMemory(banks)

    @property
    def references(self) -> int:
        """How many reference images are remembered; 0 is zero-shot."""
        return self.memory.images if self.memory else 0

    def _few_shot_features(self, tokens: WindowTokens) -> dict[str, Tensor]:
        """Bank -> features: patches (B, N, W) before the projection, and windows (B, windows, E) of each scale."""
        patches = tokens.local[self.backbone.config.vision.layers][:, 1:]
        if self.config.patch_norm:
            patches = self.backbone.vision.ln_post(patches)
        return {"patches": patches, **{f"windows_{scale}": vectors for scale, vectors in tokens.windows.items()}}

    def image_scores(self, tokens: VisionTokens, text: Tensor) -> Tensor:
        """(B,) probability of abnormal from the CLS token."""
        features = self.backbone.vision.project(tokens.cls)
        return similarity(features, text, self.config.temperature)[..., 1]

    def window_scores(self, tokens: WindowTokens, text: Tensor) -> dict[int, Tensor]:
        """Scale -> (B, windows) probabilities of abnormal."""
        return {
            scale: similarity(vectors, text, self.config.temperature)[..., 1]
            for scale, vectors in tokens.windows.items()
        }

    def zero_shot_patches(self, tokens: WindowTokens, text: Tensor) -> Tensor:
        """(B, rows, columns): harmonic mean over the scales, the whole image being the largest of them."""
        whole = self.image_scores(tokens, text)[:, None, None].expand(-1, *tokens.grid)
        windows = self.window_scores(tokens, text)
        return harmonic_mean([whole, *(harmonic_patches(s, tokens.grid, scale) for scale, s in windows.items())])

    def few_shot_patches(self, tokens: WindowTokens) -> Tensor:
        """(B, rows, columns): distance to the references, mean over patches and the windows of each scale.

        Raises:
            InputError: there are no references.
        """
        if self.memory is None:
            raise InputError("no reference images are remembered; call set_references first")
        features = self._few_shot_features(tokens)
        maps = [self.memory.distance("patches", features["patches"]).unflatten(1, tokens.grid)]
        for scale in self.config.scales:
            name = f"windows_{scale}"
            maps.append(harmonic_patches(self.memory.distance(name, features[name]), tokens.grid, scale))
        return torch.stack(maps).mean(dim=0)

    def score(
        self, tokens: VisionTokens, text: Tensor, size: tuple[int, int], output: tuple[int, int] | None = None
    ) -> Scores:
        """Map and score, few-shot where references are remembered; `text` may be (2, E) or (B, 2, E)."""
        if not isinstance(tokens, WindowTokens):
            raise InputError("WinCLIP needs the windows of an image; take tokens from its own `tokens`")
        global_score, patches = self.image_scores(tokens, text), self.zero_shot_patches(tokens, text)
        if self.memory is not None:
            few = self.few_shot_patches(tokens)
            patches = (patches + few) / 2
            global_score = (global_score + few.flatten(1).amax(dim=1)) / 2
        at_tower = grid_to_map(patches, size)
        final = at_tower if output in (None, size) else grid_to_map(patches, size, output=output)
        local_score = top_share_mean(at_tower, self.config.top_share)
        return Scores(final, joint_score(global_score, local_score, self.config.alpha), global_score, local_score)
