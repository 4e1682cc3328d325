"""What a few normal images look like, as banks of feature vectors, and how far other features are from them.

The association of WinCLIP+ (section 4.3), which any method with patch features can use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.errors import InputError

MAX_PRODUCTS = 1 << 24  # cosines held at a time: 64 MB


class ReferenceMemory(nn.Module):
    """Unit vectors of reference images, in banks by name; they move with the module but are in no state dict.

    Args:
        banks: name -> (..., D) vectors of all reference images, of any length and any number.
        images: how many images they came from.
    """

    def __init__(self, banks: Mapping[str, Tensor], images: int) -> None:
        super().__init__()
        self.images = images
        for name, vectors in banks.items():
            unit = F.normalize(vectors.detach().float(), dim=-1).reshape(-1, vectors.shape[-1])  # (M, D)
            self.register_buffer(f"bank_{name}", unit, persistent=False)

    def bank(self, name: str) -> Tensor:
        """(M, D) unit vectors."""
        return self.get_buffer(f"bank_{name}")

    def distance(self, name: str, features: Tensor) -> Tensor:
        """(..., D) features -> (...) distances in [0, 1] to the nearest vector of a bank."""
        return nearest_distance(features, self.bank(name))


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
    """Reference images in any form that `set_references` takes -> batches (b, 3, H, W) of one size,
    b up to `batch_size`.

    Raises:
        InputError: no image at all, or something that is not (K, 3, H, W).
    """
    groups = [pixels] if isinstance(pixels, Tensor) else list(pixels)
    by_size: dict[torch.Size, list[Tensor]] = {}
    for group in groups:
        if group.dim() != 4 or group.shape[1] != 3:
            raise InputError(f"reference images must be pixels (K, 3, H, W), not {tuple(group.shape)}")
        if len(group):
            by_size.setdefault(group.shape[2:], []).append(group)
    if not by_size:
        raise InputError("no reference images; give at least one image of a normal part, or none to run zero-shot")
    return [batch for same in by_size.values() for batch in torch.cat(same).split(batch_size)]
