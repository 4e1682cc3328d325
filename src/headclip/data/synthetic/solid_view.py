"""How solid bodies on a table are seen: a camera, a march along its rays, a lamp with shadows, dull and bright skins.

World coordinates: the table is the plane z = 0, bodies stand on it. Rays are marched along a signed distance (sphere
tracing, J. C. Hart, The Visual Computer 12, 1996).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.shapes import Light, smoothstep
from headclip.data.synthetic.signed_distance import Distance, followed, normals, unit

STEPS, SHADOW_STEPS = 36, 10


@dataclass
class Camera:
    """Where it is, (3,), the rays through its pixels, (3, N) of length 1, and its axes to the right, down and back."""

    origin: Tensor
    rays: Tensor
    axes: Tensor  # (3, 3): rows right, down and back

    @classmethod
    def drawn(cls, rng: Rng, x: Tensor, y: Tensor, across: float) -> Camera:
        """A random one that sees about `across` units of the table at (0, 0); x, y: pixels from the middle, (H, W)."""
        steep = rng.choice((0.5 * math.pi - 1e-3, rng.uniform(0.45, 1.5)), (0.4, 0.6))
        around, far = rng.uniform(0.0, 2.0 * math.pi), across * rng.log_uniform(1.2, 6.0)
        back = torch.tensor([math.cos(steep) * math.cos(around), math.cos(steep) * math.sin(around), math.sin(steep)])
        right = torch.tensor([-math.sin(around), math.cos(around), 0.0])
        axes = torch.stack([right, -torch.linalg.cross(back, right), back]).to(x.device)
        flat = torch.stack([x, y]) * (across / min(x.shape) / far)
        rays = torch.einsum("kn,kc->cn", torch.cat([flat, -torch.ones_like(flat[:1])]).reshape(3, -1), axes)
        aim = torch.tensor([rng.normal(0.0, 0.06) * across, rng.normal(0.0, 0.06) * across, 0.2], device=x.device)
        return cls(aim + far * axes[2], unit(rays), axes)


@dataclass
class Seen:
    """What the rays met: how far they went, (N,), points and normals, (3, N), and which met a body, (N,) bool."""

    far: Tensor
    points: Tensor
    normal: Tensor
    body: Tensor


def march(distance: Distance, camera: Camera, top: float, stride: float) -> Seen:
    """Follow the rays from the height `top` down to the table; no step is longer than `stride`."""
    down = -camera.rays[2].clamp(max=-0.02)
    start, end = ((camera.origin[2] - top) / down).clamp(min=0.0), camera.origin[2] / down
    far = followed(lambda at: distance(at).clamp(max=stride), camera.origin, camera.rays, start, (0.0, end), STEPS)
    points = camera.origin[:, None] + camera.rays * far
    body = (far < end - 1e-4) & (distance(points) < 0.03)
    return Seen(far, points, _normals(distance, points, body), body)


def _normals(distance: Distance, points: Tensor, body: Tensor) -> Tensor:
    """(3, N): of the bodies where they were met, straight up elsewhere."""
    up = torch.zeros_like(points)
    up[2] = 1.0
    met = points[:, body]
    if met.shape[1] == 0:
        return up
    up[:, body] = normals(distance, met, distance(met), 0.004)
    return up


@dataclass
class Lamp:
    """One lamp and what surrounds it."""

    way: Tensor  # (3,) to the lamp
    ambient: float
    soft: float  # of the shadow
    shadow: float

    @classmethod
    def drawn(cls, rng: Rng, camera: Camera, light: Light) -> Lamp:
        """A lamp where `light` stands, seen from the camera, and never under the table."""
        way = F.normalize(torch.tensor([light.x, light.y, light.z], device=camera.axes.device) @ camera.axes, dim=0)
        way[2] = max(float(way[2]), 0.35)
        soft, shadow = rng.log_uniform(2.0, 24.0), rng.choice((1.0, rng.uniform(0.2, 1.0)))
        return cls(F.normalize(way, dim=0), light.ambient, soft, shadow)

    def arrives(self, distance: Distance, seen: Seen, reach: float) -> Tensor:
        """How much of the lamp's light comes through to each point, (N,) in [0, 1]."""
        start = seen.points + 0.02 * seen.normal
        free, far = torch.ones_like(seen.far), torch.full_like(seen.far, 0.03)
        for _ in range(SHADOW_STEPS):
            clear = distance(start + self.way[:, None] * far)
            free = torch.minimum(free, (0.5 + 0.5 * self.soft * clear / far).clamp(0.0, 1.0))
            far = (far + clear.clamp(0.02, 0.25 * reach)).clamp(max=reach)
        return 1.0 - self.shadow * (1.0 - free)


def hollows(distance: Distance, seen: Seen) -> Tensor:
    """How open each point lies, (N,) in [0, 1]: less in corners and under edges."""
    closed = torch.zeros_like(seen.far)
    for reach, weight in ((0.05, 0.5), (0.2, 0.5)):
        closed = closed + weight * (1.0 - distance(seen.points + seen.normal * reach) / reach).clamp(0.0, 1.0)
    return 1.0 - closed


@dataclass
class Skin:
    """How a surface gives light back: dull, glossy, or as a mirror of a room with bright stripes."""

    gloss: float
    tight: float
    metal: float
    stripes: tuple[float, float, Tensor]  # frequency, phase, and the way (3,) along which the room changes

    @classmethod
    def drawn(cls, rng: Rng, gloss: float, tight: float) -> Skin:
        """A random one with a highlight as of a `Light`."""
        metal = rng.choice((0.0, rng.uniform(0.3, 1.0)), (0.65, 0.35))
        way = F.normalize(rng.randn(3), dim=0)
        return cls(gloss, tight, metal, (rng.uniform(1.5, 8.0), rng.uniform(0.0, 6.3), way))

    def lit(self, colours: Tensor, seen: Seen, camera: Camera, lamp: Lamp, free: Tensor, open_: Tensor) -> Tensor:
        """(3, N): colours, (3, N), of what was seen, in the lamp's light that is `free` to arrive."""
        facing = (seen.normal * lamp.way[:, None]).sum(0).clamp(min=0.0)
        diffuse = lamp.ambient * open_ + (1.0 - lamp.ambient) * facing * free * 1.5
        image = colours * diffuse
        mirrored = camera.rays - 2.0 * (camera.rays * seen.normal).sum(0) * seen.normal
        if self.metal > 0.0:
            frequency, phase, way = self.stripes
            room = 0.35 + 0.65 * smoothstep(-0.3, 0.6, torch.sin(frequency * (mirrored * way[:, None]).sum(0) + phase))
            image = image + self.metal * (colours * room * (0.3 + 0.7 * open_) - image)
        towards = (mirrored * lamp.way[:, None]).sum(0)
        return image + self.gloss * free * torch.exp((0.5 * self.tight * (towards - 1.0)).clamp(min=-20.0))
