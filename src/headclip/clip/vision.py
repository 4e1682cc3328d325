"""The vision tower: a CLIP ViT whose blocks feed two streams.

The global stream is CLIP's own. The local stream collects consistent self-attention (CSA: value-value attention
by default) of the normalised *global* tokens, without any feed-forward network, and each head of it may carry a
weight (learnable head weights, LHW). The global stream never sees the local one, and the local one is linear in
the head weights. HeadCLIP 3.3, equations 1-6; CLIP Surgery, AnomalyCLIP and AnoVL are settings of the same pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.clip.attention import attend
from headclip.clip.blocks import Attention, Block, Blocks
from headclip.clip.cells import picture_cells
from headclip.clip.config import VisionConfig
from headclip.clip.detail import Detail
from headclip.clip.mixed import mixed_linear
from headclip.clip.neighbours import neighbour_distance
from headclip.errors import InputError

Similarity = Literal["vv", "qq", "kk"]
Interpolation = Literal["bilinear", "bicubic", "bicubic_antialias"]


@dataclass(frozen=True)
class VisionRequest:
    """What a method needs of one vision pass; methods with equal requests can share it. Layers count from 1.

    csa: first and last layer of the local stream, or None for the plain tower.
    taps: layers after which the local stream is wanted (before `csa` begins: the single stream of CLIP).
    with_base: the local stream starts from the tokens that enter the first CSA layer (CLIP Surgery) rather than
        from zero; the paper is silent (A1).
    scale: factor inside the CSA softmax; None means 1/sqrt(head_dim) (A5).
    keep_heads: also return every CSA layer's head outputs, before head weights and output projection.
    plain: layers after which the tokens of the tower's own stream are wanted, beside those of the local one.
    neighbours: also how unlike each patch is to the others of its image (`clip.neighbours`).
    cells: also the image itself in cells finer than a patch (`clip.cells`).
    """

    csa: tuple[int, int] | None = None
    taps: tuple[int, ...] = ()
    similarity: Similarity = "vv"
    with_base: bool = True
    scale: float | None = None
    interpolation: Interpolation = "bilinear"
    keep_heads: bool = False
    plain: tuple[int, ...] = ()
    neighbours: bool = False
    cells: bool = False

    def check(self, layers: int) -> None:
        """Raise InputError where a layer does not exist in a tower of that many layers."""
        first, last = self.csa or (1, layers)
        if not 1 <= first <= last <= layers:
            raise InputError(f"CSA layers {first}-{last} do not fit a tower of {layers} layers (counted from 1)")
        for layer in self.plain:
            if not 1 <= layer <= layers:
                raise InputError(f"layer {layer} does not exist in a tower of {layers} layers (counted from 1)")
        for tap in self.taps:
            if not 1 <= tap <= (self.csa[1] if self.csa else layers):
                raise InputError(
                    f"layer {tap} cannot be tapped: the local stream of this request ends after layer {last} "
                    f"of {layers} (layers count from 1)"
                )


@dataclass
class VisionTokens:
    """What one vision pass returns, before the final norm and projection. N = rows * columns patches.

    cls: (B, W), the CLS token of the global stream after the last layer.
    local: tap -> (B, 1 + N, W), CLS slot first.
    grid: rows and columns of patches.
    heads: CSA layer -> (B, 1 + N, W), and base: (B, 1 + N, W), what enters the first CSA layer; if asked for.
    plain: layer -> (B, 1 + N, W) of the tower's own stream, if asked for.
    neighbours: (B, rows, columns), distance to the most similar patches of the same image, if asked for.
    cells: (B, 4, n rows, n columns), the image in cells, n a side of a patch (`clip.cells`), if asked for.
    """

    cls: Tensor
    local: dict[int, Tensor]
    grid: tuple[int, int]
    heads: dict[int, Tensor] = field(default_factory=dict)
    base: Tensor | None = None
    plain: dict[int, Tensor] = field(default_factory=dict)
    neighbours: Tensor | None = None
    cells: Tensor | None = None


class VisionTower(nn.Module):
    """CLIP's vision transformer for any image size whose sides are multiples of the patch size."""

    def __init__(self, config: VisionConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch_size
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.detail = Detail(width, config.detail, patch, config.rarity) if config.detail else None
        self.position_embedding = nn.Parameter(torch.zeros(1 + config.grid**2, width))
        self.ln_pre = nn.LayerNorm(width)
        self.blocks = Blocks(config)
        self.ln_post = nn.LayerNorm(width)
        self.projection = nn.Parameter(torch.zeros(width, embed_dim))
        self.size = sum(value.numel() for value in self.parameters())  # whatever becomes of them for speed

    def positions(self, grid: tuple[int, int], interpolation: Interpolation = "bilinear") -> Tensor:
        """Position embeddings (1 + rows*columns, W) for any grid; the parameter itself is never changed."""
        side = self.config.grid
        if grid == (side, side):
            return self.position_embedding
        first, rest = self.position_embedding[:1], self.position_embedding[1:]
        square = rest.T.reshape(1, -1, side, side).float()  # (1, W, side, side)
        resized = F.interpolate(
            square,
            size=grid,
            mode=interpolation.removesuffix("_antialias"),
            align_corners=False,
            antialias=interpolation == "bicubic_antialias",
        )
        return torch.cat([first, resized.flatten(2)[0].T.to(first.dtype)])

    def embed(self, pixels: Tensor, interpolation: Interpolation = "bilinear") -> tuple[Tensor, tuple[int, int]]:
        """Normalised pixels (B, 3, H, W) -> tokens (B, 1 + N, width) that enter layer 1, and the patch grid."""
        patch = self.config.patch_size
        height, width = pixels.shape[-2:]
        if height % patch or width % patch or not height or not width:
            raise InputError(f"image of {height} x {width} px: both sides must be multiples of {patch}")
        patches = self.patch_embedding(pixels)  # (B, width, rows, columns)
        grid = (patches.shape[-2], patches.shape[-1])
        tokens = patches.flatten(2).transpose(1, 2)  # (B, N, width)
        if self.detail is not None:
            tokens = tokens + self.detail(self.detail.answers(pixels))
        cls = self.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1)
        x = torch.cat([cls, tokens], dim=1) + self.positions(grid, interpolation)
        return self.ln_pre(x), grid

    def project(self, tokens: Tensor, norm: bool = True) -> Tensor:
        """(..., W) -> (..., E) in the space shared with text, not yet of unit length."""
        return (self.ln_post(tokens) if norm else tokens) @ self.projection

    def forward(
        self, pixels: Tensor, request: VisionRequest | None = None, head_weights: Tensor | None = None
    ) -> VisionTokens:
        """One pass over both streams.

        Args:
            pixels: (B, 3, H, W), normalised; H and W are multiples of the patch size.
            request: which local stream is wanted; None runs the plain tower.
            head_weights: (CSA layers, heads), row 0 for the first CSA layer; None means 1 everywhere. Gradients
                reach them through the local stream alone.

        Raises:
            InputError: a layer or an image size does not fit this tower.
        """
        request = request or VisionRequest()
        request.check(len(self.blocks))
        first, last = request.csa or (len(self.blocks) + 1, 0)
        x, grid = self.embed(pixels, request.interpolation)
        local: Tensor | None = None
        taps: dict[int, Tensor] = {}
        heads: dict[int, Tensor] = {}
        plain: dict[int, Tensor] = {}
        base: Tensor | None = None
        for layer, block in enumerate(self.blocks, start=1):
            in_csa = first <= layer <= last
            tapped = layer in request.plain or (layer in request.taps and local is None and not in_csa)
            cls_only = layer == len(self.blocks) and not tapped
            q, k, v = block.attn.project(block.ln_1(x), cls_only and not in_csa)
            if in_csa:
                weights = None if head_weights is None else head_weights[layer - first]
                output = consistent_heads(block.attn, q, k, v, request)
                if request.keep_heads:
                    heads[layer] = output
                    base = x if base is None else base
                change = weighted_projection(block.attn, output, weights)
                if local is None:  # the first CSA layer: the stream starts from what enters it, or from nothing
                    local = x if request.with_base else torch.zeros_like(x)
                local = local + change
            x = attended(block, x, q, k, v, cls_only)
            del q, k, v  # a sixth of what a pass holds
            x = block.add_mlp(x)
            if layer in request.taps:
                taps[layer] = x if local is None else local
            if layer in request.plain:
                plain[layer] = x
        neighbours = neighbour_distance(pixels, self.config.patch_size) if request.neighbours else None
        cells = picture_cells(pixels, self.config.patch_size) if request.cells else None
        return VisionTokens(x[:, 0], taps, grid, heads, base, plain, neighbours, cells)

    def accumulate(
        self, kept: VisionTokens, request: VisionRequest, head_weights: Tensor | None = None
    ) -> VisionTokens:
        """The local stream again, from head outputs that were kept (`keep_heads`): the tower itself does not run.

        Equal to `forward` on the same pixels with these head weights, since the local stream is linear in them.
        """
        assert request.csa is not None
        assert kept.base is not None
        first, last = request.csa
        local = kept.base if request.with_base else torch.zeros_like(kept.base)
        taps = {tap: tokens for tap, tokens in kept.local.items() if tap < first}
        for layer in range(first, last + 1):
            weights = None if head_weights is None else head_weights[layer - first]
            local = local + folded_projection(self.blocks[layer - 1].attn, kept.heads[layer], weights)
            if layer in request.taps:
                taps[layer] = local
        return replace(kept, local=taps, heads={}, base=None)


