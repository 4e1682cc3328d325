"""What a few normal images look like, as banks of feature vectors, and how far other features are from them.

The association of WinCLIP+ (section 4.3), which any method with patch features can use.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.errors import InputError

MAX_PRODUCTS = 1 << 24  # cosines held at a time: 64 MB


class ReferenceMemory(nn.Module):
    """Unit vectors of reference images, in banks by name; they move with the module but are in no state dict.

    Args:
        banks: name -> for each reference image its vectors, (..., D), of any length and any number.
    """

    def __init__(self, banks: Mapping[str, Sequence[Tensor]]) -> None:
        super().__init__()
        self._rows: dict[str, list[int]] = {}
        for name, images in banks.items():
            vectors = [image.detach().float().reshape(-1, image.shape[-1]) for image in images]
            self._rows[name] = [len(image) for image in vectors]
            self.register_buffer(f"bank_{name}", F.normalize(torch.cat(vectors), dim=-1), persistent=False)  # (M, D)

    @property
    def images(self) -> int:
        """How many images they came from."""
        return max(len(rows) for rows in self._rows.values())

    def bank(self, name: str) -> Tensor:
        """(M, D) unit vectors."""
        return self.get_buffer(f"bank_{name}")

    def distance(self, name: str, features: Tensor) -> Tensor:
        """(..., D) features -> (...) distances in [0, 1] to the nearest vector of a bank."""
        return nearest_distance(features, self.bank(name))

    def without(self, places: Collection[int]) -> ReferenceMemory:
        """As if the images at these places had never been given.

        Raises:
            InputError: none is left.
        """
        kept = [place for place in range(self.images) if place not in places]
        if not kept:
            raise InputError(f"none of {self.images} reference image(s) is left to compare with; give more")
        banks = {name: self.bank(name).split(rows) for name, rows in self._rows.items()}
        return ReferenceMemory({name: [parts[place] for place in kept] for name, parts in banks.items()})


def nearest_distance(features: Tensor, bank: Tensor) -> Tensor:
    """Smallest (1 - cosine) / 2 between each feature and the vectors of a bank.

    Args:
        features: (..., D), any length.
        bank: (M, D) unit vectors.

    Returns:
        (...) in [0, 1]; 0 for a feature that points the same way as one of the bank.
    """
    unit = F.normalize(features.float(), dim=-1).flatten(0, -2)  # (Q, D)
    rows = max(1, MAX_PRODUCTS // len(bank))
    highest = torch.cat([(part @ bank.T).amax(dim=1) for part in unit.split(rows)])
    return ((1 - highest) / 2).clamp(min=0).view(features.shape[:-1])  # rounding takes equal vectors below 0


def reference_batches(pixels: Tensor | Sequence[Tensor], batch_size: int) -> list[Tensor]:
    """Reference images in any form that `set_references` takes -> batches (b, 3, H, W) of one size, b up to
    `batch_size`, in the order in which they were given.

    Raises:
        InputError: no image at all, or something that is not (K, 3, H, W).
    """
    batches: list[list[Tensor]] = []
    for group in [pixels] if isinstance(pixels, Tensor) else pixels:
        if group.dim() != 4 or group.shape[1] != 3:
            raise InputError(f"reference images must be pixels (K, 3, H, W), not {tuple(group.shape)}")
        for image in group:
            if not batches or len(batches[-1]) == batch_size or batches[-1][0].shape != image.shape:
                batches.append([])
            batches[-1].append(image)
    if not batches:
        raise InputError("no reference images; give at least one image of a normal part, or none to run zero-shot")
    return [torch.stack(batch) for batch in batches]
