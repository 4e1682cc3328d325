"""Terms of the pretraining loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.training.losses import dice_loss


@dataclass
class PretrainLosses:
    total: Tensor
    contrast: Tensor
    patch: Tensor
    pair: Tensor
    teacher: Tensor


def unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=-1)


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, captions: list[str]) -> Tensor:
    """CLIP's symmetric cross-entropy over a batch of unit vectors (B, E); equal captions are not told apart."""
    logits = scale * images @ texts.T
    kinds = {caption: number for number, caption in enumerate(captions)}
    kind = torch.tensor([kinds[caption] for caption in captions], device=logits.device)
    same = (kind[:, None] == kind).float()
    targets = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def patch_targets(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, H, W) bool -> (B, rows, columns) in [0, 1]: the share of a patch that is defect, times 4, at most 1."""
    coverage = F.adaptive_avg_pool2d(masks[:, None].float(), grid)[:, 0]
    return (4 * coverage).clamp(max=1)


def patch_loss(
    logits: Tensor, masks: Tensor, grid: tuple[int, int], defect_weight: float, dice_weight: float
) -> Tensor:
    """Cross-entropy, where defects weigh more, plus Dice if wanted; logits (B, N, P) of abnormal against normal.

    On a picture without a defect, Dice pushes every patch down however low it is, and drowns the rest.
    """
    target = patch_targets(masks, grid)
    logits = logits.movedim(-1, 0).unflatten(-1, grid)  # (P, B, rows, columns)
    repeated = target.expand_as(logits)
    heavier = torch.tensor(defect_weight, device=logits.device)
    entropy = F.binary_cross_entropy_with_logits(logits, repeated, pos_weight=heavier)
    if dice_weight == 0:
        return entropy
    return entropy + dice_weight * dice_loss(logits.sigmoid().flatten(0, 1), repeated.flatten(0, 1))
