"""The transformer block that both towers are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.clip.attention import attend
from headclip.clip.config import Activation, TextConfig, VisionConfig


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), the activation of OpenAI's CLIP weights."""
    return x * torch.sigmoid(1.702 * x)


def quick_gelu_in_place(x: Tensor) -> Tensor:
    """`quick_gelu` to rounding, written over `x`, for tensors that nothing learns from."""
    return F.silu(x.mul_(1.702), inplace=True).mul_(1 / 1.702)


def written_over(activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The activation for a tensor that nobody else reads: in place where there is such a form."""
    return quick_gelu_in_place if activation is quick_gelu else activation


ROWS = 512  # tokens at a time through an MLP, so that what lies between its two products stays in the cache
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


def some_outputs(linear: nn.Module, x: Tensor, some: slice) -> Tensor:
    """The output channels `some` of a linear layer, alone; an 8-bit layer (quantise.py) picks them itself."""
    if isinstance(linear, nn.Linear):
        return F.linear(x, linear.weight[some], linear.bias[some])
    return linear(x, some)


class Attention(nn.Module):
    """Multi-head attention with its parts in reach: one fused q-k-v projection, heads, one output projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """(B, N, W) -> (B, heads, N, head_dim)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    @staticmethod
    def merge(x: Tensor) -> Tensor:
        """(B, heads, N, head_dim) -> (B, N, W); head h holds channels h*head_dim to (h+1)*head_dim - 1."""
        return x.transpose(1, 2).flatten(2)

    def project(self, u: Tensor, cls_only: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of normalised tokens `u` (B, N, W), each (B, heads, N, head_dim).

        cls_only: queries of the first token alone, (B, heads, 1, head_dim).
        """
        if cls_only:
            width = u.shape[-1]
            q = some_outputs(self.qkv, u[:, :1], slice(0, width))
            k, v = some_outputs(self.qkv, u, slice(width, 3 * width)).chunk(2, dim=-1)
        else:
            q, k, v = self.qkv(u).chunk(3, dim=-1)
        return self.split(q), self.split(k), self.split(v)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
        """Equations 1 and 2: softmax(q k^T / sqrt(d)) v for each head, concatenated and projected to (B, N, W)."""
        return self.out(self.merge(attend(q, k, v, causal=causal)))


class Mlp(nn.Module):
    """The feed-forward network of a block."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.fc = nn.Linear(width, hidden)
        self.proj = nn.Linear(hidden, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        if x.device.type != "cpu" or torch.compiler.is_compiling() or self._learns(x):
            return self.proj(self.activation(self.fc(x)))
        return self._in_parts(x)

    def _learns(self, x: Tensor) -> bool:
        return torch.is_grad_enabled() and (x.requires_grad or self.fc.weight.requires_grad)

    def _in_parts(self, x: Tensor) -> Tensor:
        """`forward` on some tokens at a time from end to end: quicker, and without the hidden values of all at once."""
        activation = written_over(self.activation)
        flat = x.reshape(-1, x.shape[-1])  # (B * N, W)
        out = flat.new_empty(len(flat), len(self.proj.bias))
        parts = max(1, -(-len(flat) // ROWS))
        for given, wanted in zip(flat.chunk(parts), out.chunk(parts), strict=True):
            torch.addmm(self.proj.bias, activation(self.fc(given)), self.proj.weight.t(), out=wanted)
        return out.unflatten(0, x.shape[:-1])


class Block(nn.Module):
    """Pre-norm residual block: x + attention(LN1 x), then x + mlp(LN2 x)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, activation: Activation) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), activation)

    def add_mlp(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.ln_2(x))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """(B, N, W) -> (B, N, W)."""
        q, k, v = self.attn.project(self.ln_1(x))
        return self.add_mlp(x + self.attn(q, k, v, causal))


class Blocks(nn.ModuleList):
    """The blocks of a tower, layer 1 first."""

    def __init__(self, config: VisionConfig | TextConfig) -> None:
        super().__init__(
            Block(config.width, config.heads, config.mlp_ratio, config.activation) for _ in range(config.layers)
        )

    def __getitem__(self, index: int) -> Block:  # type: ignore[override]
        return super().__getitem__(index)  # type: ignore[return-value]

    def __iter__(self) -> Iterator[Block]:
        return super().__iter__()  # type: ignore[return-value]
