"""What happens between the object and the file: light, lens, sensor, grey conversion, orientation.

Nothing here knows the label. Everything is drawn from its own stream of randomness, equally for images with
and without a defect, so that no trace of the camera can tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.defects_base import soft_noise, to_luma

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
        return scene.mapped(to_luma)
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
