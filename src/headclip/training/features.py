"""Frozen features kept in memory, so that the tower runs once an image rather than once an epoch.

What a method learns comes after the head outputs of the CSA layers (HeadCLIP 3.3: the local stream is linear in the
head weights, the global one never sees them), so they, the stream that enters the first CSA layer and the CLS token
are all that later epochs need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from headclip.clip.vision import VisionRequest, VisionTokens, VisionTower


class FeatureStore:
    """Features of images by their number in the training set, in half precision on the CPU.

    Half precision keeps three decimals: training from the store agrees with training without it to that, not to the
    last bit.
    """

    def __init__(self, dtype: torch.dtype = torch.float16) -> None:
        self.dtype = dtype
        self._kept: dict[int, VisionTokens] = {}

    def has(self, numbers: list[int]) -> bool:
        """Whether all these images are kept."""
        return all(number in self._kept for number in numbers)

    def put(self, numbers: list[int], tokens: VisionTokens) -> None:
        """Keep each image of a batch; `tokens` come from a pass with `keep_heads`."""
        for row, number in enumerate(numbers):
            self._kept[number] = each_tensor(tokens, self._row(row))

    def _row(self, row: int) -> Callable[[Tensor], Tensor]:
        return lambda tensor: tensor[row].to("cpu", self.dtype)

    def get(self, numbers: list[int], device: torch.device, dtype: torch.dtype) -> VisionTokens:
        """A batch of kept images."""
        rows = [self._kept[number] for number in numbers]
        first = rows[0]

        def stack(tensors: list[Tensor]) -> Tensor:
            return torch.stack(tensors).to(device, dtype)

        return replace(
            first,
            cls=stack([row.cls for row in rows]),
            local={tap: stack([row.local[tap] for row in rows]) for tap in first.local},
            heads={layer: stack([row.heads[layer] for row in rows]) for layer in first.heads},
            base=None if first.base is None else stack([row.base for row in rows if row.base is not None]),
        )

    @property
    def bytes(self) -> int:
        """Memory in use."""
        total = 0
        for row in self._kept.values():
            tensors = [row.cls, *row.local.values(), *row.heads.values(), *([] if row.base is None else [row.base])]
            total += sum(tensor.nbytes for tensor in tensors)
        return total


def each_tensor(tokens: VisionTokens, change: Callable[[Tensor], Tensor]) -> VisionTokens:
    """The same tokens with `change` applied to every tensor."""
    return replace(
        tokens,
        cls=change(tokens.cls),
        local={tap: change(value) for tap, value in tokens.local.items()},
        heads={layer: change(value) for layer, value in tokens.heads.items()},
        base=None if tokens.base is None else change(tokens.base),
    )


def frozen_pass(tower: VisionTower, pixels: Tensor, request: VisionRequest) -> VisionTokens:
    """One pass without gradients that keeps what `VisionTower.accumulate` needs, and nothing that it makes anew."""
    assert request.csa is not None
    first = request.csa[0]
    with torch.no_grad():
        tokens = tower(pixels, replace(request, keep_heads=True))
    return replace(tokens, local={tap: value for tap, value in tokens.local.items() if tap < first})
