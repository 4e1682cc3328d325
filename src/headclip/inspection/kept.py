"""What one pass over an image leaves behind, so that any of its layers and heads can be switched without another.

The global stream never sees the local one, and the local one is a sum over layers (HeadCLIP 3.3, equation 6). So
with every layer's input and head outputs at hand, any local stream of this image is a few additions away: from the
input of its first layer, or from nothing, over any layers, with any head weights.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from headclip.clip.cells import picture_cells
from headclip.clip.neighbours import neighbour_distance
from headclip.clip.vision import VisionTower, advance, consistent_heads
from headclip.errors import InputError
from headclip.methods.base import Method, create_method
from headclip.methods.similarity import SimilarityMethod


@dataclass(frozen=True)
class Selection:
    """Which parts of the local stream count.

    layers: from 1, rising; the stream begins with what enters the lowest one, and a layer that is left out between
        others adds nothing.
    start: whether it begins with that input, rather than with nothing.
    silent: (layer, head), both from 1, of heads whose output counts nothing.
    """

    layers: tuple[int, ...]
    start: bool = True
    silent: frozenset[tuple[int, int]] = frozenset()

    def check(self, depth: int, heads: int) -> None:
        """Raise InputError where a layer or head does not exist in a tower, or no layer is left."""
        if not self.layers:
            raise InputError("no layer is left; choose one at least")
        if list(self.layers) != sorted(set(self.layers)) or not 1 <= self.layers[0] <= self.layers[-1] <= depth:
            raise InputError(f"layers {list(self.layers)}: choose different ones from 1 to {depth}, in rising order")
        wrong = [pair for pair in self.silent if not (1 <= pair[0] <= depth and 1 <= pair[1] <= heads)]
        if wrong:
            raise InputError(f"head {wrong[0][1]} of layer {wrong[0][0]}: {depth} layers have {heads} heads each")


def own_selection(method: SimilarityMethod) -> Selection:
    """What the method itself takes."""
    request = method.request
    assert request.csa is not None
    return Selection(tuple(range(request.csa[0], request.csa[1] + 1)), request.with_base)


@dataclass(frozen=True)
class KeptFeatures:
    """One image after its vision pass. N = rows * columns patches.

    size: (H, W) of the pixels that entered the tower; grid: rows and columns of patches; cls: (1, W) at the end.
    inputs: layer from 1 -> (1, 1 + N, W), what enters it, CLS slot first; heads: layer -> (1, 1 + N, W), its heads'
    outputs in consistent self-attention, before head weights and projection; neighbours and cells: as in
    `VisionTokens`, where the method reads them.
    """

    size: tuple[int, int]
    grid: tuple[int, int]
    cls: Tensor
    inputs: dict[int, Tensor]
    heads: dict[int, Tensor]
    neighbours: Tensor | None = None
    cells: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory in bytes that the features take."""
        kept = [self.cls, *self.inputs.values(), *self.heads.values(), self.neighbours, self.cells]
        return sum(value.nbytes for value in kept if value is not None)


@torch.no_grad()
def keep_features(method: SimilarityMethod, pixels: Tensor) -> KeptFeatures:
    """One pass over pixels (1, 3, H, W), in the method's settings, that keeps what enters every layer, and what leaves
    the last one where the method reads that.

    Two tensors of the size of the tokens stay for each layer: 4 MB for the embedded model at its own size, 270 MB for
    ViT-L/14 at 518 px in float32.
    """
    tower: VisionTower = method.backbone.vision
    request = method.request
    x, grid = tower.embed(pixels, request.interpolation)
    inputs: dict[int, Tensor] = {}
    heads: dict[int, Tensor] = {}
    for layer, block in enumerate(tower.blocks, start=1):
        inputs[layer] = x
        q, k, v = block.attn.project(block.ln_1(x))
        heads[layer] = consistent_heads(block.attn, q, k, v, request)
        x = advance(block, x, q, k, v, cls_only=layer == len(tower.blocks) and layer not in request.plain)
    if len(tower.blocks) in request.plain:
        inputs[len(tower.blocks) + 1] = x
    neighbours = neighbour_distance(pixels, tower.config.patch_size) if request.neighbours else None
    cells = picture_cells(pixels, tower.config.patch_size) if request.cells else None
    return KeptFeatures((pixels.shape[-2], pixels.shape[-1]), grid, x[:, 0], inputs, heads, neighbours, cells)


def variant(method: SimilarityMethod, selection: Selection) -> SimilarityMethod:
    """The method with the layers of a selection as its `csa_layers`; taps above the last of them read that one.

    Of what was learnt it has linear heads and refiner alone: give it the method's text vectors and `selected_weights`.

    Raises:
        InputError: a layer or head that the tower does not have.
    """
    tower = method.backbone.config.vision
    selection.check(tower.layers, tower.heads)
    first, last = selection.layers[0], selection.layers[-1]
    if method.request.csa == (first, last):
        return method
    changes: dict[str, object] = {"csa_layers": (first, last)}
    named = {item.name: getattr(method.config, item.name) for item in fields(method.config)}
    if "taps" in named and named.get("aggregation", "taps") == "taps":
        changes["taps"] = tuple(dict.fromkeys(min(tap, last) for tap in method.taps))
    made = create_method(method.name, method.backbone, replace(method.config, **changes))
    assert isinstance(made, SimilarityMethod)
    for name in ("stream_heads", "refiner"):
        if (part := getattr(method, name, None)) is not None:
            setattr(made, name, part)
    return made.to(method.backbone.device).eval()


def selected_weights(method: Method, selection: Selection) -> dict[int, Tensor] | None:
    """Layer -> (heads,), what multiplies its heads: what was learnt, 1 in layers for which nothing was, 0 for silent
    heads; None where all are 1."""
    weights: Tensor | None = getattr(method, "effective_head_weights", lambda: None)()
    if weights is None and not selection.silent:
        return None
    csa = method.request.csa
    assert csa is not None
    heads = method.backbone.config.vision.heads
    found: dict[int, Tensor] = {}
    for layer in selection.layers:
        if weights is not None and csa[0] <= layer <= csa[1]:
            row = weights[layer - csa[0]].detach().clone()
        else:
            row = torch.ones(heads, device=method.backbone.device)
        off = [head - 1 for place, head in selection.silent if place == layer]
        row[off] = 0.0
        found[layer] = row
    return found
