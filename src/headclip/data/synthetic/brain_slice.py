"""A cut through a real head's anatomy: laid anywhere, bent into other heads, in the contrasts of MRI and CT."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.head_volume import CENTRE, Tissue, head_volume
from headclip.data.synthetic.lettering import glyph_rows
from headclip.data.synthetic.noise import smooth_noise
from headclip.data.synthetic.shapes import pixel_grid, turned

LENGTHS = {"axial": (218.0, 182.0), "coronal": (182.0, 182.0), "sagittal": (182.0, 218.0)}
"""Height and width of the head in mm as each cut shows it."""

INSIDE_LEVELS = (0.0, 0.12, 0.30, 0.42, 0.62)  # T1 levels of nothing, fluid, grey matter, white matter, vessels
OUTSIDE_LEVELS = (0.0, 0.10, 0.28, 0.45, 0.80)  # and of nothing, tendons, muscle, skin, fat


@dataclass(frozen=True)
class Contrast:
    """How bright each tissue is, in [0, 1]: (fluid, grey, white, vessels), (tendon, muscle, skin, fat) and bone; and
    whether what is ill tends to be brighter."""

    inner: tuple[float, ...]
    outer: tuple[float, ...]
    bone: float
    brighter: float


def _contrast(rng: Rng) -> Contrast:
    """A random one of T1, T2, FLAIR, CT or none that exists."""
    kind = rng.choice(("t1", "t2", "flair", "ct", "any"), (0.36, 0.22, 0.18, 0.1, 0.14))
    draw = rng.uniform
    soft = (draw(0.02, 0.2), draw(0.2, 0.45), draw(0.3, 0.6), draw(0.6, 1.0))
    bone = draw(0.02, 0.12)
    if kind == "t1":
        grey = draw(0.28, 0.5)
        inner = (draw(0.04, 0.2), grey, grey + draw(0.05, 0.28), draw(0.5, 0.95))
        return Contrast(inner, soft, bone, 0.65)
    if kind == "t2":
        grey = draw(0.4, 0.62)
        return Contrast((draw(0.75, 1.0), grey, grey - draw(0.05, 0.25), draw(0.05, 0.3)), soft, bone, 0.8)
    if kind == "flair":
        grey = draw(0.35, 0.6)
        return Contrast((draw(0.02, 0.15), grey, grey - draw(0.0, 0.14), draw(0.1, 0.5)), soft, bone, 0.9)
    if kind == "ct":
        grey = draw(0.35, 0.55)
        outer = (draw(0.3, 0.5), draw(0.35, 0.5), draw(0.2, 0.4), draw(0.02, 0.2))
        return Contrast((draw(0.08, 0.25), grey, grey - draw(0.02, 0.1), draw(0.4, 0.6)), outer, draw(0.85, 1.0), 0.6)
    return Contrast(tuple(rng.rand(4).tolist()), tuple(rng.rand(4).tolist()), draw(0.0, 1.0), 0.5)


def _tones(level: Tensor, levels: tuple[float, ...], tones: tuple[float, ...]) -> Tensor:
    """T1 levels, piecewise linearly turned into others."""
    value = torch.full_like(level, tones[0])
    for (low, high), (before, after) in zip(pairwise(levels), pairwise((tones[0], *tones)), strict=True):
        value = value + (after - before) * ((level - low) / (high - low)).clamp(0.0, 1.0)
    return value


def _cut(rng: Rng, height: int, width: int) -> Tensor:
    """(3, H, W) places in the volume that the pixels of a random cut show."""
    side = min(height, width)
    lie = rng.choice(("axial", "coronal", "sagittal"), (0.68, 0.14, 0.18))
    tall, broad = LENGTHS[lie]
    scale = max(tall / height, broad / width) / rng.uniform(0.74, 1.12)  # mm a pixel
    x, y = pixel_grid(rng, height, width)
    x, y = turned(x, y, rng.normal(0.0, 0.06), rng.normal(0.0, 0.02) * side, rng.normal(0.0, 0.02) * side)
    u, v = x * scale * rng.uniform(0.92, 1.1), -y * scale * rng.uniform(0.92, 1.1)
    u = u if rng.chance(0.5) else -u
    lean, roll = rng.normal(0.0, 0.12), rng.normal(0.0, 0.04)
    depth = lean * v + roll * u
    if lie == "axial":
        points = [depth + rng.uniform(-42.0, 52.0), v, u]
    elif lie == "coronal":
        points = [v + rng.uniform(-8.0, 8.0), depth + rng.uniform(-55.0, 50.0), u]
    else:
        points = [v + rng.uniform(-8.0, 8.0), u, depth + rng.choice((-1.0, 1.0)) * rng.uniform(0.0, 50.0)]
    place = torch.stack(_bent(rng, points, scale))
    far = (place.square().sum(0)) / rng.uniform(25.0, 45.0) ** 2  # wider or narrower ventricles
    place = place * (1.0 - rng.uniform(-0.25, 0.5) * torch.exp(-far))
    return place + torch.tensor(CENTRE, device=rng.device)[:, None, None]


def _bent(rng: Rng, points: list[Tensor], scale: float) -> list[Tensor]:
    """The places moved by up to some mm, smoothly: another head and other folds."""
    height, width = points[0].shape
    bent = []
    coarse, fine = rng.uniform(1.0, 4.0), rng.uniform(0.3, 1.3)
    for point in points:
        wide = smooth_noise(rng, height, width, rng.uniform(50.0, 90.0) / scale)
        bent.append(point + coarse * wide + fine * smooth_noise(rng, height, width, rng.uniform(9.0, 18.0) / scale))
    return bent


@dataclass
class Slice:
    """One cut in one contrast, and the scanner: what every painting of it shares."""

    place: Tensor  # (3, H, W) mm in the volume
    tissue: Tissue
    contrast: Contrast
    gain: Tensor  # (H, W)
    grain: Tensor  # (H, W)
    stripped: bool  # of all outside the brain
    printed: Tensor  # (H, W) in [0, 1]
    back: float  # brightness of nothing

    @cached_property
    def sound(self) -> Tensor:
        """(H, W): the own tissue, before scanner and print."""
        return self.plain(self.tissue)

    def moved(self, shift: Tensor) -> Tissue:
        """What the pixels show once all was moved by (2, H, W) pixels down and across."""
        height, width = self.grain.shape
        rows = torch.arange(height, device=shift.device)[:, None] - shift[0]
        columns = torch.arange(width, device=shift.device)[None, :] - shift[1]
        where = torch.stack([columns / (width - 1), rows / (height - 1)], dim=-1)[None] * 2.0 - 1.0
        place = F.grid_sample(self.place[None], where, padding_mode="border", align_corners=True)[0]
        return head_volume(place.device).at(place)

    def plain(self, tissue: Tissue) -> Tensor:
        """(H, W) in about [0, 1]: the tissue before scanner and print."""
        inner = _tones(tissue.level, INSIDE_LEVELS, self.contrast.inner) * tissue.inside
        if self.stripped:
            return inner
        marrow = self.contrast.bone * (0.8 + 1.5 * tissue.level) if self.contrast.bone < 0.5 else self.contrast.bone
        outer = _tones(tissue.level, OUTSIDE_LEVELS, self.contrast.outer)
        return inner + marrow * tissue.bone + outer * tissue.soft

    def scanned(self, value: Tensor) -> Tensor:
        """(1, H, W) in [0, 1]: with the coil's shading, noise and print."""
        value = ((value * self.gain + self.grain).square() + 0.2 * self.grain.square()).sqrt()
        value = self.back + (1.0 - self.back) * value
        return (value + (1.0 - value) * self.printed).clamp(0.0, 1.0)[None]


