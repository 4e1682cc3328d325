"""The ground under every defect: the registry, the canvas a defect is drawn on, and the shapes it is drawn
with.

All work happens in a defect's bounding box. A drawing function returns a `Change` (new pixels for one box);
the caller keeps only pixels that really changed, which makes the mask exact by construction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.shapes import smoothstep

LUMA = (0.299, 0.587, 0.114)
LARGE = 0.34  # of the short side: the diameter up to which a defect is drawn, unless it says otherwise


@dataclass(frozen=True)
class Box:
    """Rows top..bottom and columns left..right of the image, the ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


@dataclass
class Change:
    """New pixels (C, h, w) for one box.

    support: (h, w) in [0, 1] or None. None: the mask is every pixel that changed visibly. Given: the whole
    support is the mask (a warped or foreign texture equals the old one at single pixels by chance; annotators
    mark the region). anywhere: may reach beyond the scene's foreground (a hair lies across a part's edge).
    """

    box: Box
    pixels: Tensor
    support: Tensor | None = None
    anywhere: bool = False


class Canvas:
    """What a defect may look at and draw on: the scene, in colour (C = 3) or as luma only (C = 1)."""

    def __init__(self, scene: Scene) -> None:
        self.image = scene.image  # (C, H, W), replaced after each drawn instance
        self.foreground = scene.foreground
        self.kind = scene.kind
        self.family = scene.family
        self.channels, self.height, self.width = scene.image.shape
        self.everywhere = bool(scene.foreground.all())
        self.device = scene.image.device

    @property
    def short(self) -> int:
        return min(self.height, self.width)

    def spot(self, rng: Rng) -> tuple[int, int]:
        """A (row, column) on the foreground; anywhere when the foreground is empty."""
        for _ in range(16):
            row, column = rng.integer(0, self.height - 1), rng.integer(0, self.width - 1)
            if self.everywhere or bool(self.foreground[row, column]):
                return row, column
        places = self.foreground.nonzero()
        if len(places):
            row, column = places[rng.integer(0, len(places) - 1)].tolist()
        return row, column

    def extent(self, rng: Rng, low: float = 2.5, share: float = LARGE) -> float:
        """A diameter in pixels, log-uniform from `low` to `share` of the image's short side."""
        return rng.log_uniform(low, max(low + 1.0, share * self.short))

    def box(self, row: float, column: float, half_height: float, half_width: float) -> Box:
        """The box around a centre, cut at the image's border; never empty for a centre inside the image."""
        top, left = max(0, math.floor(row - half_height)), max(0, math.floor(column - half_width))
        bottom = min(self.height, math.ceil(row + half_height) + 1)
        right = min(self.width, math.ceil(column + half_width) + 1)
        return Box(min(top, self.height - 1), min(left, self.width - 1), max(bottom, 1), max(right, 1))

    def crop(self, box: Box) -> Tensor:
        return self.image[:, box.top : box.bottom, box.left : box.right]  # (C, h, w)

    def offsets(self, box: Box, row: float, column: float) -> tuple[Tensor, Tensor]:
        """Distances of the box's pixels from a centre: rows (h, 1) and columns (1, w)."""
        rows = torch.arange(box.top, box.bottom, device=self.device, dtype=torch.float32) - row
        columns = torch.arange(box.left, box.right, device=self.device, dtype=torch.float32) - column
        return rows[:, None], columns[None, :]

    def colour(self, red: float, green: float, blue: float) -> Tensor:
        """A colour in the canvas' own channels, (C, 1, 1)."""
        if self.channels == 1:
            red = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
            return torch.tensor([red], device=self.device)[:, None, None]
        return torch.tensor([red, green, blue], device=self.device)[:, None, None]

    def random_colour(self, rng: Rng, low: float = 0.0, high: float = 1.0) -> Tensor:
        return self.colour(rng.uniform(low, high), rng.uniform(low, high), rng.uniform(low, high))

    def fit(self, pixels: Tensor) -> Tensor:
        """Colour pixels (3, h, w) in the canvas' own channels."""
        return to_luma(pixels) if self.channels == 1 and pixels.shape[0] == 3 else pixels


