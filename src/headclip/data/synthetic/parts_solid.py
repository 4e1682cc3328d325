"""Solid things on a table, in three dimensions: one, or rows of a kind; and what goes wrong with one of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.lettering import glyph_rows
from headclip.data.synthetic.registry import scene
from headclip.data.synthetic.shapes import difference, pixel_grid, smoothstep
from headclip.data.synthetic.signed_distance import Distance, joined, length, without
from headclip.data.synthetic.solid_shapes import BODIES, Waves, ball, beyond, bore, slit
from headclip.data.synthetic.solid_view import Camera, Lamp, Seen, Skin, hollows, march
from headclip.data.synthetic.staging import Stage

Colours = Callable[[Tensor], Tensor]  # (3, N) points of a body -> (3, N)


@dataclass
class _Table:
    """Bodies of a kind in rows on the table: each in its own cell, lying as `pose` says, turned and moved a little."""

    body: Distance
    colours: Colours
    pose: Tensor  # (3, 3): from the table's axes to the body's
    lift: float  # of the body's middle above the table
    rows: int
    pitch: float
    turns: Tensor  # (cells,)
    shifts: Tensor  # (2, cells)
    there: Tensor  # (cells,) bool
    odd: int = -1  # the cell whose body is another
    odd_body: Distance | None = None
    odd_colours: Colours | None = None

    def placed(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points of the world in the frame of the body of their cell, (3, N), and the cell's number, (N,)."""
        if self.rows == 1:
            cell = torch.zeros_like(points[0], dtype=torch.long)
            return self.pose @ self._turned(points[0], points[1], points[2], 0), cell
        middle = 0.5 * (self.rows - 1)
        row = torch.round(points[0] / self.pitch + middle).clamp(0, self.rows - 1)
        column = torch.round(points[1] / self.pitch + middle).clamp(0, self.rows - 1)
        cell = (row * self.rows + column).long()
        x, y = points[0] - (row - middle) * self.pitch, points[1] - (column - middle) * self.pitch
        return self.pose @ self._turned(x, y, points[2], cell), cell

    def _turned(self, x: Tensor, y: Tensor, z: Tensor, cell: Tensor | int) -> Tensor:
        """(3, N): places from the middle of their cell, or the one cell, in the frame of a body that stands there."""
        x, y = x - self.shifts[0][cell], y - self.shifts[1][cell]
        cos, sin = self.turns.cos()[cell], self.turns.sin()[cell]
        return torch.stack([x * cos + y * sin, y * cos - x * sin, z - self.lift])

    def distance(self, points: Tensor) -> Tensor:
        """(3, N) points of the world -> (N,)."""
        local, cell = self.placed(points)
        found = self.body(local)
        if self.odd_body is not None:
            found = torch.where(cell == self.odd, self.odd_body(local), found)
        return torch.where(self.there[cell], found, 1.0)

    def painted(self, points: Tensor) -> Tensor:
        """Colours of the bodies at points of the world, (3, N)."""
        local, cell = self.placed(points)
        found = self.colours(local)
        return found if self.odd_colours is None else torch.where(cell == self.odd, self.odd_colours(local), found)


def _lying(rng: Rng, body: Distance) -> tuple[Tensor, float, float]:
    """How a body lies: its pose, (3, 3), its middle above the table, and how high it reaches above that."""
    pose = torch.eye(3, device=rng.device)
    if rng.chance(0.4):  # on its side, or anyhow
        tilt = rng.choice((0.5 * math.pi, math.pi, rng.uniform(0.0, math.pi)), (0.5, 0.2, 0.3))
        cos, sin = math.cos(tilt), math.sin(tilt)
        pose = torch.tensor([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]], device=rng.device)
    points = (rng.rand(3, 6000) - 0.5) * 2.4
    inside = points[2, body(pose @ points) < 0.0]
    if inside.numel() == 0:
        return pose, 0.5, 0.5
    return pose, -float(inside.amin()) + 0.02, float(inside.amax()) + 0.1


