"""Several local streams from one vision pass, so that methods with different settings share the tower's work.

The global stream never sees a local one (HeadCLIP 3.3), so that any number of local streams can be collected on its
way: queries, keys and values of a layer are computed once, the heads of consistent self-attention once for each
similarity, the output projection once for each set of head weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from headclip.clip.blocks import Block
from headclip.clip.cells import picture_cells
from headclip.clip.neighbours import neighbour_distance
from headclip.clip.vision import (
    VisionRequest,
    VisionTokens,
    VisionTower,
    attended,
    consistent_heads,
    weighted_projection,
)
from headclip.errors import InputError


@dataclass(frozen=True, eq=False)
class Stream:
    """What one method needs of a pass. head_weights: (CSA layers, heads), row 0 for the first; None means 1."""

    request: VisionRequest
    head_weights: Tensor | None = None


def run_streams(tower: VisionTower, pixels: Tensor, streams: Sequence[Stream]) -> list[VisionTokens]:
    """One pass over pixels (B, 3, H, W) for all streams; each result equals that of `tower` itself, to rounding.

    Streams that differ in what they tap alone are computed once. Meant for judging: gradients do not reach head weights
    that two streams have in common.

    Raises:
        InputError: a layer or an image size does not fit the tower; the streams differ in how position embeddings
            are resized, and at this size they are; one asks to keep its heads, or there is none.
    """
    if not streams or any(stream.request.keep_heads for stream in streams):
        raise InputError("a shared pass needs at least one stream, and none that keeps its heads")
    for stream in streams:
        stream.request.check(len(tower.blocks))
    x, grid = tower.embed(pixels, streams[0].request.interpolation)
    resized = grid != (tower.config.grid, tower.config.grid)
    if resized and len({stream.request.interpolation for stream in streams}) > 1:
        raise InputError("streams that resize position embeddings in different ways cannot share a pass")
    known: dict[tuple[object, ...], _Local] = {}
    owners = [_join(known, stream) for stream in streams]
    plain_taps = {layer for stream in streams for layer in _plain_layers(stream.request)}
    plain: dict[int, Tensor] = {}
    for layer, block in enumerate(tower.blocks, start=1):
        cls_only = layer == len(tower.blocks) and layer not in plain_taps
        in_csa = any(local.first <= layer <= local.last for local in known.values())
        q, k, v = block.attn.project(block.ln_1(x), cls_only and not in_csa)
        outputs: dict[tuple[object, ...], Tensor] = {}
        for local in known.values():
            local.step(layer, block, x, (q, k, v), outputs)
        x = attended(block, x, q, k, v, cls_only)
        del q, k, v
        x = block.add_mlp(x)
        if layer in plain_taps:
            plain[layer] = x
    neighbours: Tensor | None = None
    if any(stream.request.neighbours for stream in streams):
        neighbours = neighbour_distance(pixels, tower.config.patch_size)
    cells: Tensor | None = None
    if any(stream.request.cells for stream in streams):
        cells = picture_cells(pixels, tower.config.patch_size)
    found = []
    for stream, owner in zip(streams, owners, strict=True):
        taps = {
            tap: owner.found[tap] if owner and _is_local(stream.request, tap) else plain[tap]
            for tap in stream.request.taps
        }
        own = {layer: plain[layer] for layer in stream.request.plain}
        unlike = neighbours if stream.request.neighbours else None
        seen = cells if stream.request.cells else None
        found.append(VisionTokens(x[:, 0], taps, grid, plain=own, neighbours=unlike, cells=seen))
    return found


@dataclass
class _Local:
    """One local stream on its way up. weights: key of the head weights, for those that share a projection."""

    request: VisionRequest
    first: int
    last: int
    head_weights: Tensor | None
    weights: tuple[float, ...] | None
    taps: set[int] = field(default_factory=set)
    found: dict[int, Tensor] = field(default_factory=dict)
    tokens: Tensor | None = None

    def step(
        self,
        layer: int,
        block: Block,
        x: Tensor,
        qkv: tuple[Tensor, Tensor, Tensor],
        outputs: dict[tuple[object, ...], Tensor],
    ) -> None:
        """Add a layer's change. x: what enters the layer; outputs: what other streams computed of it already."""
        if not self.first <= layer <= self.last:
            return
        request = self.request
        heads = (request.similarity, request.scale)
        if heads not in outputs:
            outputs[heads] = consistent_heads(block.attn, *qkv, request)
        weights = None if self.head_weights is None else self.head_weights[layer - self.first]
        change = (*heads, None if weights is None else tuple(weights.tolist()))
        if change not in outputs:
            outputs[change] = weighted_projection(block.attn, outputs[heads], weights)
        if self.tokens is None:
            self.tokens = x if request.with_base else torch.zeros_like(x)
        self.tokens = self.tokens + outputs[change]
        if layer in self.taps:
            self.found[layer] = self.tokens


def _is_local(request: VisionRequest, tap: int) -> bool:
    """Whether a tap reads the local stream rather than the global one below it."""
    return request.csa is not None and tap >= request.csa[0]


def _plain_layers(request: VisionRequest) -> set[int]:
    """Layers after which the global stream is wanted."""
    return {tap for tap in request.taps if not _is_local(request, tap)} | set(request.plain)


def _join(known: dict[tuple[object, ...], _Local], stream: Stream) -> _Local | None:
    """The local stream that serves `stream`, taking its taps along; None where it has none."""
    request, given = stream.request, stream.head_weights
    if request.csa is None:
        return None
    first, last = request.csa
    weights = None if given is None else tuple(given.detach().flatten().tolist())
    key = (first, request.similarity, request.scale, request.with_base, weights)
    local = known.setdefault(key, _Local(request, first, last, given, weights))
    local.last = max(local.last, last)
    local.taps |= {tap for tap in request.taps if _is_local(request, tap)}
    return local