def attended(block: Block, x: Tensor, q: Tensor, k: Tensor, v: Tensor, cls_only: bool) -> Tensor:
    """The global stream through a block's attention; `cls_only` drops the tokens that nobody reads, which spares their
    queries and MLP."""
    if cls_only:
        x, q = x[:, :1], q[:, :, :1]
    return x + block.attn(q, k, v)


def advance(block: Block, x: Tensor, q: Tensor, k: Tensor, v: Tensor, cls_only: bool) -> Tensor:
    """The global stream through one whole block; see `attended`."""
    return block.add_mlp(attended(block, x, q, k, v, cls_only))


def consistent_heads(attention: Attention, q: Tensor, k: Tensor, v: Tensor, request: VisionRequest) -> Tensor:
    """Equation 3: softmax(s s^T * scale) v for each head, s being v (or q, or k) -> (B, 1 + N, W)."""
    s = {"vv": v, "qq": q, "kk": k}[request.similarity]
    return attention.merge(attend(s, s, v, request.scale))


def weighted_projection(attention: Attention, heads: Tensor, weights: Tensor | None) -> Tensor:
    """Equations 4 and 5: each head's channels times its weight, then the frozen output projection.

    The projection's bias is not scaled. heads: (B, 1 + N, W); weights: (heads,) or None.
    """
    if weights is not None:
        heads = (heads.unflatten(-1, (attention.heads, -1)) * weights.to(heads.dtype)[:, None]).flatten(-2)
    return attention.out(heads)


def folded_projection(attention: Attention, heads: Tensor, weights: Tensor | None) -> Tensor:
    """`weighted_projection` with the head weights multiplied into the projection.

    Cheaper for many tokens, above all on the way back: the gradient is one product of the size of the projection.
    Heads in half precision are multiplied as `mixed_linear` does.
    """
    weight, bias = attention.out.weight, attention.out.bias
    if weights is not None:
        weight = weight * weights.to(weight.dtype).repeat_interleave(weight.shape[1] // attention.heads)  # (W, W)
    return F.linear(heads, weight, bias) if heads.dtype == weight.dtype else mixed_linear(heads, weight, bias)