def _paint(rng: Rng, stage: Stage) -> Colours:
    """The colours of a kind of body: one, mottled, speckled, in bands, of two halves, or printed on."""
    ink = stage.ink
    first, second = ink.shade(0.1, 0.95)[:, :, 0], ink.shade(0.0, 1.0)[:, :, 0]
    first, second = (one.expand(3, 1) for one in (first, second))
    style = rng.choice(("plain", "mottled", "speckled", "bands", "halves", "print"), (0.35, 0.2, 0.1, 0.1, 0.1, 0.15))
    waves, strength = Waves.drawn(rng, rng.log_uniform(2.0, 12.0), 4), rng.log_uniform(0.02, 0.3)
    axis, frequency = F.normalize(rng.randn(3), dim=0), rng.uniform(4.0, 30.0)
    if rng.chance(0.5):
        axis = torch.tensor([0.0, 0.0, 1.0], device=rng.device)
    size, seed = rng.uniform(0.08, 0.25), rng.integer(0, 2**31)
    columns, rows = rng.integer(2, 6), rng.integer(1, 3)

    def colours(points: Tensor) -> Tensor:
        if style == "plain":
            return first.expand(3, points.shape[1])
        along, mottle = (points * axis[:, None]).sum(0), waves(points)
        base = first * (1.0 + strength * mottle)
        if style == "speckled":
            return base + (second - base) * smoothstep(1.2, 1.6, mottle)
        if style == "bands":
            return base + (second - base) * smoothstep(-0.2, 0.2, torch.sin(frequency * along))
        if style == "halves":
            return base + (second - base) * smoothstep(-0.02, 0.02, along)
        if style == "print":
            letters, _ = glyph_rows(Rng(seed, points.device), points[0], points[1], size, columns, rows)
            return base + (second - base) * letters * (points[2] > 0)
        return base

    return colours


@dataclass
class _Shot:
    """Everything of a picture but what stands on the table."""

    stage: Stage
    camera: Camera
    lamp: Lamp
    skin: Skin
    top: float

    def seen(self, table: _Table) -> Seen:
        return march(table.distance, self.camera, self.top, 0.4 * table.pitch)

    def painted(self, table: _Table, seen: Seen) -> Tensor:
        """(3, H, W) in [0, 1]."""
        stage = self.stage
        free = self.lamp.arrives(table.distance, seen, 2.0 * self.top)
        open_ = hollows(table.distance, seen)
        ground = stage.backdrop.expand(3, -1, -1).reshape(3, -1) * (0.5 * open_ + 0.5) * (0.35 + 0.65 * free)
        colours = table.painted(seen.points) * (1.0 + stage.grain.reshape(-1))
        bodies = self.skin.lit(colours, seen, self.camera, self.lamp, free, open_)
        image = torch.where(seen.body, bodies, ground).reshape(3, stage.height, stage.width)
        return stage.exposed(_softened(image, seen.body.reshape(stage.height, stage.width)))


def _softened(image: Tensor, body: Tensor) -> Tensor:
    """The picture with the steps along the outlines of `body`, (H, W) bool, smoothed over three pixels."""
    share = F.avg_pool2d(F.pad(body[None, None].float(), [1] * 4, mode="replicate"), 3, 1)[0, 0]
    smooth = F.avg_pool2d(F.pad(image[None], [1] * 4, mode="replicate"), 3, 1)[0]
    return torch.where((share > 0.01) & (share < 0.99), smooth, image)


def _table(rng: Rng, stage: Stage, kind: str) -> tuple[_Table, float]:
    """Bodies of a kind on the table, and how high the highest place lies."""
    body = BODIES[kind][0](rng)
    pose, lift, above = _lying(rng, body)
    rows = rng.choice((1, 2, 3, 4), (0.65, 0.12, 0.13, 0.1))
    pitch = rng.uniform(2.0, 2.7) if rows > 1 else 4.0
    count = rows * rows
    turns = rng.randn(count) * rng.choice((0.05, 3.0)) + rng.uniform(0.0, 6.3)
    shifts = rng.randn(2, count).clamp(-2.0, 2.0) * rng.uniform(0.0, 0.05) * pitch * (rows > 1)
    there = torch.ones(count, dtype=torch.bool, device=rng.device)
    return _Table(body, _paint(rng, stage), pose, lift, rows, pitch, turns, shifts, there), lift + above


@dataclass
class _Place:
    """Where a defect sits on a body, in the body's own frame: a point of its surface, the normal, and the cell."""

    foot: Tensor
    normal: Tensor
    cell: int


def _place(rng: Rng, table: _Table, seen: Seen) -> _Place:
    places = seen.body.nonzero()[:, 0]
    chosen = int(places[rng.integer(0, len(places) - 1)])
    local, cell = table.placed(seen.points[:, chosen : chosen + 1])
    step = 0.01 * torch.eye(3, device=local.device)
    normal = F.normalize(table.body(local + step) - table.body(local - step), dim=0)
    return _Place(local[:, 0], normal, int(cell))


