"""The bowel in three dimensions: a folded, bent tube, a lamp beside the lens, and polyps that stand on its wall.

Lengths are in radii of the tube. Rays from the lens are marched along a signed distance (sphere tracing, J. C. Hart,
The Visual Computer 12, 1996), so that what lies behind a fold or a polyp is hidden and the far end is dark.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.shapes import smoothstep
from headclip.data.synthetic.signed_distance import followed, normals, smooth_union, unit

STEPS, STRIDE, FAR = 40, 0.65, 14.0  # of the march; a step goes so far along the distance, as folds bend it


@dataclass
class Lump:
    """A ball on the wall: centre, radius, how much it is drawn out along an axis, and how softly it joins."""

    centre: Tensor  # (3,)
    radius: float
    axis: Tensor  # (3,), of length 1
    stretch: float
    phase: float
    ripple: float

    def distance(self, points: Tensor) -> Tensor:
        """(3, N) -> (N,)."""
        away = points - self.centre[:, None]
        along = (away * self.axis[:, None]).sum(0)
        away = away - self.axis[:, None] * along * (1.0 - 1.0 / self.stretch)
        waves = torch.sin(away * (4.0 / self.radius) + self.phase).prod(0)
        return (away.square().sum(0) + 1e-9).sqrt() - self.radius * (1.0 + self.ripple * waves)


@dataclass
class Tube:
    """The wall: its bend, its folds and the waves of its width, all drawn once."""

    bend: tuple[float, float]
    fold: float  # how far a fold reaches in
    pitch: float  # from fold to fold
    thin: float  # half the width of a fold, of the pitch
    sectors: int
    phases: list[float]
    swell: float

    @classmethod
    def drawn(cls, rng: Rng) -> Tube:
        """A random one."""
        fold = rng.choice((rng.uniform(0.0, 0.1), rng.uniform(0.15, 0.5)), (0.35, 0.65))
        pitch = rng.uniform(0.5, 1.8)
        return cls(
            bend=(rng.normal(0.0, 0.06), rng.normal(0.0, 0.06)),
            fold=fold,
            pitch=pitch,
            thin=max(rng.uniform(0.05, 0.22), 0.45 * fold / pitch),  # steeper folds would be overstepped by the march
            sectors=rng.choice((2, 3)),
            phases=[rng.uniform(0.0, 2.0 * math.pi) for _ in range(7)],
            swell=rng.uniform(0.03, 0.22),
        )

    def around(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of (3, N) points: distance from the axis, angle around it, place along it."""
        z = points[2]
        x, y = points[0] - self.bend[0] * z * z, points[1] - self.bend[1] * z * z
        return (x * x + y * y + 1e-9).sqrt(), torch.atan2(y, x), z

    def distance(self, points: Tensor) -> Tensor:
        """About how far (3, N) points are from the wall, inside positive."""
        radius, angle, z = self.around(points)
        p = self.phases
        wide = 1.0 + self.swell * (
            torch.sin(2.0 * angle + 1.3 * z + p[0])
            + 0.7 * torch.sin(1.7 * z + p[1] + torch.sin(angle + p[2]))
            + 0.4 * torch.sin(5.0 * angle - 2.1 * z + p[3])
        )
        place = z / self.pitch + 0.22 * torch.sin(angle + p[4]) + 0.12 * torch.sin(3.0 * angle + 1.1 * z + p[5])
        off = (place % 1.0 - 0.5) / self.thin
        ridge = torch.exp(-off * off) * (0.55 + 0.45 * torch.cos(self.sectors * angle + p[6] + 0.8 * z))
        return wide - self.fold * ridge - radius


@dataclass
class View:
    """What the march found, each (N,) but `points` and `facing`: where rays end, how far, how squarely the wall there
    faces the lens, and the distances from wall and lumps."""

    points: Tensor  # (3, N)
    far: Tensor
    facing: Tensor
    normal: Tensor  # (3, N)
    wall: Tensor
    lump: Tensor