def wide(rng: Rng) -> float:
    """The largest share of the short side for what may be small or, now and then, most of the picture."""
    return 0.8 if rng.chance(0.15) else LARGE


Painter = Callable[[Canvas, Rng, float], "Change | None"]


@dataclass(frozen=True)
class Defect:
    """One kind of defect.

    kinds and families: where it occurs (empty: everywhere); few: never more than two instances.
    """

    name: str
    weight: float
    paint: Painter
    kinds: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    few: bool = False

    def fits(self, scene: Scene) -> bool:
        return (not self.kinds or scene.kind in self.kinds) and (not self.families or scene.family in self.families)


DEFECTS: dict[str, Defect] = {}


def defect(
    name: str, weight: float, kinds: tuple[str, ...] = (), families: tuple[str, ...] = (), few: bool = False
) -> Callable[[Painter], Painter]:
    """Register `paint(canvas, rng, contrast) -> Change | None` under a name; weight: how often it is
    drawn."""

    def register(paint: Painter) -> Painter:
        DEFECTS[name] = Defect(name, weight, paint, kinds, families, few)
        return paint

    return register


def to_luma(pixels: Tensor) -> Tensor:
    """(3, h, w) -> (1, h, w)."""
    return (LUMA[0] * pixels[0] + LUMA[1] * pixels[1] + LUMA[2] * pixels[2])[None]


def soft_noise(rng: Rng, height: int, width: int, cells: int) -> Tensor:
    """Smooth noise in [-1, 1], (h, w): a few random cells per side, enlarged."""
    coarse = rng.rand(1, 1, cells + 1, cells + 1) * 2 - 1
    return F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)[0, 0]


def varying(rng: Rng, count: int, knots: int, low: float, high: float) -> Tensor:
    """A random course along a line, (count,), straight between `knots` values in [low, high]."""
    values = F.interpolate(rng.rand(1, 1, knots), size=count, mode="linear", align_corners=True)[0, 0]
    return low + (high - low) * values


def blob(rng: Rng, canvas: Canvas, size: float, *, ragged: float = 0.35, soft: float = 0.3) -> tuple[Box, Tensor]:
    """An irregular ellipse of a diameter in pixels somewhere on the foreground: its box and alpha (h, w).

    ragged: how far the outline strays (share of the radius); soft: width of the edge as a share of the
    radius.
    """
    row, column = canvas.spot(rng)
    return blob_at(rng, canvas, row, column, size, ragged=ragged, soft=soft)


def blob_at(
    rng: Rng,
    canvas: Canvas,
    row: float,
    column: float,
    size: float,
    *,
    ragged: float = 0.35,
    soft: float = 0.3,
) -> tuple[Box, Tensor]:
    """`blob` around a given centre."""
    distance, box = ellipse(rng, canvas, row, column, size, margin=1 + ragged)
    if size > 6:  # below that an outline has no pixels to stray by
        cells = rng.integer(2, 6)
        distance = distance + ragged * soft_noise(rng, box.height, box.width, cells)
    edge = max(soft, 1.0 / max(size / 2, 1.0))  # at least one pixel: anti-aliased
    return box, smoothstep(0, 1, (1 - distance) / edge + 0.5)