def _broken(rng: Rng, table: _Table, at: _Place, name: str) -> Distance:
    """The body with the defect `name` at a place."""
    size, foot, normal = rng.log_uniform(0.06, 0.4), at.foot, at.normal
    ripple = Waves.drawn(rng, rng.log_uniform(4.0, 14.0) / size**0.5)
    if name == "dent":
        up = rng.uniform(0.3, 0.85) * size
        return without(table.body, ball(foot + up * normal, size, ripple, 0.06 * size), 0.1 * size)
    if name == "lump":
        return joined(table.body, ball(foot, 0.7 * size, ripple, 0.1 * size), rng.uniform(0.05, 0.6) * size)
    if name == "crack":
        way = F.normalize(torch.linalg.cross(normal, rng.randn(3)), dim=0)
        half = rng.log_uniform(0.006, 0.03)
        return without(table.body, slit(foot, way, half, 0.1 + 1.8 * size, ripple, 0.12 * size), 0.004)
    if name == "drilled hole":
        axis = F.normalize(normal + 0.2 * rng.randn(3), dim=0)
        return without(table.body, bore(foot, axis, 0.5 * size), 0.01)
    outward = F.normalize(normal + rng.uniform(0.0, 2.0) * F.normalize(foot, dim=0), dim=0)
    return without(table.body, beyond(foot, outward, size * rng.uniform(0.3, 1.0), ripple, 0.15 * size), 0.01)


def _stained(rng: Rng, stage: Stage, table: _Table, at: _Place) -> tuple[Colours, Callable[[Tensor], Tensor]]:
    """Colours with a stain at a place, and how much of it lies at points of the body, (3, N) -> (N,)."""
    radius, ripple = rng.log_uniform(0.06, 0.5), Waves.drawn(rng, rng.log_uniform(3.0, 12.0))
    colour, strength = stage.ink.shade(0.0, 1.0)[:, :, 0].expand(3, 1), rng.uniform(0.3, 1.0)
    edge = rng.log_uniform(0.03, 0.5)

    def amount(points: Tensor) -> Tensor:
        away = length(points - at.foot[:, None]) / radius + 0.25 * ripple(points)
        return smoothstep(1.0 + edge, 1.0 - edge, away)

    def colours(points: Tensor) -> Tensor:
        base = table.colours(points)
        return base + (colour - base) * amount(points) * strength

    return colours, amount


@scene("solid", weight=3.0)
def solid(rng: Rng, height: int, width: int) -> Scene:
    """Turned, milled, pressed or grown bodies on a table under one lamp."""
    stage = Stage(rng, height, width)
    kind = rng.choice(tuple(BODIES), (0.3, 0.3, 0.3, 0.1))
    table, top = _table(rng, stage, kind)
    across = rng.uniform(1.7, 3.2) if table.rows == 1 else table.rows * table.pitch * rng.uniform(0.7, 1.1)
    camera = Camera.drawn(rng, *pixel_grid(rng, height, width), across)
    shot = _Shot(stage, camera, Lamp.drawn(rng, camera, stage.light), Skin.drawn(rng, stage.light.gloss,
                 stage.light.tightness), top)  # fmt: skip
    seen = shot.seen(table)
    image = shot.painted(table, seen)
    foreground = seen.body.reshape(height, width)
    bodies = bool(foreground.any())
    foreground = foreground if bodies else torch.ones_like(foreground)
    drawn = Scene(image, foreground, "solid", rng.choice(BODIES[kind][1]), "part")

    def masked(changed: _Table, there: Callable[[Seen], Tensor]) -> tuple[Tensor, Tensor]:
        after = shot.seen(changed)
        mask = there(after).reshape(height, width)
        return torch.where(mask, shot.painted(changed, after), image), mask

    def broken(name: str) -> Callable[[], tuple[Tensor, Tensor]]:
        def draw() -> tuple[Tensor, Tensor]:
            at = _place(rng, table, seen)
            changed = replace(table, odd=at.cell, odd_body=_broken(rng, table, at, name))

            def differs(one: Seen) -> Tensor:
                return one.body & ((table.distance(one.points) - changed.distance(one.points)).abs() > 0.006)

            return masked(changed, lambda after: differs(seen) | differs(after))

        return draw

    def stained() -> tuple[Tensor, Tensor]:
        at = _place(rng, table, seen)
        colours, amount = _stained(rng, stage, table, at)

        def there(after: Seen) -> Tensor:
            local, cell = table.placed(after.points)
            return after.body & (cell == at.cell) & (amount(local) > 0.3)

        return masked(replace(table, odd=at.cell, odd_colours=colours), there)

    def missing() -> tuple[Tensor, Tensor]:
        gone = table.there.clone()
        gone[_place(rng, table, seen).cell] = False
        changed = replace(table, there=gone)
        return difference(image, shot.painted(changed, shot.seen(changed)))

    if bodies:
        drawn.variants = {name: broken(name) for name in ("dent", "lump", "crack", "drilled hole", "broken piece")}
        drawn.variants["stain"] = stained
        if table.rows > 1:
            drawn.variants["missing part"] = missing
    return drawn
