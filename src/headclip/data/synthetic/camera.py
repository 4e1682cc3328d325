"""What happens between the object and the file: distractors, light, lens, sensor, grey conversion,
orientation.

Nothing here knows the label. Everything is drawn from its own stream of randomness, equally for images with
and without a defect, so that no trace of the camera can tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.defects_base import smoothstep, soft_noise, to_luma

GREY_SHARE = 0.08
"""Images turned into luma whatever they show. Half of the scenes are grey by nature; together two thirds
are."""

PLAIN_SHARE = 0.7
"""Share of the scenes grey by nature that are handled as luma; on the others a defect or the light may be
coloured."""

DESATURATED_SHARE = 0.05


@dataclass(frozen=True)
class Look:
    """How a camera sees one image; drawn before the scene, so that captions can speak of it."""

    grey: bool
    plain: bool
    saturation: float
    exposure: float
    blur: float
    noise: float
    blocky: float
    turn: bool
    flip_rows: bool
    flip_columns: bool

    @property
    def words(self) -> frozenset[str]:
        """Adjectives a caption may use of the photograph."""
        said = {
            "black and white": self.grey,
            "dark": self.exposure < 0.72,
            "bright": self.exposure > 1.22,
            "blurry": self.blur > 0.9,
            "jpeg corrupted": self.blocky > 0.25,
            "noisy": self.noise > 0.02,
        }
        return frozenset(word for word, true in said.items() if true)


def draw_look(rng: Rng) -> Look:
    pale = rng.chance(DESATURATED_SHARE / (1 - GREY_SHARE))
    return Look(
        grey=rng.chance(GREY_SHARE),
        plain=rng.chance(PLAIN_SHARE),
        saturation=rng.uniform(0.0, 0.3) if pale else rng.uniform(0.6, 1.1),
        exposure=rng.log_uniform(0.65, 1.4) if rng.chance(0.6) else 1.0,
        blur=rng.log_uniform(0.35, 1.3) if rng.chance(0.4) else 0.0,
        noise=rng.log_uniform(0.002, 0.03) if rng.chance(0.75) else 0.0,
        blocky=rng.uniform(0.08, 0.4) if rng.chance(0.12) else 0.0,
        turn=rng.chance(0.5),
        flip_rows=rng.chance(0.5),
        flip_columns=rng.chance(0.5),
    )


def as_seen(scene: Scene, look: Look) -> Scene:
    """The scene in luma only when the look is grey: defects are then judged by what remains visible."""
    if look.grey or (look.plain and _is_grey(scene.image)):
        return _mapped(scene, to_luma)
    return scene


def _is_grey(image: Tensor) -> bool:
    return bool((image[0] - image[1]).abs().amax() < 0.004) and bool((image[1] - image[2]).abs().amax() < 0.004)


def orient(pixels: Tensor, look: Look) -> Tensor:
    """Quarter turn and flips of the last two dimensions; image and mask get the same."""
    if look.turn:
        pixels = pixels.transpose(-1, -2)
    axes = [-2] * look.flip_rows + [-1] * look.flip_columns
    return pixels.flip(axes) if axes else pixels


def expose(image: Tensor, look: Look, rng: Rng, clean: Tensor | None = None) -> Tensor:
    """The photograph of a picture: (C, H, W) float in [0, 1] -> (C, H, W) float in [0, 1], C kept.

    clean: the same picture without its defect (default: the picture itself). It alone limits the exposure,
    which keeps most of the picture out of full black and full white; a defect must not steer it.
    """
    channels, height, width = image.shape
    image = _lighting(image, _gain(image if clean is None else clean, look.exposure), rng)
    if rng.chance(0.5):  # a curve like a gamma, without the cost of a power
        image = image + rng.uniform(-0.35, 0.35) * (image - image * image)
    if look.blur:
        image = _blurred(image, look.blur)
    if channels == 3:
        image = _coloured(image, look, rng)
    if look.noise:
        grains = rng.randn(3 if channels == 3 and rng.chance(0.3) else 1, height, width)
        image = image + grains * look.noise
    if look.blocky:
        image = _blocks(image, look.blocky)
    return image.clamp(0, 1)


def _gain(clean: Tensor, exposure: float) -> float:
    spread, level = torch.stack(torch.std_mean(clean)).tolist()
    lowest, highest = min(1.6, 0.14 / max(level, 0.03)), 0.95 / max(level + spread, 0.1)
    return float(min(max(exposure, lowest), highest))


def _lighting(image: Tensor, gain: float, rng: Rng) -> Tensor:
    """Exposure, contrast, a smooth gradient of light and a vignette, in one multiplication."""
    _, height, width = image.shape
    if rng.chance(0.35):
        pivot = rng.uniform(0.3, 0.7)
        image = pivot + (image - pivot) * rng.uniform(0.6, 1.3)
    if not rng.chance(0.7):
        return image * gain
    light = gain * (1 + rng.log_uniform(0.03, 0.35) * soft_noise(rng, height, width, rng.integer(1, 3)))
    if rng.chance(0.3):
        rows = torch.linspace(-1, 1, height, device=image.device)[:, None]
        columns = torch.linspace(-1, 1, width, device=image.device)[None, :]
        light = light * (1 - rng.uniform(0.05, 0.25) * (rows * rows + columns * columns))
    return image * light


def _blurred(image: Tensor, sigma: float) -> Tensor:
    reach = 1 if sigma < 0.5 else 2 if sigma < 0.9 else 3
    place = torch.arange(-reach, reach + 1, device=image.device, dtype=torch.float32)
    kernel = torch.exp(-place * place / (2 * sigma * sigma))
    kernel = (kernel / kernel.sum())[None, None, :, None]  # (1, 1, K, 1)
    padded = F.pad(image[:, None], (reach, reach, reach, reach), mode="replicate")  # (C, 1, H + 2r, W + 2r)
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3))[:, 0]


def _coloured(image: Tensor, look: Look, rng: Rng) -> Tensor:
    """Saturation and a tint of the light, mostly slight."""
    luma = to_luma(image)
    image = luma + (image - luma) * look.saturation
    if rng.chance(0.5):
        strength = rng.log_uniform(0.02, 0.25)
        tint = [rng.uniform(-strength, strength) for _ in range(3)]
        image = image * (1 + torch.tensor(tint, device=image.device))[:, None, None]
    return image


def _blocks(image: Tensor, share: float) -> Tensor:
    """Blocks of 8 x 8 pixels drawn towards their mean, as strong compression does."""
    _, height, width = image.shape
    means = F.avg_pool2d(image[None], 8, ceil_mode=True)
    flat = means.repeat_interleave(8, 2).repeat_interleave(8, 3)[0, :, :height, :width]
    return image + (flat - image) * share


# Distractors: structure that is no defect. All are affine maps of the picture (a factor and an offset per
# pixel), so that the same one also fits every variant of the scene.

Affine = tuple[Tensor, Tensor | float]


def add_distractors(scene: Scene, rng: Rng) -> Scene:
    """With a chance that knows no label: shadow, highlight, lettering, full-width lines, frame, band or
    speckle."""
    if not rng.chance(0.35):
        return scene
    height, width = scene.foreground.shape
    for _ in range(1 if rng.chance(0.75) else 2):
        factor, offset = rng.choice(_DISTRACTORS, _WEIGHTS)(rng, height, width)

        def change(pixels: Tensor, factor: Tensor = factor, offset: Tensor | float = offset) -> Tensor:
            return (pixels * factor + offset).clamp_(0, 1)

        scene = _mapped(scene, change)
    return scene


def _mapped(scene: Scene, change: Callable[[Tensor], Tensor]) -> Scene:
    """The scene and all its variants with their pixels changed alike."""

    def wrapped(variant: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], tuple[Tensor, Tensor]]:
        def draw() -> tuple[Tensor, Tensor]:
            image, mask = variant()
            return change(image), mask

        return draw

    variants = {name: wrapped(variant) for name, variant in scene.variants.items()}
    return replace(scene, image=change(scene.image), variants=variants)


def _axes(rng: Rng, height: int, width: int) -> tuple[Tensor, Tensor]:
    rows = torch.arange(height, device=rng.device, dtype=torch.float32)[:, None]
    columns = torch.arange(width, device=rng.device, dtype=torch.float32)[None, :]
    return rows, columns


def _shadow(rng: Rng, height: int, width: int) -> Affine:
    """A half-plane in soft shadow."""
    rows, columns = _axes(rng, height, width)
    angle = rng.uniform(0, 2 * math.pi)
    across = (rows - height * rng.uniform(0.25, 0.75)) * math.sin(angle)
    across = across + (columns - width * rng.uniform(0.25, 0.75)) * math.cos(angle)
    soft = rng.log_uniform(0.04, 0.5) * min(height, width)
    return 1 - rng.log_uniform(0.08, 0.6) * smoothstep(across / soft + 0.5), 0.0


def _highlight(rng: Rng, height: int, width: int) -> Affine:
    """A wide soft reflection."""
    rows, columns = _axes(rng, height, width)
    angle = rng.uniform(0, math.pi)
    rows, columns = rows - height * rng.uniform(0, 1), columns - width * rng.uniform(0, 1)
    along = (columns * math.cos(angle) + rows * math.sin(angle)) / (max(height, width) * rng.uniform(0.6, 2.0))
    across = (rows * math.cos(angle) - columns * math.sin(angle)) / (min(height, width) * rng.uniform(0.2, 0.6))
    gleam = rng.log_uniform(0.05, 0.5) * smoothstep(1 - (along * along + across * across).sqrt())
    return 1 - gleam, gleam


def _lettering(rng: Rng, height: int, width: int) -> Affine:
    """One or two lines of glyph-like strokes near a border, as a watermark or a time stamp."""
    size = rng.integer(5, max(6, min(14, height // 8)))
    letters, lines = rng.integer(4, 12), rng.integer(1, 2)
    coarse = (rng.rand(1, 1, lines * 6, letters * 5) < 0.5).float()
    coarse[..., :, ::5] = 0  # (1, 1, lines * 6, letters * 5): the gaps between letters
    coarse[..., ::6, :] = 0
    block_height = min(height - 2, int(lines * size * 1.2))
    block_width = min(width - 2, int(letters * size * 0.8))
    glyphs = F.interpolate(coarse, size=(block_height, block_width), mode="bilinear", align_corners=False)[0, 0]
    alpha = torch.zeros(height, width, device=rng.device)
    top = rng.choice((rng.integer(0, 4), height - block_height - rng.integer(0, 2)))
    left = rng.integer(0, width - block_width)
    top = min(max(top, 0), height - block_height)
    alpha[top : top + block_height, left : left + block_width] = glyphs
    alpha = alpha * rng.uniform(0.3, 1.0)
    return 1 - alpha, alpha * rng.choice((0.0, 1.0, rng.uniform(0, 1)))


def _full_lines(rng: Rng, height: int, width: int) -> Affine:
    """Straight lines from border to border along an axis: seams, bus bars, joints."""
    rows, columns = _axes(rng, height, width)
    place, span = (rows, height) if rng.chance(0.5) else (columns, width)
    half = rng.log_uniform(0.5, 0.02 * span + 1)
    alpha = torch.zeros_like(place)
    for _ in range(rng.integer(1, 3)):
        alpha = torch.maximum(alpha, (half + 0.5 - (place - rng.uniform(0.05, 0.95) * span).abs()).clamp(0, 1))
    alpha = alpha * rng.log_uniform(0.15, 1.0)
    return 1 - alpha, alpha * rng.choice((0.0, rng.uniform(0, 1)))


def _frame(rng: Rng, height: int, width: int) -> Affine:
    """A dark or bright frame, or rounded dark corners as of an endoscope."""
    rows, columns = _axes(rng, height, width)
    from_rows = torch.minimum(rows, height - 1 - rows)
    from_columns = torch.minimum(columns, width - 1 - columns)
    wide = rng.log_uniform(1.5, 0.1 * min(height, width) + 2)
    if rng.chance(0.5):
        alpha = (wide + 0.5 - torch.minimum(from_rows, from_columns)).clamp(0, 1)
    else:
        corner = (2 * wide - from_rows).clamp(min=0) + (2 * wide - from_columns).clamp(min=0)
        alpha = ((corner - 1.6 * wide) / rng.uniform(1, 4)).clamp(0, 1)
    return 1 - alpha, alpha * rng.choice((0.02, 0.0, rng.uniform(0.6, 1.0)))


def _band(rng: Rng, height: int, width: int) -> Affine:
    """A strip from border to border that is a little darker or brighter with sharp sides."""
    rows, columns = _axes(rng, height, width)
    place, span = (rows, height) if rng.chance(0.5) else (columns, width)
    half, centre = rng.uniform(0.03, 0.25) * span, rng.uniform(0, 1) * span
    alpha = (half + 0.5 - (place - centre).abs()).clamp(0, 1)
    change = rng.log_uniform(0.04, 0.35) * rng.choice((-1, 1))
    return (1 + change * alpha).expand(height, width), 0.0


def _speckle(rng: Rng, height: int, width: int) -> Affine:
    """Fine grains all over: dirt of a lens or grain of a material, too even to be a defect."""
    scale = rng.integer(1, 2)
    grains = rng.rand(1, 1, height // scale + 1, width // scale + 1) > 1 - rng.log_uniform(0.01, 0.08)
    alpha = grains.float()
    if scale > 1:
        alpha = F.interpolate(alpha, scale_factor=scale, mode="bilinear", align_corners=False)
    alpha = alpha[0, 0, :height, :width] * rng.log_uniform(0.08, 0.6)
    return 1 - alpha, alpha * rng.choice((0.0, 1.0))


_DISTRACTORS: tuple[Callable[[Rng, int, int], Affine], ...] = (
    _shadow,
    _highlight,
    _lettering,
    _full_lines,
    _frame,
    _band,
    _speckle,
)
_WEIGHTS = (0.2, 0.17, 0.15, 0.18, 0.1, 0.12, 0.08)
