"""Features of the frozen tower that are kept, so that it runs once an image rather than once an epoch.

What a method learns comes after the head outputs of the CSA layers (HeadCLIP 3.3: the local stream is linear in the
head weights, the global one never sees them), or, where it has no head weights, after the tokens that it taps. So
these and the class token are all that later epochs, other seeds and other settings need. Each tensor is kept by
itself, under the hash of the image: what two methods have in common is kept once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headclip.clip.backbone import Backbone
from headclip.clip.cells import NUMBERS, cells_a_side
from headclip.clip.hardware import has_fast_bf16
from headclip.clip.preprocess import normalise
from headclip.clip.vision import VisionRequest, VisionTokens, VisionTower
from headclip.errors import InputError
from headclip.files import write_atomically
from headclip.memory import available_memory
from headclip.methods.base import Method, TrainableMethod
from headclip.training.feature_codec import FeatureDtype, Plane
from headclip.training.feature_files import FileRows, MemoryRows, Rows

FORMAT = 1
SPARE_BYTES = 1 << 30  # what must stay free on the disk or in memory beside the features


def image_key(image: Tensor) -> str:
    """Key of an image as it enters the tower, before normalisation: SHA-256 (hex) of its size and pixels.

    image: (3, H, W) uint8. Resizing is done by then, so that it is part of the key.
    """
    pixels = image.contiguous().cpu().numpy()
    return hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.tobytes()).hexdigest()


def kept_request(method: Method) -> VisionRequest:
    """What has to be kept of a pass so that the method can go on without the tower.

    Raises:
        InputError: what the method learns reaches into the tower, or it needs more than one pass.
    """
    stream = method.stream()
    if stream is None:
        raise InputError(
            f"{method.name} needs the tower anew in every step, because what it learns works inside the tower; "
            "train it without kept features"
        )
    request = stream.request
    if isinstance(method, TrainableMethod) and not method.learns_maps:
        return replace(request, csa=None, taps=())
    if request.csa is None or stream.head_weights is None:
        return request
    return replace(request, keep_heads=True, taps=tuple(tap for tap in request.taps if tap < request.csa[0]))


def frozen_pass(tower: VisionTower, pixels: Tensor, request: VisionRequest) -> VisionTokens:
    """One pass without gradients over normalised pixels (B, 3, H, W), for a request made by `kept_request`."""
    with torch.no_grad():
        return tower(pixels, request)


def tokens_from_kept(method: Method, kept: VisionTokens) -> VisionTokens:
    """The method's tokens from those of an earlier pass, with its head weights, where it has any, applied anew."""
    stream = method.stream()
    assert stream is not None
    if stream.head_weights is None:
        return kept
    return method.backbone.vision.accumulate(kept, stream.request, stream.head_weights)


@dataclass(frozen=True)
class Part:
    """Where a tensor of a pass lies: its layer, and kind "cls", "base", "neighbours", "cells", "local", "heads" or
    "plain"."""

    kind: str
    layer: int = 0

    def of(self, tokens: VisionTokens) -> Tensor:
        """(B, tokens, width); neighbours as one row for all patches, each number of the cells as one for all cells."""
        if self.kind == "cls":
            return tokens.cls[:, None]
        if self.kind == "base":
            assert tokens.base is not None
            return tokens.base
        if self.kind == "neighbours":
            assert tokens.neighbours is not None
            return tokens.neighbours.flatten(1)[:, None]
        if self.kind == "cells":
            assert tokens.cells is not None
            return tokens.cells.flatten(2)
        return self.place(tokens)[self.layer]

    def place(self, tokens: VisionTokens) -> dict[int, Tensor]:
        """Where a kind with layers lies."""
        return {"local": tokens.local, "heads": tokens.heads, "plain": tokens.plain}[self.kind]


