"""Patch features of some images, and where each has the likes of a patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_PRODUCTS = 1 << 24  # cosines held at a time: 64 MB


@dataclass(frozen=True)
class Likes:
    """What each of K images has of n patches. distance: to the nearest patch, (n, K); place: in the bank, (n, K)."""

    distance: Tensor
    place: Tensor


class PatchBank(nn.Module):
    """Unit vectors of the patches of K images; they move with the module and are in no state dict.

    Args:
        features: one (N, D) an image, of any length and number.
    """

    def __init__(self, features: Sequence[Tensor]) -> None:
        super().__init__()
        self.lengths = [len(image) for image in features]
        unit = F.normalize(torch.cat([image.detach().float() for image in features]), dim=-1)  # (M, D)
        self.register_buffer("vectors", unit, persistent=False)

    @cached_property
    def among(self) -> list[Likes]:
        """What they have of one another, an entry each; every image has itself, too."""
        return [self.likes(image) for image in self.get_buffer("vectors").split(self.lengths)]

    def likes(self, unit: Tensor) -> Likes:
        """(n, D) unit vectors of one image -> what each image of the bank has of them."""
        rows = max(1, MAX_PRODUCTS // len(self.get_buffer("vectors")))
        place = torch.cat([self._closest(part) for part in unit.split(rows)])
        distances = [between(unit, self.get_buffer("vectors").index_select(0, column)) for column in place.T]
        return Likes(torch.stack(distances, dim=1), place)

    def _closest(self, unit: Tensor) -> Tensor:
        """(n, K): the place in the bank of each image's patch with the largest cosine."""
        products = (unit @ self.get_buffer("vectors").T).split(self.lengths, dim=1)
        first = torch.tensor([0, *self.lengths[:-1]], device=unit.device).cumsum(dim=0)
        return torch.stack([image.argmax(dim=1) for image in products], dim=1) + first


def between(one: Tensor, other: Tensor) -> Tensor:
    """(..., D) each -> (...): their distances, by differences: a small one is lost in a cosine's rounding."""
    return torch.linalg.vector_norm(one - other, dim=-1)
