"""Scaled dot-product attention, by the quickest way that the machine has.

PyTorch's fused kernel is that almost everywhere. The exceptions are in bf16 on CPUs that multiply it in hardware:

- Where bf16 vectors are multiplied but no matrix tiles, the kernel takes as long as in fp32, while two plain matrix
  products with a softmax between them, on a block of scores small enough to stay in the cache, take two thirds of that.
- Gradients by the kernel take six to eleven times as long as its values, tiles or not. Taken from scores that are
  computed anew, block by block, both together take 0.34 (145 tokens) to 0.58 (401) of the time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from headclip.clip.hardware import fused_bf16_is_slow, has_fast_bf16

SCORES = 8 * 2**20  # entries of one block of scores, 16 MiB in bf16: about half a large last-level cache
LEARNING_SCORES = 4 * 2**20  # the same for gradients, which take two blocks at a time
MIN_KEYS = 192  # below, calling several operators costs about what it gains


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, causal: bool = False) -> Tensor:
    """softmax(q k^T * scale) v for each head; scale None is 1/sqrt(head_dim).

    q: (B, heads, queries, head_dim); k and v: (B, heads, keys, head_dim). Returns (B, heads, queries, head_dim).
    """
    if causal or not is_plain_bf16(q):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    if is_learning(q, k, v):
        return attend_learning(q, k, v, scale)
    return _values(q, k, v, scale)


def _values(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    """`attend` without gradients, in bf16 on a CPU."""
    if fused_bf16_is_slow() and k.shape[-2] >= MIN_KEYS:
        return attend_in_blocks(q, k, v, scale)
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


def is_plain_bf16(q: Tensor) -> bool:
    """Whether these are bf16 queries on a CPU that multiplies them in hardware; compiled graphs keep the kernel."""
    if torch.compiler.is_compiling() or q.dtype != torch.bfloat16 or q.device.type != "cpu":
        return False
    return has_fast_bf16(q.device)


def is_learning(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def attend_learning(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """`attend` whose gradients are taken block by block; `benchmarks/attention.py` has the times."""
    learnt: Tensor = _BlockGradients.apply(q, k, v, q.shape[-1] ** -0.5 if scale is None else scale)
    return learnt


class _BlockGradients(torch.autograd.Function):
    """Attention of (B, heads, N, head_dim), whose gradients come from scores computed anew, a block of heads at a time.

    With P the softmax of the scores and G the gradient of the output: dV = P^T G, dS = P * (G V^T - its mean under P),
    dQ = dS K and dK = dS^T Q.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.scale = scale
        return _values(q, k, v, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out = (x.flatten(0, 1) for x in (*ctx.saved_tensors, gradient))  # (B * heads, N, head_dim)
        scaled, keys, values = q * ctx.scale, k.mT.contiguous(), v.mT.contiguous()
        grads = torch.empty_like(scaled), torch.empty_like(k), torch.empty_like(v)
        step = max(1, LEARNING_SCORES // (q.shape[1] * k.shape[1]))
        blocks = q.new_empty(2, min(step, len(q)), q.shape[1], k.shape[1])
        for start in range(0, len(q), step):
            some = slice(start, min(start + step, len(q)))
            weights, change = blocks[:, : some.stop - start]
            torch.bmm(scaled[some], keys[some], out=weights)
            torch.softmax(weights, dim=-1, out=weights)
            torch.bmm(weights.mT, out[some], out=grads[2][some])
            torch.bmm(out[some], values[some], out=change)
            torch.ops.aten._softmax_backward_data.out(change, weights, -1, q.dtype, grad_input=change)
            torch.bmm(change, k[some], out=grads[0][some])
            torch.bmm(change.mT, scaled[some], out=grads[1][some])
        grads[0].mul_(ctx.scale)
        shapes = (x.shape[:2] for x in ctx.saved_tensors)
        return *(x.unflatten(0, shape) for x, shape in zip(grads, shapes, strict=True)), None


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """`attend` without gradients: scores of a few heads (or of a part of the queries of one) at a time.

    Scores are rounded to the dtype of `q`, an error of the size that rounded queries and keys bring along anyway;
    sums run in fp32 inside the products and the softmax.
    """
    batch, heads, queries, width = q.shape
    keys = k.shape[-2]
    rows = min(queries, max(1, SCORES // keys))
    group = min(heads, max(1, SCORES // (rows * keys)))
    scaled = q * (width**-0.5 if scale is None else scale)
    scores = q.new_empty(group, rows, keys)
    out = q.new_empty(batch, heads, queries, width)
    for image in range(batch):
        for head in range(0, heads, group):
            some = slice(head, min(head + group, heads))
            transposed = k[image, some].transpose(1, 2)  # (group, head_dim, keys)
            for row in range(0, queries, rows):
                part = slice(row, min(row + rows, queries))
                block = scores[: some.stop - some.start, : part.stop - part.start]
                torch.bmm(scaled[image, some, part], transposed, out=block)
                torch.softmax(block, dim=-1, out=block)
                torch.bmm(block, v[image, some], out=out[image, some, part])
    return out
