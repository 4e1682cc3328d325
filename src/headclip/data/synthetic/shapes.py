"""Coordinates, signed distances, light and colour: the drawing tools that every scene shares.

Signed distances are in pixels, negative inside. Images are (3, H, W), masks and fields (H, W).
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.noise import smooth_noise


def pixel_grid(rng: Rng, height: int, width: int) -> tuple[Tensor, Tensor]:
    """(x, y) in pixels from the image centre, each (H, W)."""
    y = torch.arange(height, device=rng.device, dtype=torch.float32) - 0.5 * (height - 1)
    x = torch.arange(width, device=rng.device, dtype=torch.float32) - 0.5 * (width - 1)
    return x[None, :].expand(height, width), y[:, None].expand(height, width)


def turned(x: Tensor, y: Tensor, angle: float, cx: float = 0.0, cy: float = 0.0) -> tuple[Tensor, Tensor]:
    """Coordinates in a frame at (cx, cy) that is rotated by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    dx, dy = x - cx, y - cy
    return dx * cos + dy * sin, dy * cos - dx * sin


def random_angle(rng: Rng, upright: float = 0.5) -> float:
    """Mostly near a multiple of a quarter turn (cameras are mounted straight), else any angle."""
    if rng.chance(upright):
        return 0.5 * math.pi * rng.integer(0, 3) + rng.normal(0.0, 0.02)
    return rng.uniform(0.0, 2.0 * math.pi)


def textile_frame(rng: Rng, height: int, width: int, upright: float = 0.5, warp: float = 1.0) -> tuple[Tensor, Tensor]:
    """Rotated pixel coordinates with a slight random perspective and slow warp, for periodic patterns."""
    x, y = pixel_grid(rng, height, width)
    u, v = turned(x, y, random_angle(rng, upright))
    side = min(height, width)
    if rng.chance(0.4):
        tilt = rng.normal(0.0, 0.15)
        u, v = u * (1.0 + tilt * v / max(height, width)), v * (1.0 + 0.5 * tilt * v / max(height, width))
    if warp > 0.0 and rng.chance(0.6):
        amount = warp * side * rng.log_uniform(0.002, 0.03)
        u = u + amount * smooth_noise(rng, height, width, side * rng.uniform(0.3, 1.0))
        v = v + amount * smooth_noise(rng, height, width, side * rng.uniform(0.3, 1.0))
    return u, v


def coverage(distance: Tensor, softness: float = 1.0) -> Tensor:
    """Anti-aliased inside-ness in [0, 1] of a signed distance; the edge is `softness` pixels wide."""
    return (0.5 - distance / softness).clamp(0.0, 1.0)


