"""From a decoded image to the pixels that enter the vision tower."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from headclip.errors import InputError

Resampler = Literal["torch", "pil"]

MOST_STRETCH = 4
"""Aspects beyond this : 1 are cut to it where the aspect is kept."""


def input_size(
    height: int, width: int, *, image_size: int, patch: int, keep_aspect: bool = False, least_side: float = 0.0
) -> tuple[int, int]:
    """Size in pixels at which an image enters the tower; both sides are multiples of `patch`.

    Args:
        image_size: side of the square, or with `keep_aspect` the side of a square of the same area.
        keep_aspect: keep height : width (rounded to whole patches) rather than squeezing into a square; aspects
            beyond MOST_STRETCH : 1 are cut to it.
        least_side: with `keep_aspect`, what share of `image_size` the short side has at least, in [0, 1]; longer
            pictures get more patches for it, and so more time.

    >>> input_size(500, 1260, image_size=256, patch=16, keep_aspect=True)
    (160, 400)
    >>> input_size(500, 1260, image_size=256, patch=16, keep_aspect=True, least_side=0.75)
    (192, 480)
    >>> input_size(500, 1260, image_size=518, patch=14)
    (518, 518)

    Raises:
        InputError: `image_size` is smaller than one patch.
    """
    if image_size < patch:
        raise InputError(f"image size {image_size} is smaller than one patch of {patch} px")
    side = max(patch, round(image_size / patch) * patch)
    if not keep_aspect:
        return side, side
    aspect = min(max(width / height, 1 / MOST_STRETCH), MOST_STRETCH)
    rows = max(1, round(side / patch / aspect**0.5))
    columns = max(1, round(side / patch * aspect**0.5))
    least = least_patches(image_size, patch, least_side)
    if min(rows, columns) < least:
        short, long = min(height, width), max(height, width)
        more = (2 * least * min(long, MOST_STRETCH * short) + short) // (2 * short)
        rows, columns = (least, more) if height < width else (more, least)
    return rows * patch, columns * patch


def least_patches(image_size: int, patch: int, least_side: float) -> int:
    """How many patches the short side has at least; see `input_size`."""
    return round(least_side * image_size / patch)


def resize(image: np.ndarray | Tensor, size: tuple[int, int], resampler: Resampler = "torch") -> Tensor:
    """(H, W, 3) array or (3, H, W) tensor of uint8 -> (3, *size) uint8, bicubic with antialiasing.

    "pil" gives Pillow's own bits, which the published codes use; "torch" differs by at most a level or so and is
    several times faster.
    """
    if resampler == "pil":
        array = image if isinstance(image, np.ndarray) else image.permute(1, 2, 0).numpy()
        small = Image.fromarray(array).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1)
    if isinstance(image, np.ndarray):
        tensor = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)
    else:
        tensor = image
    if tuple(tensor.shape[-2:]) == size:
        return tensor
    return F.interpolate(tensor[None], size=size, mode="bicubic", antialias=True)[0]


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype) -> Tensor:
    """(B, 3, H, W) uint8 -> pixels of the tower, (value / 255 - mean) / std for each channel."""
    shift = torch.tensor(mean, device=images.device)[:, None, None]
    scale = torch.tensor(std, device=images.device)[:, None, None]
    return ((images.float() / 255 - shift) / scale).to(dtype)


def resize_mask(mask: np.ndarray | Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) bool -> (*size) bool as the published codes do it: Pillow's bilinear on 0 and 255, then above half."""
    array = np.asarray(mask, dtype=np.uint8) * 255
    if array.shape == size:
        return torch.from_numpy(array > 127)
    small = Image.fromarray(array).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small, dtype=np.float32) / 255 > 0.5)
