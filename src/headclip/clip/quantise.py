"""8-bit vision towers: weights and activations of all linear layers as integers, without any calibration images.

Weights have one scale for each output channel, activations one for each token, found as it passes (dynamic W8A8).
Products are exact sums of integers; norms, attention, the patch embedding and the last projection stay in floating
point. The error that this makes in maps and scores depends on the weights: `benchmarks/int8.py` measures it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headclip.clip.blocks import ROWS, Mlp, written_over
from headclip.clip.hardware import give_back_memory, has_fast_int8
from headclip.clip.vision import VisionTower
from headclip.errors import InputError

LEVELS = 127  # symmetric: -127 to 127


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(n, K) -> int8 values of the same shape and float32 scales (n, 1), so that values * scales is x nearly."""
    scales = x.abs().amax(dim=1, keepdim=True).float().clamp_min_(1e-20).div_(LEVELS)
    return (x * scales.reciprocal()).round_().to(torch.int8), scales


class QuantisedLinear(nn.Module):
    """A linear layer on 8-bit integers; the result has the dtype of what enters.

    Buffers: values (out, in) int8; scales and bias (out,) float32. Nothing of it learns.
    """

    values: Tensor
    scales: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        values, scales = quantise_rows(linear.weight.detach().float())
        bias = torch.zeros(len(values)) if linear.bias is None else linear.bias.detach().float().clone()
        self.register_buffer("values", values)
        self.register_buffer("scales", scales[:, 0])
        self.register_buffer("bias", bias)

    @property
    def weight(self) -> Tensor:
        """(out, in) float32: the weights as rounded, for code that reads them."""
        return self.values.float() * self.scales[:, None]

    def product(self, x: Tensor, some: slice = slice(None)) -> Tensor:
        """(n, in) -> (n, out) float32; `some` picks output channels."""
        values, scales = quantise_rows(x)
        found = torch._int_mm(values, self.values[some].t()).float().mul_(scales)
        return torch.addcmul(self.bias[some], found, self.scales[some], out=found)

    def forward(self, x: Tensor, some: slice = slice(None)) -> Tensor:
        """(..., in) -> (..., out)."""
        flat = x.reshape(-1, x.shape[-1])
        parts = [self.product(part, some).to(x.dtype) for part in flat.split(ROWS)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).unflatten(0, x.shape[:-1])


class QuantisedMlp(nn.Module):
    """The feed-forward network of a block, some tokens at a time from end to end."""

    def __init__(self, mlp: Mlp) -> None:
        super().__init__()
        self.fc, self.proj = QuantisedLinear(mlp.fc), QuantisedLinear(mlp.proj)
        self.activation = written_over(mlp.activation)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        parts = [self.proj.product(self.activation(self.fc.product(part))).to(x.dtype) for part in flat.split(ROWS)]
        return torch.cat(parts).view_as(x)


def is_quantised(tower: VisionTower) -> bool:
    """Whether `quantise_tower` has been here."""
    return isinstance(tower.blocks[0].mlp, QuantisedMlp)


@torch.no_grad()
def quantise_tower(tower: VisionTower, dtype: torch.dtype = torch.float32) -> VisionTower:
    """Replace the linear layers of all blocks; what stays in floating point is brought to `dtype`.

    The tower is changed in place (and returned): its exact weights are gone. A second call changes nothing.

    Raises:
        InputError: the tower is not on the CPU, or the CPU has no instructions for it.
    """
    if is_quantised(tower):
        return tower
    check_int8(tower.projection.device)
    for block in tower.blocks:
        block.attn.qkv = QuantisedLinear(block.attn.qkv)  # type: ignore[assignment]
        block.attn.out = QuantisedLinear(block.attn.out)  # type: ignore[assignment]
        block.mlp = QuantisedMlp(block.mlp)  # type: ignore[assignment]
    for value in tower.parameters():  # not tower.to(dtype): scales and biases are buffers, and stay in float32
        value.data = value.data.to(dtype)
    give_back_memory()
    return tower


def check_int8(device: torch.device) -> None:
    """Raise InputError where 8-bit towers do not run, or would be slower than floats."""
    if device.type != "cpu":
        raise InputError(f"precision int8 runs on the CPU, not on {device.type}; use --device cpu, or --precision bf16")
    if not has_fast_int8():
        raise InputError(
            "precision int8 needs a CPU with AVX-512 VNNI or AMX, and this one has neither; use --precision auto"
        )
