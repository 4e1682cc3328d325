"""The one graph that an export captures: 8-bit images in, anomaly maps and scores out."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import torch
from torch import Tensor, nn

from headclip.clip.packed import unpack_tower
from headclip.clip.preprocess import MOST_STRETCH, input_size, least_patches
from headclip.clip.vision import Interpolation, VisionTokens, VisionTower
from headclip.errors import InputError
from headclip.export.comparing import ComparisonGraph
from headclip.export.operators import SizeLike, as_tensor, bilinear_operator, resample_levels, smoothed, top_mean
from headclip.inference.detector import Detector
from headclip.methods.base import Method, list_methods, method_class
from headclip.methods.scoring import joint_score, map_operator, scaled_odds
from headclip.methods.similarity import SimilarityMethod


class GraphTower(VisionTower):
    """A tower's own parameters, with patches and position embeddings in operations that take symbolic sizes."""

    def __init__(self, tower: VisionTower) -> None:
        nn.Module.__init__(self)
        unpack_tower(tower)  # which stays so: a graph has the weights as they are
        self.config = tower.config
        self.class_embedding, self.position_embedding = tower.class_embedding, tower.position_embedding
        self.patch_embedding, self.detail, self.projection = tower.patch_embedding, tower.detail, tower.projection
        self.ln_pre, self.blocks, self.ln_post = tower.ln_pre, tower.blocks, tower.ln_post

    def positions(self, grid: tuple[SizeLike, SizeLike], interpolation: Interpolation = "bilinear") -> Tensor:
        """Bilinear position embeddings for any grid; where it is the trained one, they come out as they are."""
        side, width = self.config.grid, self.config.width
        first, rest = self.position_embedding[:1], self.position_embedding[1:]
        rows, columns = (bilinear_operator(count, side) for count in grid)
        tall = (rows @ rest.reshape(side, side * width)).unflatten(1, (side, width))  # (rows, side, W)
        both = columns @ tall.transpose(0, 1).flatten(1)  # (columns, rows * W)
        return torch.cat([first, both.unflatten(1, (grid[0], width)).transpose(0, 1).flatten(0, 1)])

    def embed(
        self, pixels: Tensor, interpolation: Interpolation = "bilinear"
    ) -> tuple[Tensor, tuple[SizeLike, SizeLike]]:
        """As in the tower itself; the patch convolution is written as a product with patches cut out."""
        patch = self.config.patch_size
        grid = (pixels.shape[-2] // patch, pixels.shape[-1] // patch)
        cut = pixels.unflatten(-1, (grid[1], patch)).unflatten(-3, (grid[0], patch))  # (B, 3, rows, p, columns, p)
        patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (B, N, 3, p, p)
        tokens = patches.flatten(2) @ self.patch_embedding.weight.flatten(1).T  # (B, N, width)
        if self.detail is not None:
            answers = self.detail.answers(patches.flatten(0, 1))  # each patch as an image of its own
            tokens = tokens + self.detail(answers.view(*tokens.shape[:2], *answers.shape[2:]))
        cls = self.class_embedding.expand(tokens.shape[0], 1, -1)
        return self.ln_pre(torch.cat([cls, tokens], dim=1) + self.positions(grid, interpolation)), grid


class ExportGraph(nn.Module):
    """What `Detector.predict_arrays` does to images of one size, with nothing left outside but decoding.

    The text tower is gone: its two vectors are constants, and so are head weights, temperature and the patches of
    reference images or peers. Thresholds are not part of it. Built of a detector's method in float32 on the CPU; shares
    the vision tower's parameters.

    Raises:
        InputError: a method that does not score the tokens of a single vision pass.
    """

    text: Tensor
    head_weights: Tensor | None
    mean: Tensor
    std: Tensor
    operator: Tensor | None

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        method = check_exportable(detector.method)
        config = detector.backbone.config
        stream = method.stream()
        assert stream is not None
        self.tower = GraphTower(detector.backbone.vision)
        self.request = stream.request
        self.patch = config.vision.patch_size
        self.image_size, self.keep_aspect = detector.image_size, detector.keep_aspect
        self.side = max(self.patch, round(self.image_size / self.patch) * self.patch) // self.patch
        self.method = _without_text(method, self.tower)
        weights = stream.head_weights
        self.register_buffer("text", detector.text.detach().float().clone())
        self.register_buffer("head_weights", None if weights is None else weights.detach().clone())
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(config.std)[:, None, None])
        memory = method.memory
        self.comparison = None if memory is None else ComparisonGraph(memory, fixed=not self.keep_aspect)
        values = self.side * self.method.finer
        fixed = map_operator(values, self.side * self.patch, self.method.config.sigma, None)
        self.register_buffer("operator", None if self.keep_aspect else fixed.clone())
        self.rounding = _rounding(self.image_size, self.patch, self.side) if self.keep_aspect else None
        self.least = least_patches(self.image_size, self.patch, detector.least_side)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, H, W, 3) uint8, any B, H and W -> map (B, H, W) and three scores (B,) in [0, 1], ordered as OUTPUTS."""
        height, width = images.shape[1], images.shape[2]
        rows, columns = self.grid(height, width)
        pixels = self.pixels(images, rows, columns)
        tokens = self.tower(pixels, self.request, self.head_weights)
        return self.score(tokens, rows, columns, height, width)

    def grid(self, height: SizeLike, width: SizeLike) -> tuple[SizeLike, SizeLike]:
        """Patches along both sides: `input_size` in whole numbers, so that every engine rounds alike."""
        if self.rounding is None:
            return self.side, self.side
        h, w = as_tensor(height), as_tensor(width)
        tall, wide = torch.minimum(h, MOST_STRETCH * w), torch.minimum(w, MOST_STRETCH * h)
        most = len(self.rounding[0])
        counts: list[Tensor] = []
        for ups, over, under in zip(self.rounding, (tall, wide), (wide, tall), strict=True):
            halves = (2 * torch.arange(1, most + 1) - 1) ** 2 * under  # the k-th: side * sqrt(over / under) = k - 1/2
            value = 4 * self.side**2 * over + torch.tensor(ups)
            counts.append((halves < value).sum().clamp(min=1))
        return self.numbers(*self.at_least(counts[0], counts[1], tall, wide), max(most, MOST_STRETCH * self.least))

    def at_least(self, rows: Tensor, columns: Tensor, tall: Tensor, wide: Tensor) -> tuple[Tensor, Tensor]:
        """More rows and columns where the short side would have fewer than `least` patches."""
        if self.least <= 1:
            return rows, columns
        short, long = torch.minimum(tall, wide), torch.maximum(tall, wide)
        numbers = 2 * torch.arange(1, MOST_STRETCH * self.least + 1)
        more = (numbers * short <= 2 * self.least * long + short).sum()
        few, least = torch.minimum(rows, columns) < self.least, torch.full_like(more, self.least)
        lying = tall < wide
        return (
            torch.where(few, torch.where(lying, least, more), rows),
            torch.where(few, torch.where(lying, more, least), columns),
        )

    @staticmethod
    def numbers(rows: Tensor, columns: Tensor, most: int) -> tuple[SizeLike, SizeLike]:
        """As sizes of what comes after, each from 1 to `most`."""
        counts = []
        for count in (rows.item(), columns.item()):
            torch._check(count >= 1)
            torch._check(count <= most)
            counts.append(cast(int, count))
        return counts[0], counts[1]

    def pixels(self, images: Tensor, rows: SizeLike, columns: SizeLike) -> Tensor:
        """Resized as `headclip.clip.preprocess.resize` does, columns first, and normalised: (B, 3, H', W')."""
        wide = resample_levels(images.permute(2, 0, 1, 3), columns, self.patch)  # (W', B, H, 3)
        both = resample_levels(wide.permute(2, 1, 0, 3), rows, self.patch)  # (H', B, W', 3)
        return (both.permute(1, 3, 0, 2) / 255 - self.mean) / self.std

    def score(
        self, tokens: VisionTokens, rows: SizeLike, columns: SizeLike, height: SizeLike, width: SizeLike
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `SimilarityMethod.score`, with operators that are computed for the sizes at hand."""
        method, config = self.method, self.method.config
        patches = method.patch_map(tokens, self.text)  # (B, rows, columns)
        drawn = method.drawn(tokens, patches)
        global_score = method.global_score(tokens, self.text)
        if self.comparison is not None:
            patches, drawn, global_score = self.compared(tokens, patches, drawn, global_score)
        up = [self.to_tower(count) for count in (rows, columns)]
        at_tower = up[0][None] @ drawn @ up[1].T[None]  # equal ranks: OpenVINO asks for them
        out = [(bilinear_operator(n, u.shape[0]) @ u)[None] for n, u in zip((height, width), up, strict=True)]
        anomaly_map = (out[0] @ drawn @ out[1].mT / method.map_maximum).clamp(0, 1)
        local_score = self.local_score(patches if config.top_level == "patches" else at_tower)
        joint = joint_score(global_score, local_score, config.alpha)
        return anomaly_map, joint.clamp(0, 1), global_score.clamp(0, 1), local_score.clamp(0, 1)

    def compared(
        self, tokens: VisionTokens, patches: Tensor, drawn: Tensor, global_score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Patch values, drawn ones and global scores beside the reference images."""
        assert self.comparison is not None
        of_patches, of_images = self.comparison(self.method.compared(tokens))
        factor = of_patches.exp().unflatten(1, tokens.grid)
        raised = self.method.with_odds(patches, factor)
        finer = raised
        if drawn is not patches:
            rows, columns = (bilinear_operator(n * self.method.finer, n) for n in tokens.grid)
            finer = self.method.with_odds(drawn, rows[None] @ factor @ columns.T[None])
        return raised, finer, scaled_odds(global_score, of_images.exp())

    def local_score(self, values: Tensor) -> Tensor:
        """As `SimilarityMethod.local_score`."""
        flat = values.flatten(1)
        if self.method.config.normalise_map == "image":
            low, high = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
            flat = (flat - low) / (high - low).clamp(min=1e-12)
        else:
            flat = flat / self.method.map_maximum
        return top_mean(flat, self.method.config.top_share, fixed=not self.keep_aspect)

    def to_tower(self, count: SizeLike) -> Tensor:
        """(pixels of the tower's input, values that the map is drawn from): upsampled and smoothed."""
        if self.operator is not None:
            return self.operator
        size = count * self.patch
        return smoothed(bilinear_operator(size, count * self.method.finer), size, self.method.config.sigma)


def check_exportable(method: Method) -> SimilarityMethod:
    """The method itself, if one graph can hold it.

    Raises:
        InputError: it needs more than one vision pass and two text vectors, or a setting that has no graph.
    """
    plain = (
        isinstance(method, SimilarityMethod)
        and type(method).score is SimilarityMethod.score
        and type(method).score_pixels is Method.score_pixels
        and method.stream() is not None
    )
    if not plain:
        raise InputError(
            f"{method.name} cannot be exported: it needs more of an image than one vision pass and two text vectors; "
            f"methods that can: {', '.join(exportable_methods())}"
        )
    assert isinstance(method, SimilarityMethod)
    if method.request.interpolation != "bilinear":
        raise InputError(
            f"position_interpolation={method.request.interpolation} cannot be exported; "
            "use --set position_interpolation=bilinear"
        )
    return method


def exportable_methods() -> list[str]:
    """Names of the methods that score the tokens of a single vision pass."""
    return [
        name
        for name in list_methods()
        if issubclass(cls := method_class(name), SimilarityMethod) and cls.score is SimilarityMethod.score
    ]


def _without_text(method: SimilarityMethod, tower: GraphTower) -> SimilarityMethod:
    """A shallow copy that reads the graph's tower, without prompts and references; its temperature is a number."""
    bare = copy.copy(method)
    bare._modules = {name: part for name, part in method._modules.items() if name not in ("prompts", "memory")}
    bare._parameters = {} if method.needs_text else dict(method._parameters)  # else all is in text and head weights
    bare.config = replace(method.config, temperature=method.temperature)
    object.__setattr__(bare, "backbone", SimpleNamespace(vision=tower, config=method.backbone.config))
    return bare


def _rounding(image_size: int, patch: int, side: int) -> tuple[list[int], list[int]]:
    """For rows and for columns, which k of each half step k - 1/2 `input_size` rounds up (1) where it is exact.

    Half steps are reached by images whose sides are as (2k - 1)^2 to (2 * side)^2 alone; there, what counts is how
    Python's floating point numbers fall.
    """
    most = MOST_STRETCH**0.5 * side
    ups: tuple[list[int], list[int]] = ([], [])
    for k in range(1, math.ceil(most) + 2):
        short, long = (2 * k - 1) ** 2, 4 * side**2
        for axis, (height, width) in enumerate([(short, long), (long, short)]):
            size = input_size(height, width, image_size=image_size, patch=patch, keep_aspect=True)
            ups[axis].append(int(size[axis] // patch >= k))
    return ups
