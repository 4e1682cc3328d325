"""Terms of the pretraining loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.training.losses import dice_loss

TOP_SHARE = 0.01  # of a picture's patches, whose mean ranks it: the share that the joint anomaly score reads


@dataclass
class PretrainLosses:
    total: Tensor
    contrast: Tensor
    patch: Tensor
    pair: Tensor
    rank: Tensor
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


def ranking_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """How often a sound picture's top patches stand above a defective one's, smoothly: a surrogate of 1 - AUROC.

    The patch term asks where a defect is; this one whether there is any, as the joint anomaly score will. Every pair of
    a defective and a sound picture of the batch counts once, so that no threshold has to be learnt.

    Args:
        logits: (B, N, P) of abnormal against normal, for each patch and pair of sentences.
        labels: (B,), 1 for a picture with a defect.

    Returns:
        A scalar, log 2 where nothing is told apart; 0 for a batch of one kind.
    """
    count = max(1, round(TOP_SHARE * logits.shape[1]))
    tops = logits.topk(count, dim=1).values.mean(dim=1)  # (B, P)
    defective = labels > 0
    margins = tops[defective][:, None] - tops[~defective]  # (defective, sound, P)
    return F.softplus(-margins).mean() if margins.numel() else logits.sum() * 0
