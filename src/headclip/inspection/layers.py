"""How each layer of the local stream contributes to the map of an image.

The local stream z of a patch is a sum: what it starts from, and the output o of each layer of consistent
self-attention (equation 6). The log odds of "abnormal" that the map is made of are

    logit = (t_abnormal - t_normal) . f / (|f| temperature),    f = projection(norm(z)).

The final layer norm subtracts the mean over channels and divides by the standard deviation s(z); with s(z) and |f|
held at the values that they have for the whole stream, the logit is linear in z. So it splits exactly:

    logit = sum over parts p of contribution(p) + constant,
    contribution(p) = (p - mean(p)) * gain / s(z) . projection (t_abnormal - t_normal) / (|f| temperature),

where a part is the start or a layer's output (its head weights and its bias included) and the constant comes from
the shift of the layer norm. A layer's output is in turn the sum of its heads' outputs and a bias, which splits the
contribution by head. With several taps that each make a map, logits and contributions are means over the taps; a
layer contributes nothing to the taps below it. Where linear heads read the tower's own stream beside it, logits and
contributions are of the local stream alone, map and scores of both.

The contributions say what adds up, not what would happen: without a layer, s(z) and |f| change too. So the map
without each part is computed as well, by the method itself, from the stream with that part subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from headclip.clip.vision import VisionTokens, weighted_projection
from headclip.inspection.kept import KeptFeatures, Selection, keep_features, own_selection, selected_weights, variant
from headclip.methods.base import Method
from headclip.methods.scoring import grid_to_map
from headclip.methods.similarity import SimilarityMethod

START = 0
HOT_SHARE = 0.05  # of the patches, those with the highest map values, at least one


@dataclass(frozen=True)
class LayerMaps:
    """How an image's map came about. R x C is the patch grid, P the number of parts.

    parts: layers from 1; 0 stands for what the local stream starts from, and is missing where it starts from zero.
    taps: layers that make a map each.
    patch_map: (R, C) map values in [0, 1], before upsampling and smoothing. tap_maps: (taps, R, C) of each tap alone.
    logits: (R, C) log odds of abnormal by the local stream; equal to contributions summed over the parts, plus
        constant (R, C).
    contributions: (P, R, C).
    without: (P, R, C) patch map without each part. local_without: (P,) local score without it.
    hot: (R, C) bool, the HOT_SHARE of the patches with the highest map values.
    head_contrast: (layers, heads), contribution of each head, mean over the hot patches minus mean over the others:
        what a head does to tell them apart; its rows are the layers of `parts`.
    own_share: the weight in map and global score, from 0 to 1, of linear heads on the tower's own stream, which no part
        of the local stream changes; 0 without any.
    neighbour_weight: the power of the distance to the most similar patches that multiplies the odds of the map, which
        no part changes either; 0 where the method does not read it.
    refined: whether the method draws its map finer than these patches.
    """

    parts: tuple[int, ...]
    taps: tuple[int, ...]
    patch_map: NDArray[np.float32]
    tap_maps: NDArray[np.float32]
    logits: NDArray[np.float32]
    contributions: NDArray[np.float32]
    constant: NDArray[np.float32]
    without: NDArray[np.float32]
    local_score: float
    local_without: NDArray[np.float32]
    hot: NDArray[np.bool_]
    head_contrast: NDArray[np.float32]
    own_share: float = 0.0
    neighbour_weight: float = 0.0
    refined: bool = False

    @property
    def layers(self) -> tuple[int, ...]:
        """The parts that are layers."""
        return tuple(part for part in self.parts if part != START)

    @property
    def contrast(self) -> NDArray[np.float32]:
        """(P,) contribution of each part, mean over the hot patches minus mean over the others."""
        if self.hot.all():
            return np.zeros(len(self.parts), np.float32)
        inside, outside = self.contributions[:, self.hot], self.contributions[:, ~self.hot]
        return np.asarray(inside.mean(axis=1) - outside.mean(axis=1), np.float32)


def why_no_layers(method: Method) -> str | None:
    """Why the map of a method cannot be split by layers, or None where it can."""
    if not isinstance(method, SimilarityMethod):
        return f"{method.name} reads the towers in a pass of its own, which is no sum over layers"
    if type(method).patch_probabilities is not SimilarityMethod.patch_probabilities:
        return f"{method.name} compares each layer with weights of its own instead of text"
    if method.memory is not None:
        return f"{method.name} compares the image with others here, which no layer does by itself"
    if method.request.csa is None:
        return (
            f"{method.name} reads the tower's own stream, in which every layer builds on the one before; "
            "there is no local stream that is a sum over layers"
        )
    return None


def layer_maps(method: Method, pixels: Tensor, text: Tensor) -> LayerMaps | None:
    """Split the map of one image by layers; None where `why_no_layers` has a reason.

    Args:
        pixels: (1, 3, H, W), normalised, as they enter the tower.
        text: (2, E), order normal, abnormal.
    """
    if why_no_layers(method) is not None:
        return None
    assert isinstance(method, SimilarityMethod)
    return LocalStream(method, keep_features(method, pixels), text).maps()


def hot_patches(values: Tensor, share: float = HOT_SHARE) -> Tensor:
    """(R, C) -> (R, C) bool, True for the highest `share` of the values, at least one."""
    flat = values.flatten()
    count = max(1, int(share * len(flat)))
    hot = torch.zeros_like(flat, dtype=torch.bool)
    hot[flat.topk(count).indices] = True
    return hot.view(values.shape)


@dataclass
class _Split:
    """At one tap: contributions (P, N), constant (N,), by_head (layers, heads, N)."""

    contributions: Tensor
    constant: Tensor
    by_head: Tensor


class LocalStream:
    """The local stream of one image, with its parts at hand.

    Args:
        method: one for which `why_no_layers` has no reason.
        text: (2, E), its text vectors, order normal, abnormal.
        selection: the layers and heads that count; None: the method's own.

    Attributes:
        method: the method whose layers are those of the selection; tokens: what it reads.

    Raises:
        InputError: the selection does not fit the tower.
    """

    @torch.no_grad()
    def __init__(
        self, method: SimilarityMethod, features: KeptFeatures, text: Tensor, selection: Selection | None = None
    ) -> None:
        chosen = selection or own_selection(method)
        self.method, self.vision, self.text = variant(method, chosen), method.backbone.vision, text
        self.features, self.layers = features, chosen.layers
        self.direction = (text[1] - text[0]).float()  # (E,)
        self.weights = selected_weights(method, chosen)
        self.first = chosen.layers[0]
        self.parts = (START, *chosen.layers) if chosen.start else chosen.layers
        base = features.inputs[self.first]
        self.outputs: dict[int, Tensor] = {START: base}  # part -> (1, 1 + N, W)
        local = base if chosen.start else torch.zeros_like(base)
        taps = {tap: features.inputs[tap + 1] for tap in self.method.taps if tap < self.first}
        for layer in range(self.first, chosen.layers[-1] + 1):
            if layer in chosen.layers:
                attention = self.vision.blocks[layer - 1].attn
                self.outputs[layer] = weighted_projection(attention, features.heads[layer], self.weights_of(layer))
                local = local + self.outputs[layer]
            if layer in self.method.taps:
                taps[layer] = local
        plain = {layer: features.inputs[layer + 1] for layer in self.method.request.plain}
        self.tokens = VisionTokens(
            features.cls, taps, features.grid, plain=plain, neighbours=features.neighbours, cells=features.cells
        )

    def weights_of(self, layer: int) -> Tensor | None:
        return None if self.weights is None else self.weights[layer]

    @torch.no_grad()
    def maps(self) -> LayerMaps:
        """The map split by parts."""
        method, size = self.method, self.features.size
        full = method.patch_map(self.tokens, self.text)  # (1, R, C)
        hot = hot_patches(full[0])
        splits = [self.split(tap) for tap in method.taps]
        contributions = torch.stack([split.contributions for split in splits]).mean(dim=0)  # (P, N)
        constant = torch.stack([split.constant for split in splits]).mean(dim=0)  # (N,)
        by_head = torch.stack([split.by_head for split in splits]).mean(dim=0)  # (layers, heads, N)
        changed = [self.without(part) for part in self.parts]
        removed = [method.patch_map(tokens, self.text) for tokens in changed]

        def grid(values: Tensor) -> NDArray[np.float32]:
            return np.asarray(values.unflatten(-1, self.tokens.grid).float().cpu().numpy(), np.float32)

        def local(tokens: VisionTokens, patches: Tensor) -> float:
            if method.config.top_level == "patches":
                return float(method.local_score(patches))
            return float(method.local_score(grid_to_map(method.drawn(tokens, patches), size, method.config.sigma)))

        taps = [probability[0, 1] for probability in method.patch_probabilities(self.tokens, self.text)]
        flat = hot.flatten()
        whole = bool(flat.all())
        contrast = by_head[..., 0] if whole else by_head[..., flat].mean(dim=-1) - by_head[..., ~flat].mean(dim=-1)
        return LayerMaps(
            parts=self.parts,
            taps=method.taps,
            patch_map=_numpy(full[0] / method.map_maximum),
            tap_maps=_numpy(torch.stack(taps)),
            logits=grid(contributions.sum(dim=0) + constant),
            contributions=grid(contributions),
            constant=grid(constant),
            without=_numpy(torch.cat(removed) / method.map_maximum),
            local_score=local(self.tokens, full),
            local_without=np.array([local(*pair) for pair in zip(changed, removed, strict=True)], np.float32),
            hot=hot.cpu().numpy(),
            head_contrast=_numpy(contrast),
            own_share=method.config.stream_share if method.request.plain else 0.0,
            neighbour_weight=method.config.neighbour_weight if method.request.neighbours else 0.0,
            refined=method.request.cells,
        )

    def _reaches(self, part: int, tap: int) -> bool:
        """Whether a part is in the stream that a tap reads; taps below the first CSA layer read the single stream."""
        return tap >= self.first and part <= tap

    def without(self, part: int) -> VisionTokens:
        """The tokens with a part subtracted wherever it is in."""
        local = {
            tap: tokens - self.outputs[part] if self._reaches(part, tap) else tokens
            for tap, tokens in self.tokens.local.items()
        }
        return replace(self.tokens, local=local)

    def split(self, tap: int) -> _Split:
        """The logit at one tap as a sum; what a tap below the first CSA layer reads counts as constant."""
        stream = self.tokens.local[tap][0, 1:].float()  # (N, W)
        channel, shift, scale = self._linear_part(stream)
        pieces = [
            (self.outputs[part][0, 1:].float() @ channel) * scale
            if self._reaches(part, tap)
            else torch.zeros_like(scale)
            for part in self.parts
        ]
        constant = shift * scale * self._deviation(stream) if tap >= self.first else self._logit(stream)
        heads = [
            self._by_head(layer, channel) * scale if self._reaches(layer, tap) else self._no_heads(len(scale))
            for layer in self.layers
        ]
        return _Split(torch.stack(pieces), constant, torch.stack(heads))

    def _linear_part(self, stream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Direction (W,) in the stream's channels, the norm's shift along it (), and scale (N,) of each patch."""
        to_text = self.vision.projection.float() @ self.direction  # (W,)
        length = self._features(stream).norm(dim=-1).clamp(min=1e-12)  # (N,)
        scale = 1.0 / (length * self.method.temperature)
        if not self.method.config.patch_norm:
            return to_text, torch.zeros((), device=stream.device), scale
        norm = self.vision.ln_post
        channel = norm.weight.float() * to_text
        # subtracting the mean over channels from a part equals subtracting it from the direction
        return channel - channel.mean(), norm.bias.float() @ to_text, scale / self._deviation(stream)

    def _deviation(self, stream: Tensor) -> Tensor:
        """(N,) what the final layer norm divides by; 1 where it is not applied."""
        if not self.method.config.patch_norm:
            return torch.ones(len(stream), device=stream.device)
        return (stream.var(dim=-1, correction=0) + self.vision.ln_post.eps).sqrt()

    def _features(self, stream: Tensor) -> Tensor:
        """(N, W) -> (N, E), float32."""
        if self.method.config.patch_norm:
            norm = self.vision.ln_post
            stream = F.layer_norm(stream, norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)
        return stream @ self.vision.projection.float()

    def _logit(self, stream: Tensor) -> Tensor:
        return F.normalize(self._features(stream), dim=-1) @ self.direction / self.method.temperature

    def _by_head(self, layer: int, channel: Tensor) -> Tensor:
        """(heads, N): what each head of a layer adds along the direction, the projection's bias left out."""
        attention = self.vision.blocks[layer - 1].attn
        back = attention.out.weight.float().T @ channel  # (W,) in the channels of the heads' outputs
        parts = (self.features.heads[layer][0, 1:].float() * back).unflatten(-1, (attention.heads, -1)).sum(dim=-1)
        weights = self.weights_of(layer)
        return (parts if weights is None else parts * weights.float()).T

    def _no_heads(self, patches: int) -> Tensor:
        return torch.zeros(self.vision.config.heads, patches, device=self.direction.device)


def _numpy(values: Tensor) -> NDArray[np.float32]:
    return np.asarray(values.float().cpu().numpy(), np.float32)
