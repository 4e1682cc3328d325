"""The colours of a map: one scale for a whole run, one table of colours, and the tinted picture.

Normal areas stay untinted because the opacity rises with the map value, and a good part does not glow because
the scale is the run's, never the image's own.
"""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LOW_QUANTILE, HIGH_QUANTILE = 0.5, 0.999
MIN_SPAN = 0.05  # so that a run of equal maps does not blow its noise up to full colour
MAX_OPACITY = 0.62  # what is judged must stay visible underneath
_LEVELS = 65536
_BLOCK = 1 << 20
_COLOURS = 256


@dataclass(frozen=True)
class Scale:
    """Map values in [0, 1] that get the first and the last colour."""

    low: float
    high: float

    def normalise(self, anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H, W) map values to [0, 1] on this scale; clipped."""
        values: NDArray[np.float32] = anomaly_map - np.float32(self.low)
        values /= np.float32(self.high - self.low)
        return np.clip(values, 0.0, 1.0, out=values)


class LevelHistogram:
    """How often each 16-bit map value occurs in a run; every image weighs the same, whatever its size."""

    def __init__(self) -> None:
        self._weights = np.zeros(_LEVELS)  # (65536,) float64
        self._lock = threading.Lock()  # maps are counted where they are written, in several threads

    def update(self, levels: NDArray[np.uint16]) -> None:
        """Count one (H, W) map."""
        flat, counts = levels.ravel(), np.zeros(_LEVELS, np.int64)
        for start in range(0, flat.size, _BLOCK):  # numpy makes them 64 bits wide to count them
            counts += np.bincount(flat[start : start + _BLOCK], minlength=_LEVELS)
        weights = counts / levels.size
        with self._lock:
            self._weights += weights

    def packed(self) -> bytes:
        """What has been counted, for `add`."""
        return zlib.compress(self._weights.tobytes(), 1)

    def add(self, packed: bytes) -> None:
        """Count what another histogram has counted."""
        weights = np.frombuffer(zlib.decompress(packed))  # (65536,) float64
        with self._lock:
            self._weights += weights

    def scale(self) -> Scale:
        """From the run's median to its 99.9 % quantile, at least MIN_SPAN apart; [0, 1] without any map."""
        total = self._weights.sum()
        if total == 0.0:
            return Scale(0.0, 1.0)
        share = np.cumsum(self._weights) / total
        low, high = (
            min(int(np.searchsorted(share, quantile)), _LEVELS - 1) / (_LEVELS - 1)
            for quantile in (LOW_QUANTILE, HIGH_QUANTILE)
        )
        low = min(low, 1.0 - MIN_SPAN)
        return Scale(low, max(high, low + MIN_SPAN))


@cache
def colour_table() -> NDArray[np.uint8]:
    """(256, 4) uint8 RGBA for normalised values 0 to 1: violet, red, light yellow, evenly lighter.

    The colours are a path through OKLCh (B. Ottosson, 2020), in which equal steps look equal; opacity is a
    smooth step from 0 at the scale's low end.
    """
    t = np.linspace(0.0, 1.0, _COLOURS)
    lightness = 0.38 + 0.55 * t
    chroma = np.interp(t, [0.0, 0.35, 0.7, 1.0], [0.17, 0.22, 0.19, 0.15])
    hue = np.radians(np.interp(t, [0.0, 0.35, 0.7, 1.0], [295.0, 370.0, 415.0, 465.0]))
    oklab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)])  # (3, 256)
    ramp = np.clip((t - 0.08) / 0.62, 0.0, 1.0)
    opacity = MAX_OPACITY * ramp * ramp * (3.0 - 2.0 * ramp)
    table = np.concatenate([_oklab_to_srgb(oklab), opacity[None]])  # (4, 256)
    return np.rint(255.0 * table).astype(np.uint8).T.copy()


def tint(picture: Image.Image, normalised: NDArray[np.float32]) -> Image.Image:
    """Lay a normalised map (h, w), of any size, over an RGB picture; the result has the picture's size."""
    resized = resize_map(normalised, picture.size)
    colours = colour_table().view(np.uint32)[:, 0]  # (256,): four bytes at a time are looked up much faster
    found = np.take(colours, np.rint(resized * (_COLOURS - 1)).astype(np.uint8))  # (H, W)
    layer = Image.fromarray(found[..., None].view(np.uint8))  # (H, W, 4)
    result = picture.convert("RGB")
    result.paste(layer.convert("RGB"), mask=layer.getchannel("A"))
    return result


def resize_map(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """(h, w) values in [0, 1] to `size` (width, height), averaged when made smaller."""
    resized = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.clip(np.asarray(resized), 0.0, 1.0)


def _oklab_to_srgb(oklab: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, N) OKLab to (3, N) sRGB in [0, 1]; what lies outside the gamut is clipped."""
    to_cone = np.array(
        [
            [1.0, 0.3963377774, 0.2158037573],
            [1.0, -0.1055613458, -0.0638541728],
            [1.0, -0.0894841775, -1.2914855480],
        ]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(to_linear @ (to_cone @ oklab) ** 3, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