class FeatureStore:
    """Kept features of images of one size on one backbone, by `image_key`, for any method.

    Half precision ("fp16") keeps three decimals of every value; "int8" two, in half the room: 8 bits with a scale for
    every token and head. The class token is always kept as it is. Several processes may use one folder at a time.

    Args:
        size: height and width of the images in pixels, multiples of the patch size.
        folder: where to keep them; None keeps them in memory.
        dtype: how to keep them.
        arithmetic: in which numbers head outputs are projected; None takes the backbone's, or bf16 where the device is
            faster with it (`mixed_linear`).
    """

    def __init__(
        self,
        backbone: Backbone,
        size: tuple[int, int],
        *,
        folder: Path | None = None,
        dtype: FeatureDtype = "fp16",
        arithmetic: torch.dtype | None = None,
    ) -> None:
        self.backbone, self.size, self.dtype = backbone, size, dtype
        self.arithmetic = arithmetic or (torch.bfloat16 if has_fast_bf16(backbone.device) else backbone.dtype)
        patch = backbone.config.vision.patch_size
        self.grid = (size[0] // patch, size[1] // patch)
        self.folder: Path | None = None
        if folder is not None:
            facts = self._facts()
            name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
            self.folder = folder / f"{size[0]}x{size[1]}-{name}"
            about = self.folder / "about.json"
            if not about.exists():  # for people; the name of the folder says it all
                write_atomically(about, json.dumps({"backbone": backbone.name, **facts}, indent=2) + "\n")
        self._rows: dict[str, Rows] = {}

    def _facts(self) -> dict[str, Any]:
        """What must be equal for features to be the same, besides the image and the tensor."""
        config = self.backbone.config
        return {
            "format": FORMAT,
            "backbone_hash": self.backbone.hash,
            "computed_in": str(self.backbone.dtype).removeprefix("torch."),
            "size": self.size,
            "mean": config.mean,
            "std": config.std,
        }

    # --- what is kept

    def missing(self, method: Method, keys: Sequence[str]) -> list[str]:
        """Those of the keys, each once, for which something that the method needs is not kept or damaged."""
        rows = [self._open(plane) for plane in self._planes(kept_request(method)).values()]
        # each part is asked about each key: `write` leaves alone what nobody has found to be damaged yet
        lost = {key for part in rows for key in keys if not part.has(key)}
        return [key for key in dict.fromkeys(keys) if key in lost]

    def add(self, method: Method, keys: Sequence[str], images: Tensor) -> None:
        """Run the tower over images (B, 3, H, W) uint8 and keep what the method needs of it.

        Raises:
            OSError: there is no room.
            InputError: a value is beyond half precision.
        """
        backbone, request = self.backbone, kept_request(method)
        planes = self._planes(request)
        if room := self._no_room(len(keys) * self.bytes_per_image(method)):
            raise OSError(room)
        mean, std = backbone.config.mean, backbone.config.std
        tokens = frozen_pass(backbone.vision, normalise(images.to(backbone.device), mean, std, backbone.dtype), request)
        for plane, part in {plane: part for part, plane in planes.items()}.items():
            self._open(plane).write(dict(zip(keys, plane.encode(part.of(tokens)), strict=True)))

    def tokens(self, method: Method, keys: Sequence[str]) -> VisionTokens:
        """What `method.tokens` gives for these images, gradients to head weights included, without the tower.

        Patch tokens are left out where training does not read them (`TrainableMethod.learns_maps`).

        Raises:
            KeyError: an image is not kept, or damaged; see `missing`.
        """
        if lost := self.missing(method, keys):
            raise KeyError(f"features of {len(lost)} of these images are not kept")
        kept = VisionTokens(torch.empty(0), {}, self.grid)
        for part, plane in self._planes(kept_request(method)).items():
            rows, dtype = self._open(plane), self.backbone.dtype
            if part.kind == "heads":  # as exact as they are kept, where `mixed_linear` takes over
                dtype = torch.float16 if self.arithmetic == torch.bfloat16 != dtype else self.arithmetic
            elif part.kind in ("neighbours", "cells"):  # float32 whatever the tower computes in
                dtype = torch.float32
            values = plane.decode([rows.read(key) for key in keys], self.backbone.device, dtype)
            if part.kind == "cls":
                kept.cls = values[:, 0]
            elif part.kind == "base":
                kept.base = values
            elif part.kind == "neighbours":
                kept.neighbours = values[:, 0].unflatten(-1, self.grid)
            elif part.kind == "cells":
                finer = cells_a_side(self.backbone.config.vision.patch_size)
                kept.cells = values.unflatten(-1, (finer * self.grid[0], finer * self.grid[1]))
            else:
                part.place(kept)[part.layer] = values
        return tokens_from_kept(method, kept)

    # --- room

    def bytes_per_image(self, method: Method) -> int:
        """Bytes that are kept of one image."""
        return sum(plane.bytes for plane in set(self._planes(kept_request(method)).values()))

    def describe(self, method: Method, images: int) -> str:
        """Where features lie and how much room those of so many images take, in a line."""
        one = self.bytes_per_image(method)
        place = "in memory" if self.folder is None else f"in {self.folder}"
        return f"{readable_bytes(one)} an image, {readable_bytes(one * images)} for {images:,}, {place} ({self.dtype})"

    @property
    def bytes(self) -> int:
        """Bytes in use, of what this store has touched."""
        return sum(rows.in_use for rows in self._rows.values())

    def shortage(self, method: Method, images: int) -> str | None:
        """What to say where so many images will not fit, beside those that are kept; None where they will.

        Which images are kept already is not known before they are read: every row there is counts as one of them.
        """
        planes = set(self._planes(kept_request(method)).values())
        return self._no_room(sum(max(0, images * plane.bytes - self._open(plane).in_use) for plane in planes))

    def _no_room(self, wanted: int) -> str | None:
        if self.folder is None:
            free, where = available_memory(), "in memory"
        else:
            free, where = shutil.disk_usage(self.folder).free, f"on the disk of {self.folder.parent}"
        if not wanted or free is None or wanted + SPARE_BYTES <= free:
            return None
        return f"kept features need {readable_bytes(wanted)} {where}, where {readable_bytes(free)} are free"

    # --- tensors

    def _open(self, plane: Plane) -> Rows:
        name = f"{plane.name}.{plane.code}"
        if name not in self._rows:
            rows: Rows = MemoryRows() if self.folder is None else FileRows(self.folder / name, plane.bytes)
            self._rows[name] = rows
        return self._rows[name]

    def _planes(self, request: VisionRequest) -> dict[Part, Plane]:
        """Every tensor that a request keeps. Equal tensors, of one request or of several, have equal planes."""
        config = self.backbone.config.vision
        resized = self.grid != (config.grid, config.grid) and request.interpolation != "bilinear"
        ending = f"-{request.interpolation}" if resized else ""
        csa = request.similarity + ("" if request.scale is None else f"-scale{request.scale!r}")
        first = request.csa[0] if request.csa else config.layers + 1

        def plane(name: str) -> Plane:
            return Plane(name + ending, 1 + self.grid[0] * self.grid[1], config.width, config.head_dim, self.dtype)

        found = {Part("cls"): Plane("cls" + ending, 1, config.width, config.head_dim, "fp32")}
        for tap in request.taps:
            local = f"local-{csa}-{first}-{tap}" + ("" if request.with_base else "-sum")
            found[Part("local", tap)] = plane(f"stream-{tap}" if tap < first else local)
        found |= {Part("plain", layer): plane(f"stream-{layer}") for layer in request.plain}
        if request.neighbours:
            patches = self.grid[0] * self.grid[1]
            found[Part("neighbours")] = Plane("neighbours", 1, patches, patches, "fp32")
        if request.cells:
            cells = self.grid[0] * self.grid[1] * cells_a_side(config.patch_size) ** 2
            found[Part("cells")] = Plane("cells", NUMBERS, cells, cells, "fp32")
        if request.keep_heads and request.csa:
            found[Part("base")] = plane(f"stream-{first - 1}")
            found |= {Part("heads", layer): plane(f"heads-{csa}-{layer}") for layer in range(first, request.csa[1] + 1)}
        return found


def readable_bytes(count: int) -> str:
    """
    >>> readable_bytes(44_900_000)
    '44.9 MB'
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1000:.1f} kB"


Images = Callable[[Sequence[int]], Tensor]
"""Rows of a batch -> those images, (n, 3, H, W) uint8."""


def kept_or_computed(store: FeatureStore, method: Method, keys: Sequence[str], images: Images) -> VisionTokens:
    """`store.tokens`, after the tower has run over those images that are not kept.

    Raises:
        OSError: there is no room to keep them.
        InputError: a value is beyond half precision.
    """
    missing = store.missing(method, keys)
    if missing:
        store.add(method, missing, images([list(keys).index(key) for key in missing]))
    return store.tokens(method, keys)