def joined(tube: Tube, lumps: list[Lump], soft: float, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(3, N) -> the distance from the whole, from the wall and from the lumps; wall and lumps flow together."""
    wall = tube.distance(points)
    if not lumps:
        return wall, wall, torch.full_like(wall, FAR)
    lump = lumps[0].distance(points)
    for other in lumps[1:]:
        lump = torch.minimum(lump, other.distance(points))
    return smooth_union(lump, wall, soft), wall, lump


def march(tube: Tube, lumps: list[Lump], soft: float, origin: Tensor, rays: Tensor) -> View:
    """Follow (3, N) rays of length 1 from the lens at `origin`, (3,), to the wall or into the dark."""
    start, end = torch.full_like(rays[0], 0.05), torch.full_like(rays[0], FAR)
    far = followed(lambda at: STRIDE * joined(tube, lumps, soft, at)[0], origin, rays, start, (0.02, end), STEPS)
    points = origin[:, None] + rays * far
    here, wall, lump = joined(tube, lumps, soft, points)
    normal = normals(lambda place: joined(tube, lumps, soft, place)[0], points, here, 0.004 + 0.003 * far)
    facing = -(normal * rays).sum(0)
    return View(points, far, facing.clamp(0.0, 1.0), normal, wall, lump)


def looking(rng: Rng, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A lens inside the tube, (3,), and its rays through the pixels at x, y in (H, W) pixels, (3, H * W)."""
    wide = rng.uniform(0.9, 1.7) / (0.5 * min(x.shape))
    flat = torch.stack([x * wide, y * wide, torch.ones_like(x)]).reshape(3, -1)
    aside, down = rng.normal(0.0, 0.35), rng.normal(0.0, 0.35)
    cos, sin = math.cos(aside), math.sin(aside)
    turn = torch.tensor([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]], device=x.device)
    cos, sin = math.cos(down), math.sin(down)
    tilt = torch.tensor([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]], device=x.device)
    away, at = rng.uniform(0.0, 0.45), rng.uniform(0.0, 2.0 * math.pi)
    origin = torch.tensor([away * math.cos(at), away * math.sin(at), 0.0], device=x.device)
    return origin, unit(turn @ tilt @ flat)


def grown(rng: Rng, wall: View, room: Tensor, apparent: tuple[float, float]) -> tuple[list[Lump], float]:
    """One polyp of one to four lobes on the wall where `room`, (N,) bool, allows, and how softly it joins the wall.

    apparent: smallest and largest radius over its distance from the lens.
    """
    near = room & (wall.far < rng.choice((1.5, 4.0))) & (wall.far > 0.35)
    places = (near if bool(near.any()) else room).nonzero()[:, 0]
    chosen = int(places[rng.integer(0, len(places) - 1)])
    foot, inward = wall.points[:, chosen], wall.normal[:, chosen]
    distance = float(wall.far[chosen])
    radius = min(rng.log_uniform(*apparent) * distance, 0.6)
    raised = rng.choice((rng.uniform(-0.35, 0.2), rng.uniform(0.2, 1.1)), (0.35, 0.65))
    soft = radius * rng.log_uniform(0.06, 0.6)
    lumps = []
    for k in range(rng.choice((1, 2, 3, 4), (0.55, 0.2, 0.15, 0.1))):
        aside = torch.tensor([rng.normal(), rng.normal(), rng.normal()], device=foot.device)
        size = radius * (1.0 if k == 0 else rng.uniform(0.4, 0.85))
        centre = foot + inward * raised * size + (0.0 if k == 0 else 0.75) * radius * F.normalize(aside, dim=0)
        axis = torch.tensor([rng.normal(), rng.normal(), rng.normal()], device=foot.device)
        lumps.append(
            Lump(
                centre,
                size,
                F.normalize(axis, dim=0),
                rng.uniform(1.0, 1.8),
                rng.uniform(0.0, 6.3),
                rng.uniform(0.0, 0.12),
            )
        )
    return lumps, soft


def sampled(texture: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """A (h, w) texture read at places of period 2, mirrored at its borders: (N,)."""
    where = torch.stack([across, down], dim=-1)[None, None]
    return F.grid_sample(texture[None, None], where, padding_mode="reflection", align_corners=False)[0, 0, 0]


def gleams(view: View, roughness: Tensor, tight: float) -> Tensor:
    """Wet gleams in [0, 1], (N,): where the wall, roughened, faces the lamp."""
    return smoothstep(tight, tight + 0.06, view.facing + roughness)
