"""Photographs of things, cut out of their background, as parts of a scene: one or several of a kind on a ground."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.noise import smooth_noise
from headclip.data.synthetic.shapes import coverage, difference, disc, over, pixel_grid, turned
from headclip.data.synthetic.staging import Stage

ENLARGED = 1.6  # a photograph of a thing is enlarged at most so much
SEEN = 0.01  # share of the picture that a thing has to cover to be a place for defects


def thing_scene(cutout: Tensor, rng: Rng, height: int, width: int, noun: str, ground: Tensor | None = None) -> Scene:
    """The thing of a `cutout`, (4, h, w) float32 in [0, 1] with opacity last, on a ground of `height` x `width` pixels.

    ground: (3, height, width), or None for a rendered one. A defect may lie on the thing alone; one of its own is a
    missing piece.
    """
    stage = Stage(rng, height, width)
    ground = stage.backdrop.expand(3, -1, -1) if ground is None else ground
    colours = torch.cat([_recoloured(cutout[:3], rng), cutout[3:]])
    count = rng.choice((1, rng.integer(2, 3), rng.integer(4, 7)), (0.7, 0.15, 0.15))
    tilt = rng.uniform(0.0, 2.0 * math.pi) if rng.chance(0.6) else rng.normal(0.0, 0.1)
    placed = [_placed(colours, rng, height, width, count, tilt) for _ in range(count)]
    image = _laid(stage, ground, placed)
    foreground = torch.stack([one[3] for one in placed]).amax(0) > 0.5
    if float(foreground.float().mean()) < SEEN:
        foreground = torch.ones_like(foreground)
    scene = Scene(image, foreground, "photograph", noun, "part")

    def bitten() -> tuple[Tensor, Tensor]:
        return difference(image, _laid(stage, ground, [_bitten(placed[0], rng), *placed[1:]]))

    scene.variants["missing piece"] = bitten
    return scene


def _laid(stage: Stage, ground: Tensor, placed: list[Tensor]) -> Tensor:
    """(3, H, W): the ground with things on it, (4, H, W) each, with their shadows and in the light of the stage."""
    image = ground
    for one in placed:
        alpha = one[3].clamp(0.0, 1.0)
        if stage.shadow > 0.0:
            image = image * (1.0 - stage.shadow * stage.shifted(_softened(alpha, round(stage.reach))))
        image = over(image, one[:3] / one[3:].clamp(min=1e-3), alpha)
    return stage.exposed(image).contiguous()


def _bitten(placed: Tensor, rng: Rng) -> Tensor:
    """A thing, (4, H, W), without a piece at its outline."""
    alpha = placed[3]
    height, width = alpha.shape
    outline = (alpha > 0.5) & (_softened(alpha, 1) < 0.95)
    places = (outline if bool(outline.any()) else torch.ones_like(outline)).nonzero()
    row, column = places[rng.integer(0, len(places) - 1)].tolist()
    size = math.sqrt(float((alpha > 0.5).sum()) + 1.0) * rng.log_uniform(0.08, 0.4)
    x, y = pixel_grid(rng, height, width)
    piece = disc(x - x[row, column], y - y[row, column], size)
    piece = piece + 0.35 * size * smooth_noise(rng, height, width, max(2.0, size * rng.uniform(0.3, 1.0)))
    return placed * (1.0 - coverage(piece, 1.2))


def _softened(alpha: Tensor, reach: int) -> Tensor:
    """(H, W) averaged over `reach` pixels to all sides."""
    return F.avg_pool2d(alpha[None, None], 2 * reach + 1, 1, reach, count_include_pad=False)[0, 0]


def _recoloured(colours: Tensor, rng: Rng) -> Tensor:
    """(3, h, w): as photographed, grey, tinted, or with other colours for its colours."""
    style = rng.choice(("own", "grey", "tinted", "swapped"), (0.4, 0.25, 0.15, 0.2))
    if style == "own":
        return colours
    grey = colours.mean(0, keepdim=True)
    if style == "grey":
        return (grey.expand(3, -1, -1) ** rng.log_uniform(0.6, 1.6)).contiguous()
    if style == "tinted":
        tint = torch.tensor([rng.uniform(0.3, 1.0) for _ in range(3)], device=colours.device)[:, None, None]
        return grey * tint / tint.amax()
    return colours[torch.tensor(rng.choice(((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))))]


def _placed(colours: Tensor, rng: Rng, height: int, width: int, count: int, tilt: float) -> Tensor:
    """(4, height, width), colours times opacity and opacity: the thing scaled, turned and moved.

    A single one fills much of the picture and may reach over its border, of several each takes its share.
    """
    side = min(height, width)
    own = max(colours.shape[1:])
    share = rng.uniform(0.5, 1.4) if count == 1 else rng.uniform(0.7, 1.2) / math.sqrt(count)
    scale = min(share * side / own, ENLARGED)
    small = (max(2, round(colours.shape[1] * scale)), max(2, round(colours.shape[2] * scale)))
    flat = torch.cat([colours[:3] * colours[3:], colours[3:]])[None]
    flat = F.interpolate(flat, small, mode="bilinear", antialias=True, align_corners=False)
    angle = tilt + rng.normal(0.0, 0.1) + (rng.uniform(0.0, 2.0 * math.pi) if count > 1 and rng.chance(0.5) else 0.0)
    spread = 0.08 if count == 1 else 0.28
    x, y = rng.normal(0.0, spread) * width, rng.normal(0.0, spread) * height
    mirrored = -1.0 if rng.chance(0.5) else 1.0
    across, down = turned(*pixel_grid(rng, height, width), angle, x, y)
    where = torch.stack([mirrored * across * 2.0 / small[1], down * 2.0 / small[0]], dim=-1)[None]
    return F.grid_sample(flat, where, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
