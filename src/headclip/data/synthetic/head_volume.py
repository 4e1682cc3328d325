"""One head in three dimensions: the T1-weighted average of 27 scans of a person that is known as Colin27.

Holmes et al., "Enhancement of MR images using registration for signal averaging", JCAT 1998. Whose it is and under
which terms stands in `volumes/head-LICENSE.txt`; `scripts/make_head_volume.py` makes the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import product

import numpy as np
import torch
from torch import Tensor

AIR, SOFT, BONE, INSIDE = range(4)
"""What a place of the volume is: air, tissue outside the skull, bone, or inside the skull."""

CENTRE = (92.0, 112.0, 90.0)
"""Of the brain, in mm from below, from behind and from the left."""


@dataclass(frozen=True)
class Tissue:
    """What a cut through the head shows: T1 level in [0, 1] and shares of bone, of soft tissue outside the skull and
    of what lies inside it, float32 of one shape."""

    level: Tensor
    bone: Tensor
    soft: Tensor
    inside: Tensor


@dataclass(frozen=True)
class HeadVolume:
    """t1, regions: (D, H, W) uint8 with 1 mm a side, from below, behind and the left."""

    t1: Tensor
    regions: Tensor

    def at(self, points: Tensor) -> Tissue:
        """Trilinear values at (3, ...) points in mm from below, behind and the left; air beyond the volume."""
        flat = points.reshape(3, -1)
        low = flat.floor()
        part, low = flat - low, low.long()
        total = torch.zeros(4, flat.shape[1], device=points.device)
        size = torch.tensor(self.t1.shape, device=points.device)[:, None]
        for corner in product((0, 1), repeat=3):
            step = torch.tensor(corner, device=points.device)[:, None]
            place = low + step
            share = torch.where(step == 1, part, 1.0 - part).prod(0) * ((place >= 0) & (place < size)).all(0)
            place = torch.minimum(place.clamp(min=0), size - 1)
            where = (place[0] * size[1] + place[1]) * size[2] + place[2]
            kind = self.regions.reshape(-1)[where]
            total[0] += share * self.t1.reshape(-1)[where] / 255
            for row, region in enumerate((BONE, SOFT, INSIDE), start=1):
                total[row] += share * (kind == region)
        level, bone, soft, inside = (row.reshape(points.shape[1:]) for row in total)
        return Tissue(level, bone, soft, inside)


@lru_cache(maxsize=2)
def head_volume(device: torch.device) -> HeadVolume:
    """The volume on a device, 14 MB."""
    with files(__package__).joinpath("volumes/head.npz").open("rb") as stream, np.load(stream) as stored:
        arrays = [torch.from_numpy(stored[name]).to(device) for name in ("t1", "regions")]
    return HeadVolume(*arrays)
