"""Products of many tokens with full-precision weights, at the speed of bf16 and near the result of fp32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class _MixedLinear(torch.autograd.Function):
    """What the tokens of an image have in common in the weight's numbers, the rest of them in bf16.

    Rounding errors of the rest differ from token to token and average out; those of the common part would add up.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        mean = x.mean(dim=1, keepdim=True, dtype=weight.dtype)  # (B, 1, W)
        rest = (x - mean).to(torch.bfloat16)  # (B, N, W)
        ctx.save_for_backward(mean, rest)
        return F.linear(rest, weight.to(rest.dtype)).to(weight.dtype).add_(F.linear(mean, weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        mean, rest = ctx.saved_tensors
        (gradient,) = gradients  # (B, N, V)
        of_rest = gradient.to(rest.dtype).flatten(0, 1).T @ rest.flatten(0, 1)  # (V, W)
        return None, torch.addmm(of_rest.to(mean.dtype), gradient.sum(dim=1).T, mean[:, 0])


def mixed_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x @ weight^T + bias, multiplied in bf16 but for the mean token of each image.

    Args:
        x: (B, N, W) in any numbers; gradients do not reach it.
        weight: (V, W) and bias (V,), in full precision.

    Returns:
        (B, N, V) in the weight's numbers.
    """
    product: Tensor = _MixedLinear.apply(x.detach(), weight)
    return product + bias