def ellipse(
    rng: Rng, canvas: Canvas, row: float, column: float, size: float, margin: float = 1.0, flat: float = 3.0
) -> tuple[Tensor, Box]:
    """Distance (h, w) from a centre in units of the radius of a turned ellipse, and its box."""
    aspect = rng.log_uniform(1.0, flat) if size > 5 else 1.0
    long_axis, short_axis = size / 2 * math.sqrt(aspect), max(size / 2 / math.sqrt(aspect), 1.0)
    angle = rng.uniform(0, math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    reach_rows = margin * math.hypot(long_axis * sin, short_axis * cos) + 1.5
    reach_columns = margin * math.hypot(long_axis * cos, short_axis * sin) + 1.5
    box = canvas.box(row, column, reach_rows, reach_columns)
    rows, columns = canvas.offsets(box, row, column)
    along = columns * (cos / long_axis) + rows * (sin / long_axis)  # (h, w)
    across = rows * (cos / short_axis) - columns * (sin / short_axis)  # (h, w)
    return (along * along + across * across).sqrt_(), box


def local_level(crop: Tensor) -> tuple[float, float]:
    """Mean brightness of a crop and its roughness (mean step between neighbours), both in [0, 1]."""
    grey = crop.mean(0)
    steps = (grey[:, 1:] - grey[:, :-1]).abs().mean() if grey.shape[1] > 1 else grey.new_zeros(())
    mean, rough = torch.stack([grey.mean(), steps]).tolist()
    return mean, rough


def tone(rng: Rng, crop: Tensor, contrast: float, *, dark: float = 0.7, floor: float = 1.5) -> float:
    """Signed change of brightness for a contrast in (0, 1]: negative darkens, in units of image brightness.

    The change never sinks below `floor` times the local roughness: a mark weaker than the texture around it
    is visible to nobody, and its mask would only be a wrong label.
    """
    mean, rough = local_level(crop)
    darker = mean > 0.15 and (mean > 0.85 or rng.chance(dark))
    room = mean if darker else 1 - mean
    amount = min(max(contrast * room, floor * rough, 0.03), max(room, 0.05))
    return -amount if darker else amount


def shade(crop: Tensor, alpha: Tensor, change: float) -> Tensor:
    """Darken (multiplicatively, so that texture and hue stay) or brighten by a signed change of
    brightness."""
    if change < 0:
        share = min(1.0, -change / max(float(crop.mean()), 1e-3))
        return crop * (1 - share * alpha)
    share = min(1.0, change / max(1 - float(crop.mean()), 1e-3))
    return crop + (1 - crop) * (share * alpha)


def cover(crop: Tensor, alpha: Tensor, colour: Tensor) -> Tensor:
    """Paint over: alpha (h, w) of a colour (C, 1, 1) or pixels (C, h, w)."""
    return crop + (colour - crop) * alpha


def stroke(canvas: Canvas, points: Tensor, radius: Tensor, strength: Tensor | None = None) -> tuple[Box, Tensor] | None:
    """Discs along dense points: the union of anti-aliased discs, drawn only where the discs are.

    points: (P, 2) rows and columns in pixels, at most about one radius apart for a closed line; radius: (P,)
    pixels; strength: (P,) in [0, 1]. Returns the box inside the image and alpha (h, w), or None when all lies
    outside.
    """
    low, high, biggest = torch.stack([points.amin(0), points.amax(0), radius.amax().expand(2)]).tolist()
    reach = math.ceil(biggest[0] + 1.0)
    top, left = math.floor(low[0]) - reach, math.floor(low[1]) - reach
    height, width = math.ceil(high[0]) + reach + 1 - top, math.ceil(high[1]) + reach + 1 - left
    box = Box(max(top, 0), max(left, 0), min(top + height, canvas.height), min(left + width, canvas.width))
    if box.height <= 0 or box.width <= 0:
        return None
    nearest = points.round()
    rest = nearest - points  # (P, 2)
    steps = torch.arange(-reach, reach + 1, device=points.device, dtype=torch.float32)
    rows, columns = rest[:, :1] + steps, rest[:, 1:] + steps  # (P, K)
    distance = (rows * rows)[:, :, None] + (columns * columns)[:, None, :]  # (P, K, K)
    alpha = distance.sqrt_().neg_().add_(radius[:, None, None] + 0.5).clamp_(0, 1)
    if strength is not None:
        alpha = alpha * strength[:, None, None]
    start = nearest.long()
    whole = torch.arange(-reach, reach + 1, device=points.device)
    index = ((start[:, :1] - top + whole) * width)[:, :, None] + (start[:, 1:] - left + whole)[:, None, :]  # (P, K, K)
    field = torch.zeros(height * width, device=points.device)
    field.scatter_reduce_(0, index.flatten(), alpha.flatten(), "amax")
    field = field.view(height, width)
    return box, field[box.top - top : box.bottom - top, box.left - left : box.right - left]
