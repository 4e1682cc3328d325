"""Scaled dot-product attention, by the quickest way that the machine has.

PyTorch's fused kernel is that almost everywhere. The exception is bf16 on CPUs that multiply bf16 vectors but have no
matrix tiles: there it takes as long as in fp32, while two plain matrix products with a softmax between them, on a
block of scores small enough to stay in the cache, take two thirds of that.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.clip.hardware import fused_bf16_is_slow

SCORES = 8 * 2**20  # entries of one block of scores, 16 MiB in bf16: about half a large last-level cache
MIN_KEYS = 192  # below, calling several operators costs about what it gains


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, causal: bool = False) -> Tensor:
    """softmax(q k^T * scale) v for each head; scale None is 1/sqrt(head_dim).

    q: (B, heads, queries, head_dim); k and v: (B, heads, keys, head_dim). Returns (B, heads, queries, head_dim).
    """
    if causal or not is_slow_when_fused(q):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    if is_learning(q, k, v):
        return attend_in_products(q, k, v, scale)
    if k.shape[-2] < MIN_KEYS:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    return attend_in_blocks(q, k, v, scale)


def is_slow_when_fused(q: Tensor) -> bool:
    """Whether PyTorch's fused kernel is not the quickest for queries of this kind; compiled graphs keep it."""
    if torch.compiler.is_compiling() or q.dtype != torch.bfloat16 or q.device.type != "cpu":
        return False
    return fused_bf16_is_slow()


def is_learning(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def attend_in_products(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """`attend` as two matrix products with all scores in between, for training: a step of the embedded model's tower
    at 224 px takes 0.7 of the time that it takes with the fused kernel."""
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-1, -2)
    return scores.softmax(dim=-1).to(v.dtype) @ v


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