def smoothstep(low: float | Tensor, high: float | Tensor, value: Tensor) -> Tensor:
    """0 below `low`, 1 above `high`, and smooth between."""
    t = ((value - low) / (high - low)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def box(x: Tensor, y: Tensor, half_x: float | Tensor, half_y: float | Tensor, radius: float | Tensor = 0.0) -> Tensor:
    """Rounded rectangle; `half_x`, `half_y` include the corner radius."""
    qx, qy = x.abs() - (half_x - radius), y.abs() - (half_y - radius)
    return (qx.clamp(min=0).square() + qy.clamp(min=0).square()).sqrt() + torch.maximum(qx, qy).clamp(max=0) - radius


def disc(x: Tensor, y: Tensor, radius: float | Tensor) -> Tensor:
    return (x.square() + y.square()).sqrt() - radius


def polygon(x: Tensor, y: Tensor, radius: float, sides: int) -> Tensor:
    """Regular polygon of inner radius `radius` (exact along its sides, a little short beyond its corners)."""
    sector = 2.0 * math.pi / sides
    angle = torch.atan2(y, x)
    angle = angle - sector * torch.round(angle / sector)
    return (x.square() + y.square()).sqrt() * angle.cos() - radius


def segment(x: Tensor, y: Tensor, x0: float, y0: float, x1: float, y1: float, radius: float) -> Tensor:
    """Line from (x0, y0) to (x1, y1) with round ends."""
    dx, dy = x1 - x0, y1 - y0
    along = (((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-6)).clamp(0.0, 1.0)
    return ((x - x0 - along * dx).square() + (y - y0 - along * dy).square()).sqrt() - radius


def dome(distance: Tensor, rim: float, profile: float = 2.0) -> Tensor:
    """Height in [0, rim] that rises from a signed distance's edge to a plateau `rim` pixels inside."""
    t = (1.0 + distance / rim).clamp(0.0, 1.0)
    return rim * (1.0 - t**profile).clamp(min=0.0) ** (1.0 / profile)


@dataclass(frozen=True)
class Light:
    """A distant light: unit direction towards it, share of ambient light, strength and tightness of gloss."""

    x: float
    y: float
    z: float
    ambient: float
    gloss: float
    tightness: float


def random_light(rng: Rng, gloss: float | None = None) -> Light:
    around, up = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.5, 1.4)
    shine = rng.choice([0.0, rng.uniform(0.1, 0.9)]) if gloss is None else gloss
    return Light(
        math.cos(around) * math.cos(up), math.sin(around) * math.cos(up), math.sin(up),
        rng.uniform(0.15, 0.6), shine, rng.log_uniform(4.0, 60.0),
    )  # fmt: skip


def relief(field: Tensor, light: Light, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Light a height field (pixels): diffuse factor (about 1 on flat ground) and highlight in [0, gloss]."""
    slope_x, slope_y = torch.zeros_like(field), torch.zeros_like(field)
    torch.sub(field[:, 2:], field[:, :-2], out=slope_x[:, 1:-1]).mul_(0.5 * strength)
    torch.sub(field[2:], field[:-2], out=slope_y[1:-1]).mul_(0.5 * strength)
    inverse = (slope_x.square() + slope_y.square() + 1.0).rsqrt()
    facing = (light.z - slope_x * light.x - slope_y * light.y) * inverse
    diffuse = light.ambient + (1.0 - light.ambient) * facing.clamp(min=0.0) / light.z
    if light.gloss == 0.0:
        return diffuse, torch.zeros_like(diffuse)
    # Halfway vector between the light and a viewer straight above (Blinn-Phong).
    norm = math.sqrt(light.x**2 + light.y**2 + (light.z + 1.0) ** 2)
    halfway = ((light.z + 1.0) - slope_x * light.x - slope_y * light.y) * inverse / norm
    # Close to halfway ** tightness, without the denormal numbers that slow the processor down.
    return diffuse, light.gloss * torch.exp((light.tightness * (halfway - 1.0)).clamp(min=-20.0))


class Ink:
    """The colours of one scene: pure grey, faintly tinted grey or coloured: a picture has one character."""

    def __init__(self, rng: Rng, colour: float = 0.42, mono: float = 0.34) -> None:
        self._rng = rng
        draw = rng.uniform(0.0, 1.0)
        self.mode = "colour" if draw < colour else "mono" if draw < colour + mono else "tint"
        # Materials are mostly brown, red, orange or yellow, and rarely vivid.
        self._hue = rng.uniform(0.0, 0.17) if rng.chance(0.5) else rng.uniform(0.0, 1.0)
        self._vivid = rng.uniform(0.1, 0.5) if rng.chance(0.82) else rng.uniform(0.4, 0.9)
        self._tint = rng.uniform(0.02, 0.15)

    def shade(self, low: float = 0.1, high: float = 0.9, hue: float | None = None) -> Tensor:
        """A colour (3, 1, 1) with brightness between low and high, in the scene's character."""
        rng = self._rng
        value = rng.uniform(low, high)
        if self.mode == "mono":
            rgb = (value, value, value)
        elif self.mode == "tint":
            rgb = colorsys.hsv_to_rgb(self._hue, self._tint, value)
        else:
            base = hue if hue is not None else self._hue + rng.choice([rng.normal(0.0, 0.04), rng.uniform(0.0, 1.0)])
            rgb = colorsys.hsv_to_rgb(base % 1.0, self._vivid * rng.uniform(0.6, 1.05), value)
        return colour_of(rng, rgb)

    def pair(self, low: float = 0.05, high: float = 0.95) -> tuple[Tensor, Tensor]:
        """Two colours of one material, dark and bright, from barely different to far apart."""
        rng = self._rng
        span = min(rng.log_uniform(0.15, 0.9), high - low)
        floor = rng.uniform(low, max(low, high - span))
        if self.mode == "mono":
            return colour_of(rng, (floor,) * 3), colour_of(rng, (floor + span,) * 3)
        saturation = self._tint if self.mode == "tint" else self._vivid
        turn = rng.normal(0.0, 0.03) if rng.chance(0.8) else rng.uniform(-0.5, 0.5)
        dark = colorsys.hsv_to_rgb(self._hue % 1.0, saturation, floor)
        bright = colorsys.hsv_to_rgb((self._hue + turn) % 1.0, saturation * rng.uniform(0.5, 1.0), floor + span)
        return colour_of(rng, dark), colour_of(rng, bright)


def colour_of(rng: Rng, rgb: tuple[float, ...]) -> Tensor:
    return torch.tensor(rgb, device=rng.device, dtype=torch.float32)[:, None, None]


def ramp(value: Tensor, dark: Tensor, bright: Tensor) -> Tensor:
    """(H, W) in [0, 1] to (3, H, W) between two colours."""
    return dark + (bright - dark) * value


def over(image: Tensor, colour: Tensor, alpha: Tensor) -> Tensor:
    """`colour` ((3, 1, 1) or (3, H, W)) painted on `image` with opacity `alpha` (H, W)."""
    return image + (colour - image) * alpha


def difference(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """The scene after a change and the change's mask, holes closed; pixels far from it stay untouched."""
    change = after - before
    gap = torch.maximum(torch.maximum(change[0].abs(), change[1].abs()), change[2].abs())
    peak = float(gap.amax())
    if 0.0 < peak < 0.1:  # a defect that nobody could see is not one: draw it stronger
        gain = min(0.1 / peak, 10.0)
        after, gap, peak = (before + gain * change).clamp(0.0, 1.0), gap * gain, peak * gain
    mask = gap > min(0.03, 0.3 * peak)
    grown = F.max_pool2d(mask[None, None].float(), 5, 1, 2)
    closed = 1.0 - F.max_pool2d(1.0 - grown, 5, 1, 2)
    near = F.max_pool2d(closed, 5, 1, 2)[0, 0] > 0.5
    return torch.where(near, after, before), closed[0, 0] > 0.5
