"""Square tiles over an image of any aspect ratio, and copies of an image seen from elsewhere.

AnoVL's published code cuts a landscape image into a left and a right square. Here a longer image takes as many squares
as cover it, and a portrait one is cut from top to bottom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SMALL_TURNS = tuple(sign * step * math.pi / 16 for sign in (-1, 1) for step in (1, 2, 3, 4))
RIGHT_TURNS = (math.pi / 2, math.pi, 3 * math.pi / 2)
SHIFTS = tuple((x * far, y * far) for far in (0.2, 0.1) for x in (-1, 1) for y in (-1, 1))  # of half a side
GREY = (0.299, 0.587, 0.114)
COPIES = 1 + len(SMALL_TURNS) + len(SHIFTS) + 1 + 1 + len(RIGHT_TURNS)


@dataclass(frozen=True)
class Tiles:
    """Where the tiles of an image lie. size: of the image, tile: of each tile, both (H, W) in pixels.

    corners: row and column of each tile's first pixel.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    corners: tuple[tuple[int, int], ...]

    @classmethod
    def whole(cls, size: tuple[int, int]) -> Tiles:
        """The image as its only tile."""
        return cls(size, size, ((0, 0),))

    @classmethod
    def squares(cls, size: tuple[int, int]) -> Tiles:
        """As few squares of the shorter side as cover the image, evenly spaced: two up to an aspect of 2 : 1.

        >>> Tiles.squares((70, 97)).corners
        ((0, 0), (0, 27))
        >>> Tiles.squares((170, 70)).corners
        ((0, 0), (50, 0), (100, 0))
        """
        side, length = min(size), max(size)
        count = math.ceil(length / side)
        offsets = [round(i * (length - side) / max(1, count - 1)) for i in range(count)]
        portrait = size[0] > size[1]
        return cls(size, (side, side), tuple((at, 0) if portrait else (0, at) for at in offsets))

    def cut(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, tiles, C, h, w)."""
        height, width = self.tile
        return torch.stack([pixels[..., y : y + height, x : x + width] for y, x in self.corners], dim=1)

    def join(self, maps: Tensor) -> Tensor:
        """(B, tiles, C, h, w) -> (B, C, H, W), the average where tiles overlap."""
        if self.corners == ((0, 0),):
            return maps[:, 0]
        total = maps.new_zeros(len(maps), maps.shape[2], *self.size)
        cover = maps.new_zeros(self.size)
        height, width = self.tile
        for index, (y, x) in enumerate(self.corners):
            total[..., y : y + height, x : x + width] += maps[:, index]
            cover[y : y + height, x : x + width] += 1
        return total / cover


def moved(pixels: Tensor, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """Images (B, C, H, W) turned about their centre by `angle` (radians) and shifted by a share of half their width
    and height; what comes in from outside is mirrored. A turn keeps shapes whatever the aspect ratio."""
    height, width = pixels.shape[-2:]
    aspect = (height - 1) / max(1, width - 1)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = [[cos, -sin * aspect, shift[0]], [sin / max(aspect, 1e-6), cos, shift[1]]]
    theta = torch.tensor(matrix, device=pixels.device).expand(len(pixels), 2, 3)
    where = F.affine_grid(theta, list(pixels.shape), align_corners=True)
    return F.grid_sample(pixels.float(), where, padding_mode="reflection", align_corners=True).to(pixels.dtype)


def augmented_copies(pixels: Tensor) -> Tensor:
    """The 22 views over which AnoVL averages the image score: (B, 3, H, W) -> (B, 22, 3, H, W), the image itself first.

    Eight turns up to 45 degrees, eight shifts, the mirror image, the grey image, and three right angles.
    """
    weights = torch.tensor(GREY, device=pixels.device, dtype=pixels.dtype)[:, None, None]
    grey = (pixels * weights).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    views = [pixels]
    views += [moved(pixels, angle) for angle in SMALL_TURNS]
    views += [moved(pixels, shift=shift) for shift in SHIFTS]
    views += [pixels.flip(-1), grey]
    views += [moved(pixels, angle) for angle in RIGHT_TURNS]
    return torch.stack(views, dim=1)
