"""Signed distances in space, as bodies and what the marches of `solid_view` and `tissue_tube` share.

A distance maps (3, N) points to (N,), negative inside.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Distance = Callable[[Tensor], Tensor]


def extruded(flat: Tensor, z: Tensor, half: float, rounded: float = 0.0) -> Tensor:
    """Distance of a flat shape, whose own distance `flat` is given, drawn out to `half` above and below."""
    out_flat, out_z = flat + rounded, z.abs() - half + rounded
    outside = (out_flat.clamp(min=0.0).square() + out_z.clamp(min=0.0).square() + 1e-9).sqrt()
    return outside + torch.maximum(out_flat, out_z).clamp(max=0.0) - rounded


def smooth_union(one: Tensor, other: Tensor, soft: float) -> Tensor:
    """The nearer of two distances, flowing together over a width of `soft`."""
    mix = (0.5 + 0.5 * (other - one) / soft).clamp(0.0, 1.0)
    return other + (one - other) * mix - soft * mix * (1.0 - mix)


def without(one: Distance, other: Distance, soft: float) -> Distance:
    """`one` where `other` is not, its new edges rounded over a width of `soft`."""
    return lambda points: -smooth_union(-one(points), other(points), soft)


def joined(one: Distance, other: Distance, soft: float) -> Distance:
    """Both bodies, flowing together over a width of `soft`."""
    return lambda points: smooth_union(one(points), other(points), soft)


def normals(distance: Distance, points: Tensor, here: Tensor, step: float | Tensor) -> Tensor:
    """(3, N) of length 1, away from the body, by differences over `step`; here: the distance at the points, (N,)."""
    slopes = []
    for k in range(3):
        moved = points.clone()
        moved[k] += step
        slopes.append((distance(moved) - here) / step)
    return F.normalize(torch.stack(slopes), dim=0)
