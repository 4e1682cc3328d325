"""Endoscopy of the bowel: what `tissue_tube` sees, with mucosa, vessels, gleams, residue, print and polyps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.lettering import glyph_rows
from headclip.data.synthetic.noise import fractal_noise
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import coverage, over, pixel_grid, smoothstep
from headclip.data.synthetic.tissue_base import random_hue, tissue_scene
from headclip.data.synthetic.tissue_endoscopy import endoscope_window, vessels
from headclip.data.synthetic.tissue_tube import Tube, View, gleams, grown, looking, march, sampled

GRAIN = 256  # px of a texture's side
BLOOD = (0.3, 1.0, 0.9)  # how much of red, green and blue a vessel takes away
NOUNS = ("colonoscopy image", "endoscopy image of the colon", "colon mucosa", "bowel wall")


@dataclass
class _Skin:
    """Colours and fine structure of one surface."""

    deep: Tensor  # (3, 1)
    pale: Tensor  # (3, 1)
    mottle: Tensor  # (GRAIN, GRAIN)
    web: Tensor  # (GRAIN, GRAIN) in [0, 1]
    red: float
    contrast: float
    scale: float

    def colours(self, across: Tensor, down: Tensor) -> Tensor:
        """(3, N) at places on the surface, which repeats with period 4."""
        tone = (0.5 + self.contrast * sampled(self.mottle, self.scale * across, self.scale * down)).clamp(0.0, 1.0)
        colour = self.deep + (self.pale - self.deep) * tone
        web = sampled(self.web, across, down)
        return colour * (1.0 - self.red * web * torch.tensor(BLOOD, device=web.device)[:, None])


def _skin(rng: Rng, like: _Skin | None = None) -> _Skin:
    """That of the wall, or of something which grows on a wall `like` that: paler, redder, or of another grain."""
    mottle = fractal_noise(rng, GRAIN, GRAIN, GRAIN * rng.log_uniform(0.03, 0.3), 4, rng.uniform(0.4, 0.9))
    web = vessels(rng, GRAIN, GRAIN, GRAIN * rng.uniform(0.06, 0.2), rng.uniform(0.04, 0.12))
    red = rng.choice((0.0, rng.uniform(0.1, 0.7)), (0.3, 0.7))
    contrast, scale = rng.log_uniform(0.03, 0.25), rng.uniform(0.4, 1.2)
    if like is None:
        hues = rng.choice(((-0.03, 0.03), (0.02, 0.09)), (0.65, 0.35))
        deep = random_hue(rng, *hues, (0.55, 0.9), (0.4, 0.75))[:, :, 0]
        pale = random_hue(rng, *hues, (0.3, 0.7), (0.7, 1.0))[:, :, 0]
        return _Skin(deep, pale, mottle, web, red, contrast, scale)
    share, brighter = rng.uniform(0.0, 0.9), rng.uniform(0.8, 1.2)
    other = random_hue(rng, -0.04, 0.09, (0.15, 0.8), (0.5, 1.0))[:, :, 0]
    deep = (like.deep + (other - like.deep) * 0.6 * share) * brighter
    pale = (like.pale + (other - like.pale) * share) * brighter
    return _Skin(deep, pale, mottle, web, 0.5 * red, contrast * rng.uniform(0.8, 2.0), rng.uniform(0.3, 1.5))


@dataclass
class _Lamp:
    """Light that falls off with the distance, and a camera that takes it with a soft shoulder."""

    near: float
    power: float
    ambient: float
    exposure: float
    tight: float
    rough: float
    bumps: Tensor  # (N,) of deviation 1, in the picture

    @classmethod
    def drawn(cls, rng: Rng, wall: View, room: Tensor, height: int, width: int) -> _Lamp:
        """A random one, exposed for the wall where `room`, (N,) bool."""
        fine = fractal_noise(rng, height, width, min(height, width) * rng.log_uniform(0.012, 0.06), 2, 0.5)
        lamp = cls(rng.uniform(0.05, 0.5), rng.uniform(0.5, 1.0), rng.uniform(0.05, 0.3), 1.0,
                   rng.uniform(0.98, 1.12), rng.log_uniform(0.01, 0.08), fine.reshape(-1))  # fmt: skip
        lamp.exposure = rng.log_uniform(0.5, 1.6) / max(1e-3, float(lamp.light(wall)[room].median()))
        return lamp

    def light(self, view: View) -> Tensor:
        """(N,): how much comes back from a white wall."""
        shade = self.ambient + (1.0 - self.ambient) * (view.facing + 0.6 * self.rough * self.bumps).clamp(0.0, 1.0)
        return self.exposure * shade / (self.near + view.far.square()) ** self.power

    def photographed(self, view: View, colours: Tensor) -> Tensor:
        """(3, N) in [0, 1]: the surface with these colours."""
        light = self.light(view)
        image = 1.0 - torch.exp(-1.3 * light * colours.clamp(0.0, 1.2))
        gleam = gleams(view, self.rough * self.bumps, self.tight) * smoothstep(0.1, 0.5, light)
        return image + (1.0 - image) * 0.95 * gleam


def _unrolled(tube: Tube, view: View) -> tuple[Tensor, Tensor]:
    """Places on the wall, (N,) each: around the tube, mirrored at its far side so that no seam shows, and along it."""
    _, angle, along = tube.around(view.points)
    return 2.0 * angle.abs() / math.pi - 1.0, 0.6 * along


def _residue(rng: Rng, place: tuple[Tensor, Tensor], colours: Tensor) -> Tensor:
    """Colours of a wall with yellow flecks or a film here and there."""
    flecks = fractal_noise(rng, GRAIN, GRAIN, GRAIN * rng.uniform(0.05, 0.3), 3, 0.7)
    there = smoothstep(0.0, rng.uniform(0.2, 1.0), sampled(flecks, *place) - rng.uniform(0.8, 2.0))
    yellow = random_hue(rng, 0.09, 0.15, (0.5, 0.9), (0.5, 0.9))[:, :, 0]
    return colours + (yellow - colours) * there * rng.uniform(0.3, 0.9)


def _print(rng: Rng, height: int, width: int) -> Callable[[Tensor], Tensor]:
    """White letters at a side, as endoscopes write them: a change for this and every other painting of the view."""
    x, y = pixel_grid(rng, height, width)
    size = min(height, width) * rng.uniform(0.025, 0.05)
    rows, columns = rng.integer(1, 6), rng.integer(3, 11)
    left = -0.5 * width + (0.36 * columns + 0.5) * size + rng.uniform(0.0, 0.05) * width
    letters, _ = glyph_rows(rng, x - left, y - rng.uniform(-0.35, 0.35) * height, size, columns, rows)
    white, strength = torch.ones(3, 1, 1, device=rng.device) * rng.uniform(0.75, 1.0), rng.uniform(0.5, 1.0)
    return lambda picture: over(picture, white, strength * letters)


@dataclass
class _Look:
    """One view of a bare wall, to which polyps may be added."""

    tube: Tube
    origin: Tensor
    rays: Tensor
    wall: View
    outside: Tensor  # (H, W): signed distance of the endoscope's window, in pixels
    room: Tensor  # (N,) bool: where a polyp may stand
    skin: _Skin
    lamp: _Lamp

    def with_polyps(self, rng: Rng, apparent: tuple[float, float], count: int) -> tuple[Tensor, Tensor]:
        """The photograph of the view, (3, N), with so many polyps more, and where they are seen, (N,) bool."""
        grew = [grown(rng, self.wall, self.room, apparent) for _ in range(count)]
        lumps, soft = [lump for one, _ in grew for lump in one], grew[-1][1]
        view = march(self.tube, lumps, soft, self.origin, self.rays)
        on = smoothstep(-0.5, 0.5, (view.wall - view.lump) / soft)
        under = self.skin.colours(*_unrolled(self.tube, view))
        local = (view.points - lumps[0].centre[:, None]) / lumps[0].radius
        own = _skin(rng, self.skin).colours(local[0] + 0.5 * local[2], local[1] - 0.5 * local[2])
        return self.lamp.photographed(view, under + (own - under) * on), view.lump < view.wall


def _look(rng: Rng, height: int, width: int) -> _Look:
    """A random tube, lens, window, skin and lamp."""
    x, y = pixel_grid(rng, height, width)
    tube = Tube.drawn(rng)
    origin, rays = looking(rng, x, y)
    wall = march(tube, [], 1.0, origin, rays)
    outside = endoscope_window(rng, x, y) if rng.chance(0.7) else torch.full_like(x, -9.0)
    room = (outside < -0.04 * min(height, width)).reshape(-1)
    room = room if bool(room.any()) else torch.ones_like(room)
    skin = _skin(rng)
    return _Look(tube, origin, rays, wall, outside, room, skin, _Lamp.drawn(rng, wall, room, height, width))


@scene("bowel", weight=3.5)
def bowel(rng: Rng, height: int, width: int) -> Scene:
    """A look along or at the wall of a bowel, with polyps as its own defects."""
    look = _look(rng, height, width)
    outside, place = look.outside, _unrolled(look.tube, look.wall)
    colours = look.skin.colours(*place)
    if rng.chance(0.35):
        colours = _residue(rng, place, colours)
    bare = look.lamp.photographed(look.wall, colours)
    window = coverage(outside, rng.uniform(1.0, 3.0))
    printed = _print(rng, height, width) if rng.chance(0.5) else None

    def seen(picture: Tensor) -> Tensor:
        shown = picture.reshape(3, height, width) * window
        return (shown if printed is None else printed(shown)).clamp(0.0, 1.0)

    before = seen(bare)
    drawn = tissue_scene(rng, before, "bowel", rng.choice(NOUNS), outside < 0)

    def polyps(apparent: tuple[float, float], most: int) -> Callable[[], tuple[Tensor, Tensor]]:
        def draw() -> tuple[Tensor, Tensor]:
            picture, there = look.with_polyps(rng, apparent, rng.integer(1, most))
            mask = there.reshape(height, width) & (outside < 0)
            return torch.where(mask, drawn.image + (seen(picture) - before), drawn.image).clamp(0.0, 1.0), mask

        return draw

    drawn.variants = {
        "polyp": polyps((0.08, 0.3), 1),
        "large polyp": polyps((0.2, 0.6), 1),
        "polyps": polyps((0.04, 0.12), 3),
    }
    return drawn
