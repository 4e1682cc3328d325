"""From the layers that papers name, of 24 vision and 12 text layers, to those of another tower."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from headclip.errors import InputError
from headclip.methods.similarity import proportional_taps

VISION_DEPTH, TEXT_DEPTH = 24, 12


def scale_range(layers: tuple[int, int], depth: int) -> tuple[int, int]:
    """First and last of 24 layers -> the same shares of a tower of `depth` layers.

    The same rule as `headclip.methods.headclip.proportional_csa`, for any range.

    >>> scale_range((5, 19), 12), scale_range((6, 24), 8)
    ((3, 9), (3, 8))
    """
    first, last = layers
    low = math.floor(depth * (first - 1) / VISION_DEPTH + 0.5) + 1
    high = depth - math.floor(depth * (VISION_DEPTH - last) / VISION_DEPTH + 0.5)
    low = min(low, depth)
    return low, max(low, high)


def scale_deep(layers: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Text layers from 2 up to some layer of 12 -> from 2 up to the same share of `depth` layers.

    >>> scale_deep((2, 3, 4, 5, 6, 7, 8, 9), 4), scale_deep((2, 3), 4)
    ((2, 3), ())
    """
    if not layers:
        return ()
    return tuple(range(2, math.floor(depth * layers[-1] / TEXT_DEPTH + 0.5) + 1))


def scale_settings(settings: Mapping[str, Any], vision: int, text: int | None) -> dict[str, Any]:
    """Settings of a variant with their layers scaled; a tap that lies in the CSA range stays in it.

    Args:
        vision, text: layers of the towers; None for a backbone without a text tower.

    Raises:
        InputError: a layer that a tower of 24 does not have.
    """
    scaled = dict(settings)
    taps, csa = settings.get("taps"), settings.get("csa_layers")
    for layer in (*(taps or ()), *(csa or ())):
        if not 1 <= layer <= VISION_DEPTH:
            raise InputError(f"layer {layer} of an ablation does not exist; layers count from 1 to {VISION_DEPTH}")
    if taps is not None:
        scaled["taps"] = proportional_taps(tuple(taps), vision)
    if csa is not None:
        first, last = scale_range(tuple(csa), vision)
        if taps is not None and min(taps) >= csa[0]:
            first = min(first, *scaled["taps"])
        scaled["csa_layers"] = (first, last)
    if settings.get("deep_layers") is not None and text is not None:
        scaled["deep_layers"] = scale_deep(tuple(settings["deep_layers"]), text)
    return scaled
