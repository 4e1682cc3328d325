"""Frozen vision towers whose linear layers are laid out for the processor's own matrix products.

On x86 processors with AVX-512, oneDNN multiplies by weights that lie in its own order quicker than PyTorch's default
product does by rows of them: by a sixth in fp32 and a twelfth in bf16 at ViT-L's sizes (benchmarks/inference.py). The
values are the same and can be had back; products differ in rounding alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.clip.attention import is_learning
from headclip.clip.blocks import ROWS, Mlp, written_over
from headclip.clip.hardware import give_back_memory, has_fast_bf16, has_packed_products
from headclip.clip.vision import VisionTower


class PackedLinear(nn.Module):
    """A linear layer that no longer learns. The state that it gives is that of `nn.Linear`."""

    bias: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.register_buffer("bias", linear.bias.detach())

    @property
    def weight(self) -> Tensor:
        """(out, in): a copy in the usual order."""
        return self._packed.to_dense()

    def forward(self, x: Tensor, some: slice = slice(None)) -> Tensor:
        """(..., in) -> (..., out); `some` picks output channels. Gradients flow to `x` where it wants them."""
        if some != slice(None) or is_learning(x):
            return F.linear(x, self.weight[some], self.bias[some])
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight

    def unpacked(self) -> nn.Linear:
        """The layer that it was."""
        weight = self.weight
        linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        linear.weight, linear.bias = (nn.Parameter(x, requires_grad=False) for x in (weight, self.bias))
        return linear


class PackedMlp(nn.Module):
    """The feed-forward network of a block, some tokens at a time from end to end."""

    def __init__(self, mlp: Mlp) -> None:
        super().__init__()
        self.fc, self.proj = PackedLinear(mlp.fc), PackedLinear(mlp.proj)
        self.activation = mlp.activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        if is_learning(x):
            return self.proj(self.activation(self.fc(x)))
        activation = written_over(self.activation)
        flat = x.reshape(-1, x.shape[-1])  # (B * N, W)
        parts = [self.proj(activation(self.fc(part))) for part in flat.chunk(-(-len(flat) // ROWS))]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view_as(x)

    def unpacked(self) -> Mlp:
        """The network that it was."""
        with torch.device("meta"):
            mlp = Mlp(1, 1, "gelu")
        mlp.fc, mlp.proj, mlp.activation = self.fc.unpacked(), self.proj.unpacked(), self.activation
        return mlp


def is_packed(tower: VisionTower) -> bool:
    """Whether `pack_tower` has been here."""
    return isinstance(tower.blocks[0].mlp, PackedMlp)


@torch.no_grad()
def pack_tower(tower: VisionTower) -> VisionTower:
    """Lay out the linear layers of all blocks for the processor, in place, where that pays and nothing learns.

    The last block's queries, keys and values stay as they are: parts of them are wanted there.
    """
    if is_packed(tower) or not _can_be_packed(tower):
        return tower
    for block in tower.blocks:
        if block is not tower.blocks[-1]:
            block.attn.qkv = PackedLinear(block.attn.qkv)  # type: ignore[assignment]
        block.attn.out = PackedLinear(block.attn.out)  # type: ignore[assignment]
        block.mlp = PackedMlp(block.mlp)  # type: ignore[assignment]
    give_back_memory()
    return tower


def _can_be_packed(tower: VisionTower) -> bool:
    if tower.projection.device.type != "cpu" or not has_packed_products():
        return False
    if tower.projection.dtype == torch.bfloat16 and not has_fast_bf16(tower.projection.device):
        return False
    if tower._compiled_call_impl is not None:  # torch.compile was given the layers as they are
        return False
    plain = isinstance(tower.blocks[0].mlp, Mlp)  # and not one of 8-bit integers
    exact = tower.projection.dtype in (torch.float32, torch.bfloat16)
    return plain and exact and not any(value.requires_grad for value in tower.parameters())


@torch.no_grad()
def unpack_tower(tower: VisionTower) -> VisionTower:
    """Undo `pack_tower`, in place, to the last bit."""
    if not is_packed(tower):
        return tower
    for block in tower.blocks:
        for name in ("qkv", "out"):
            layer = getattr(block.attn, name)
            if isinstance(layer, PackedLinear):
                setattr(block.attn, name, layer.unpacked())
        if isinstance(block.mlp, PackedMlp):
            block.mlp = block.mlp.unpacked()
    return tower
