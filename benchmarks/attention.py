"""Attention that learns, in bf16: the fused kernel of PyTorch beside gradients by blocks, values and gradients in turn.

    python benchmarks/attention.py
    python benchmarks/attention.py --tokens 145 401 --heads 12 --images 8

Medians of wall milliseconds, and quartiles of the ratio within each round; shapes default to those of the embedded
model's pretraining. Where the CPU does not multiply bf16 in hardware, a tower never takes the second way.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from headclip.clip.attention import attend_learning
from headclip.clip.hardware import fused_bf16_is_slow, has_fast_bf16

Way = Callable[[Tensor, Tensor, Tensor], Tensor]
WAYS: dict[str, Way] = {"fused": F.scaled_dot_product_attention, "blocks": attend_learning}


def times(way: Way, joined: Tensor, heads: int) -> tuple[float, float]:
    """Milliseconds of values and of gradients; joined: (B, N, 3 W), as a layer's projection makes it."""
    leaf = joined.detach().requires_grad_()
    begun = time.perf_counter()
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in leaf.chunk(3, dim=-1))
    out = way(q, k, v).transpose(1, 2).flatten(2)
    between = time.perf_counter()
    out.backward(joined[..., : out.shape[-1]])
    return 1e3 * (between - begun), 1e3 * (time.perf_counter() - between)


def row(tokens: int, args: argparse.Namespace) -> list[str]:
    joined = torch.randn(args.images, tokens, 3 * args.heads * args.head_dim).bfloat16()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for round_ in range(args.rounds + 1):
        for name, way in WAYS.items():
            taken = times(way, joined, args.heads)
            if round_:  # the first one warms up
                found[name].append(taken)
    cells = [f"{statistics.median(t[part] for t in found[name]):.1f}" for name in WAYS for part in (0, 1)]
    ratios = [sum(blocks) / sum(fused) for fused, blocks in zip(found["fused"], found["blocks"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return [str(tokens), *cells, f"{middle:.2f} ({low:.2f} to {high:.2f})"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[145, 197, 257, 401])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = Table(title=f"{args.images} images, {args.heads} heads of {args.head_dim}, {args.threads} threads")
    for name in ("tokens", "fused: values", "gradients", "blocks: values", "gradients", "ratio of both"):
        table.add_column(name, justify="right")
    for tokens in args.tokens:
        table.add_row(*row(tokens, args))
    console = Console()
    console.print(table)
    fast = has_fast_bf16(torch.device("cpu"))
    console.print(f"bf16 in hardware: {fast}; matrix tiles: {fast and not fused_bf16_is_slow()}")


if __name__ == "__main__":
    main()
