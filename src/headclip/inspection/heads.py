"""The learnt weights of attention heads (HeadCLIP 3.3, equation 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from headclip.methods.base import Method


@dataclass(frozen=True)
class HeadWeights:
    """What multiplies the output of each head of the local stream.

    layers: (L,) layers of the local stream, from 1, one for each row. weights: (L, heads) float32, after the
    constraint; 1 leaves a head as CLIP made it. start: (L, heads) the same before training, None where not known.
    constraint: "none", "softplus" or "softmax".
    """

    layers: tuple[int, ...]
    weights: NDArray[np.float32]
    start: NDArray[np.float32] | None = None
    constraint: str = "none"

    @property
    def span(self) -> float:
        """Largest distance of a weight from 1."""
        return float(np.abs(self.weights - 1.0).max())


def head_weights(method: Method, start: Method | None = None) -> HeadWeights | None:
    """The head weights of a method, None where it has none.

    start: the same method before training.
    """
    values = _effective(method)
    if values is None or method.request.csa is None:
        return None
    first = None if start is None else _effective(start)
    begin, end = method.request.csa
    return HeadWeights(
        layers=tuple(range(begin, end + 1)),
        weights=_array(values),
        start=None if first is None else _array(first),
        constraint=str(getattr(method.config, "head_constraint", "none")),
    )


def _effective(method: Method) -> Tensor | None:
    """The weights of any method that has some; asked by name, for they are no part of the methods' contract."""
    found = getattr(method, "effective_head_weights", None)
    return None if found is None else found()


def _array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.detach().float().cpu().numpy().copy()
    return array
