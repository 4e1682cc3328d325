"""What every part of the renderer speaks: seeded randomness and the scene that scenes make and defects change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


class Rng:
    """Randomness of one rendered image: NumPy for scalars, a torch generator on `device` for fields.

    The same seed gives the same image on the same device and library versions, whatever else is rendered beside it.
    fields: a seed for the fields alone; with the same `seed`, scenes are of one kind and differ as its pieces do.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu", fields: int | None = None) -> None:
        self.device = torch.device(device)
        self._numpy = np.random.default_rng(seed)
        self._torch = torch.Generator(device=self.device)
        drawn = int(self._numpy.integers(0, 2**62))
        self._torch.manual_seed(drawn if fields is None else fields)

    def uniform(self, low: float, high: float) -> float:
        return float(self._numpy.uniform(low, high))

    def log_uniform(self, low: float, high: float) -> float:
        return float(np.exp(self._numpy.uniform(np.log(low), np.log(high))))

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self._numpy.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        return bool(self._numpy.random() < probability)

    def choice(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        probabilities = None if weights is None else np.asarray(weights, dtype=float) / float(np.sum(weights))
        return options[int(self._numpy.choice(len(options), p=probabilities))]

    def normal(self, mean: float = 0.0, std: float = 1.0) -> float:
        return float(self._numpy.normal(mean, std))

    def rand(self, *shape: int) -> Tensor:
        """Uniform field in [0, 1), float32, on the device."""
        return torch.rand(shape, generator=self._torch, device=self.device)

    def randn(self, *shape: int) -> Tensor:
        """Normal field, float32, on the device."""
        return torch.randn(shape, generator=self._torch, device=self.device)


@dataclass
class Scene:
    """A defect-free picture before the camera sees it.

    image: (3, H, W) float32 in [0, 1]; foreground: (H, W) bool, where a defect may lie (everywhere for surfaces).
    variants: defects that only the scene itself can draw (a missing, bent or swapped part), by name; each call
    returns the changed image and the (H, W) bool mask of what changed. casts: whether these also change what lies
    beyond them (the shadow behind a stone), which the mask leaves out; otherwise nothing changes outside it.
    """

    image: Tensor
    foreground: Tensor
    family: str
    noun: str
    kind: str = "surface"  # surface, part, grid or tissue
    variants: dict[str, Callable[[], tuple[Tensor, Tensor]]] = field(default_factory=dict)
    casts: bool = False

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Scene:
        """The scene and all its variants with their pixels changed alike."""

        def wrapped(variant: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], tuple[Tensor, Tensor]]:
            def draw() -> tuple[Tensor, Tensor]:
                image, mask = variant()
                return change(image), mask

            return draw

        variants = {name: wrapped(variant) for name, variant in self.variants.items()}
        return replace(self, image=change(self.image), variants=variants)
