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
        parts = [self._closest(part) for part in unit.split(rows)]
        cosine, place = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        return Likes((2 - 2 * cosine).clamp(min=0).sqrt(), place)

    def _closest(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """(n, K) each: the largest cosine with a patch of each image, and that patch's place in the bank."""
        best = [image.max(dim=1) for image in (unit @ self.get_buffer("vectors").T).split(self.lengths, dim=1)]
        first = torch.tensor([0, *self.lengths[:-1]], device=unit.device).cumsum(dim=0)
        places = torch.stack([one.indices for one in best], dim=1) + first
        return torch.stack([one.values for one in best], dim=1), places
