"""From the values of a scanner to the 256 greys of a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headclip.errors import InputError

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
SAMPLED_SLICES = 24
_SAMPLED_VALUES = 65_536  # of each sampled slice

Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True)
class Window:
    """Centre and width in the units of the values, with the functions of DICOM PS3.3 C.11.2.1.2."""

    centre: float
    width: float
    function: Function = "LINEAR_EXACT"

    @classmethod
    def parse(cls, text: str) -> Window:
        """`40,80` -> centre 40, width 80.

        Raises:
            InputError: it is something else.

        >>> Window.parse("40,80").limits
        (0.0, 80.0)
        """
        try:
            centre, width = (float(part) for part in text.split(","))
        except ValueError:
            raise InputError(f"--window {text}: write CENTRE,WIDTH, such as 40,80 for a brain in CT") from None
        if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
            raise InputError(f"--window {text}: the width must be above 0, and both must be numbers")
        return cls(centre, width)

    @classmethod
    def between(cls, low: float, high: float) -> Window:
        """The window from `low` to `high`."""
        return cls((low + high) / 2, high - low)

    @property
    def limits(self) -> tuple[float, float]:
        """The values that become black and white."""
        if self.function == "LINEAR":  # equation C.11-2: half a value less, and one less wide
            half = max(self.width - 1, 1e-6) / 2
            return self.centre - 0.5 - half, self.centre - 0.5 + half
        return self.centre - self.width / 2, self.centre + self.width / 2

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Values of any shape -> uint8; what is not finite becomes black."""
        numbers = values.astype(np.float32)
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * (numbers - np.float32(self.centre)) / np.float32(self.width), -80, 80)
            greys = 255.0 / (1.0 + np.exp(exponent))
        else:
            low, high = self.limits
            greys = (numbers - np.float32(low)) * np.float32(255.0 / max(high - low, 1e-30))
        return np.rint(np.clip(np.nan_to_num(greys, nan=0.0, posinf=0.0, neginf=0.0), 0.0, 255.0)).astype(np.uint8)


def percentile_window(slices: Iterable[NDArray[Any]]) -> Window | None:
    """From the 0.5th to the 99.5th percentile of what is finite in some slices; None where nothing is."""
    samples = []
    for values in slices:
        flat = values.reshape(-1)
        flat = flat[:: max(1, flat.size // _SAMPLED_VALUES)].astype(np.float64)
        samples.append(flat[np.isfinite(flat)])
    together = np.concatenate(samples) if samples else np.empty(0)
    if not together.size:
        return None
    low, high = np.percentile(together, [LOW_PERCENTILE, HIGH_PERCENTILE])
    if high <= low:  # more than 99 % of one value: the rest is what there is to see
        low, high = float(together.min()), float(together.max())
    return Window.between(float(low), float(high) if high > low else float(low) + 1.0)


def sampled(count: int) -> list[int]:
    """The indices of at most SAMPLED_SLICES of `count` slices, spread evenly.

    >>> sampled(3), len(sampled(1000))
    ([0, 1, 2], 24)
    """
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, SAMPLED_SLICES))})
