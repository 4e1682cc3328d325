"""The training objective: equations 10 and 11, with the focal and dice losses of the AnomalyCLIP code base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

FOCAL_CLAMP = 1e-5

PixelLoss = Literal["focal_dice", "cross_entropy"]

DEFECT_WEIGHT = 16.0
"""How many normal pixels a defective one counts in the pixel cross-entropy: defects cover a few percent."""


def focal_loss(probabilities: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss on probabilities, mean over all pixels.

    Args:
        probabilities: (B, 2, H, W), order normal, abnormal, summing to 1.
        target: (B, H, W) in {0, 1}.
    """
    abnormal = target.float().clamp(FOCAL_CLAMP, 1 - FOCAL_CLAMP)
    normal = (1 - target.float()).clamp(FOCAL_CLAMP, 1 - FOCAL_CLAMP)
    truth = normal * probabilities[:, 0] + abnormal * probabilities[:, 1] + FOCAL_CLAMP
    return (-((1 - truth) ** gamma) * truth.log()).mean()


def dice_loss(probability: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """One minus the mean over images of the soft Dice coefficient; both arguments (B, H, W)."""
    p, y = probability.flatten(1), target.float().flatten(1)
    overlap = 2 * (p * y).sum(dim=1) + smooth
    return 1 - (overlap / (p.sum(dim=1) + y.sum(dim=1) + smooth)).mean()


def local_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """Equation 10 for one map: focal + dice(abnormal, mask) + dice(normal, 1 - mask)."""
    return (
        focal_loss(probabilities, target)
        + dice_loss(probabilities[:, 1], target)
        + dice_loss(probabilities[:, 0], 1 - target.float())
    )


def pixel_cross_entropy(probabilities: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of one map, mean over all pixels, where a defective pixel counts DEFECT_WEIGHT times.

    Unlike equation 10 it does not saturate: focal and Dice let go of a pixel once it is on the right side, which
    drives the map to 0 and 1 and costs the order of the pixels between. Arguments as for `focal_loss`.
    """
    logs = probabilities.clamp(min=FOCAL_CLAMP).log()  # (B, 2, H, W)
    truth = torch.where(target > 0, DEFECT_WEIGHT * logs[:, 1], logs[:, 0])
    return -truth.mean()


@dataclass
class LossParts:
    """total = weight * local + image; `local` is kept before its weight."""

    total: Tensor
    local: Tensor
    image: Tensor


def image_loss(logits: Tensor, labels: Tensor, kind: Literal["cross_entropy", "focal"] = "cross_entropy") -> Tensor:
    """Loss of the image logits (B, 2), order normal, abnormal, with labels (B,) 0 or 1."""
    if kind == "cross_entropy":
        return F.cross_entropy(logits, labels)
    return focal_loss(logits.softmax(dim=-1)[:, :, None, None], labels[:, None, None])


def joint_loss(
    logits: Tensor,
    maps: list[Tensor],
    labels: Tensor,
    masks: Tensor,
    local_weight: float,
    tap_mean: bool = False,
    kind: Literal["cross_entropy", "focal"] = "cross_entropy",
    pixel: PixelLoss = "focal_dice",
    shares: tuple[float, float] = (1.0, 1.0),
) -> LossParts:
    """Equation 11.

    Args:
        logits: (B, 2) image logits, order normal, abnormal.
        maps: per tap, (M, 2, H, W) probabilities of the M images with known masks, at the masks' resolution; an
            empty list, or images without masks, leave the image loss alone.
        labels: (B,) 0 or 1. masks: (M, H, W) 0 or 1.
        local_weight: factor of the pixel part (A18).
        tap_mean: average the taps' losses rather than adding them (A2).
        kind: of the image loss. pixel: equation 10, or a plain cross-entropy in its place.
        shares: where several processes have a part of a batch each, the share of its images that these are, and of
            its images with known masks that these M are. All losses are means over images, so that the results of
            the parts, each with its shares, add up to that of the whole batch.
    """
    image = shares[0] * image_loss(logits, labels, kind)
    of_map = local_loss if pixel == "focal_dice" else pixel_cross_entropy
    parts = [of_map(probabilities, masks) for probabilities in maps if len(masks)] or [logits.new_zeros(())]
    local = shares[1] * (torch.stack(parts).mean() if tap_mean else torch.stack(parts).sum())
    return LossParts(local_weight * local + image, local, image)
