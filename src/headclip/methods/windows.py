"""Square windows of patches as small images of their own, and back from windows to patches (WinCLIP, section 4.2).

Windows lie on the patch grid at stride 1. A window is encoded by running the whole tower over the CLS token and the
window's patches alone, so that it cannot see its surroundings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.clip.vision import VisionTower, advance
from headclip.errors import InputError

MAX_TOKENS = 16_384  # in one go; bounds the hidden layer of the MLP to some 0.25 GB at ViT-B size


def check_windows(grid: tuple[int, int], scales: Sequence[int], patch: int) -> None:
    """Raise InputError where a window of `scales` (sides in patches) does not fit into `grid` (rows, columns)."""
    largest = max(scales)
    if min(grid) < largest:
        raise InputError(
            f"windows of {largest} x {largest} patches do not fit into {grid[0]} x {grid[1]} patches of {patch} px; "
            f"choose an image size of at least {largest * patch} px for the shorter side, or smaller windows"
        )


def window_indices(grid: tuple[int, int], scale: int) -> Tensor:
    """(windows, scale * scale) patch numbers, row by row from 0, of each window; windows in the same order."""
    rows, columns = grid
    numbers = torch.arange(rows * columns).view(rows, columns)
    windows = numbers.unfold(0, scale, 1).unfold(1, scale, 1)  # (rows - s + 1, columns - s + 1, s, s)
    return windows.reshape(-1, scale * scale)


def window_vectors(vision: VisionTower, embedded: Tensor, grid: tuple[int, int], scale: int) -> Tensor:
    """One vector for each window, in the space shared with text.

    Args:
        embedded: (B, 1 + N, W) tokens that enter layer 1 (`VisionTower.embed`): patches with the position
            embeddings of their place in the whole image. The norm before layer 1 looks at one token at a time, so it
            does not matter that it came before the cut.
        scale: side of a window in patches.

    Returns:
        (B, windows, E), not of unit length.
    """
    indices = window_indices(grid, scale).to(embedded.device)
    count, length = len(indices), 1 + scale * scale
    with_cls = torch.cat([torch.zeros_like(indices[:, :1]), indices + 1], dim=1)  # (windows, 1 + s * s)
    pairs = torch.arange(len(embedded) * count, device=embedded.device)  # every window of every image
    parts = []
    for chosen in pairs.split(max(1, MAX_TOKENS // length)):
        cut = embedded[(chosen // count)[:, None], with_cls[chosen % count]]  # (chosen, 1 + s * s, W)
        parts.append(vision.project(cls_after_all_layers(vision, cut)))
    return torch.cat(parts).unflatten(0, (len(embedded), count))  # (B, windows, E)


def cls_after_all_layers(vision: VisionTower, x: Tensor) -> Tensor:
    """Tokens that enter layer 1, (B, n, W), CLS first -> the CLS token after the last layer, (B, W)."""
    for layer, block in enumerate(vision.blocks, start=1):
        cls_only = layer == len(vision.blocks)
        x = advance(block, x, *block.attn.project(block.ln_1(x), cls_only), cls_only)
    return x[:, 0]


def harmonic_patches(scores: Tensor, grid: tuple[int, int], scale: int) -> Tensor:
    """For each patch the harmonic mean of the scores of all windows that cover it.

    A score of zero makes the mean zero: one window that finds a patch normal decides.

    Args:
        scores: (B, windows), not negative, in the order of `window_indices`.

    Returns:
        (B, rows, columns)
    """
    field = (1 / scores.float()).unflatten(1, (grid[0] - scale + 1, grid[1] - scale + 1)).unsqueeze(1)
    # A window at (r, c) covers the patches from (r, c) to (r + s - 1, c + s - 1); seen from a patch, its windows
    # are the s x s ones above and to the left of it, and zeros stand where there is none.
    both = torch.cat([field, torch.ones_like(field[:1])])
    sums = F.avg_pool2d(F.pad(both, [scale - 1] * 4), scale, stride=1)[:, 0]  # (B + 1, rows, columns) over s * s
    return sums[-1:] / sums[:-1]


def harmonic_mean(maps: Sequence[Tensor]) -> Tensor:
    """Element by element over maps of equal shape; zero where one of them is zero."""
    return len(maps) / torch.stack([1 / values for values in maps]).sum(dim=0)
