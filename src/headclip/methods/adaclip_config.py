"""Settings of AdaCLIP."""

from __future__ import annotations

from dataclasses import dataclass

from headclip.clip.blocks import ACTIVATIONS
from headclip.clip.config import Activation
from headclip.clip.vision import Interpolation
from headclip.methods.adaclip_fusion import Clustering
from headclip.methods.settings import MethodConfig


@dataclass(frozen=True)
class AdaClipConfig(MethodConfig):
    """Settings of AdaCLIP; the defaults are the published ones. Layers count from 1.

    category: what the images show, where a call names nothing better.
    depth: prompted layers of each tower: 1 to depth in the vision tower, 2 to depth in the text tower; None takes 4,
        or all of a shallower tower.
    length: tokens of a prompt.
    vision_prompts, text_prompts, static, dynamic: which towers are prompted, and with which kinds.
    taps: layers whose patches are read, in the order of their projections; None takes 6, 12, 18 and 24, scaled to the
        depth of the tower.
    fusion: hybrid semantic fusion; fusion_share is its part in the image vector, clusters its number of clusters.
    clustering: "torch" is this library's k-means, "sklearn" scikit-learn's, if installed.
    activation: None is the backbone's own. The published code runs OpenAI's weights, made for quick_gelu, with "gelu".
    prompt_half: round prompts to fp16 as the published code does.
    underscores: leave `_` in category names as the published code does; `-` always becomes a space.
    alpha, top_share: the joint anomaly score of HeadCLIP (equations 7 and 8) as an option; 0 is AdaCLIP's own score.
    """

    category: str = "object"
    depth: int | None = None
    length: int = 5
    vision_prompts: bool = True
    text_prompts: bool = True
    static: bool = True
    dynamic: bool = True
    taps: tuple[int, ...] | None = None
    fusion: bool = True
    fusion_share: float = 0.2
    clusters: int = 20
    clustering: Clustering = "torch"
    temperature: float = 0.01
    sigma: float = 4.0
    activation: Activation | None = "gelu"
    prompt_half: bool = True
    underscores: bool = True
    position_interpolation: Interpolation = "bicubic"
    image_size: int = 518
    alpha: float = 0.0
    top_share: float = 0.01
    seed: int | None = 111

    def _checks(self) -> list[tuple[bool, str]]:
        prompted = self.vision_prompts or self.text_prompts
        return [
            (self.static or self.dynamic or not prompted, "prompts must be static, dynamic or both"),
            (self.length >= 1, "length must be at least 1 token"),
            (self.depth is None or self.depth >= 1, "depth must be at least 1 layer"),
            (0.0 <= self.fusion_share <= 1.0, "fusion_share must lie in [0, 1]"),
            (self.clusters >= 1, "clusters must be at least 1"),
            (self.clustering in ("torch", "sklearn"), "clustering must be torch or sklearn"),
            (self.activation in (None, *ACTIVATIONS), f"activation must be one of {', '.join(ACTIVATIONS)}"),
            (self.temperature > 0.0, "temperature must be positive"),
            (self.sigma >= 0.0, "sigma must not be negative"),
            (0.0 <= self.alpha <= 1.0, "alpha must lie in [0, 1]"),
            (0.0 < self.top_share <= 1.0, "top_share must lie in (0, 1]"),
        ]