def draw_slice(rng: Rng, height: int, width: int) -> Slice:
    """A random cut in a random contrast."""
    place = _cut(rng, height, width)
    side = min(height, width)
    gain = rng.uniform(0.75, 1.15) * (1.0 + rng.uniform(0.0, 0.15) * smooth_noise(rng, height, width, side * 0.8))
    grain = rng.log_uniform(0.003, 0.04) * smooth_noise(rng, height, width, rng.uniform(1.0, 2.2))
    printed = _print(rng, height, width) if rng.chance(0.25) else torch.zeros_like(grain)
    back = rng.uniform(0.02, 0.12) if rng.chance(0.1) else 0.0
    tissue = head_volume(rng.device).at(place)
    return Slice(place, tissue, _contrast(rng), gain, grain, rng.chance(0.2), printed, back)


def _print(rng: Rng, height: int, width: int) -> Tensor:
    """(H, W): letters near a corner, as scanners and web pages write them."""
    x, y = pixel_grid(rng, height, width)
    size = min(height, width) * rng.uniform(0.03, 0.06)
    rows, columns = rng.integer(1, 3), rng.integer(1, 8)
    across = rng.choice((-1.0, 1.0)) * (0.48 * width - 0.36 * columns * size)
    letters, _ = glyph_rows(rng, x - across, y - rng.choice((-1.0, 1.0)) * (0.46 * height - 0.6 * rows * size), size,
                            columns, rows)  # fmt: skip
    return letters * rng.uniform(0.5, 1.0)
