"""CLIP Surgery (Li et al., 2023): which part of an image each of several texts is about.

The image side is the dual stream of `headclip.clip.vision`; here is its text side, feature surgery, which takes away
what the texts have in common.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.clip.backbone import Backbone
from headclip.clip.vision import Interpolation, VisionRequest


def surgery_tokens(
    backbone: Backbone, pixels: Tensor, blocks: int = 6, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Projected tokens (B, 1 + N, E) of the local stream over the last `blocks` layers, all of them if there are
    fewer; the CLS slot is the global stream's."""
    layers = backbone.config.vision.layers
    csa = (max(1, layers - blocks + 1), layers)
    tokens = backbone.vision(pixels, VisionRequest(csa=csa, taps=(layers,), interpolation=interpolation))
    mixed = torch.cat([tokens.cls[:, None], tokens.local[layers][:, 1:]], dim=1)  # (B, 1 + N, W)
    return backbone.vision.project(mixed)


def feature_surgery(image: Tensor, text: Tensor, scale: float = 2.0) -> Tensor:
    """How much each token is about each text beyond what holds for all of them.

    Args:
        image: (B, 1 + N, E) unit tokens, CLS first. text: (T, E) unit vectors.
        scale: of the softmax that weighs the texts by how well each fits the whole image.

    Returns:
        (B, 1 + N, T) sums over the channels of weighted products from which their mean over the texts is taken.
    """
    fit = (scale * image[:, 0] @ text.T).softmax(dim=-1)  # (B, T)
    weights = fit / fit.mean(dim=-1, keepdim=True)
    products = image[:, :, None] * text * weights[:, None, :, None]  # (B, 1 + N, T, E)
    return (products - products.mean(dim=2, keepdim=True)).sum(dim=-1)


def similarity_maps(values: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Values of tokens (B, 1 + N, T) -> maps (B, *size, T), each scaled to [0, 1] over its patches, then upsampled.

    The scale of every map is its own: they show where, not whether, and are no anomaly scores.
    """
    patches = values[:, 1:]
    low, high = patches.amin(dim=1, keepdim=True), patches.amax(dim=1, keepdim=True)
    scaled = ((patches - low) / (high - low).clamp(min=1e-12)).transpose(1, 2).unflatten(-1, grid)
    return F.interpolate(scaled, size=size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
