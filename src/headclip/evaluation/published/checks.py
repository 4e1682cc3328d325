"""What printed figures must satisfy among themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable

from headclip.evaluation.published.figures import Figure

ROUNDING = 0.05
"""Figures are printed in percent with one decimal."""


def iou_from_f1(f1: float) -> float:
    """IoU of the same pixels, F1 / (2 - F1); both in [0, 1].

    >>> iou_from_f1(0.5)
    0.3333333333333333
    """
    return f1 / (2 - f1)


def ap_bound(f1_max: float) -> float:
    """The largest average precision that a largest F1 in [0, 1] allows, in [0, 1].

    At recall r, F1 <= f means precision <= f r / (2 r - f), which is below 1 from r0 = f / (2 - f) on. The
    area under min(1, f r / (2 r - f)) is r0 + (f / 2) [(1 - r0) + (f / 2) ln((2 - f) / (2 r0 - f))].

    >>> round(ap_bound(0.267), 3), ap_bound(0.0), ap_bound(1.0)
    (0.334, 0.0, 1.0)
    """
    if f1_max <= 0:
        return 0.0
    start = iou_from_f1(f1_max)
    half = f1_max / 2
    return start + half * ((1 - start) + half * math.log((2 - f1_max) / (2 * start - f1_max)))


def impossible_ap(figures: Iterable[Figure]) -> list[Figure]:
    """Rows whose pixel AP exceeds what their pixel F1-max allows, rounding granted to both.

    Both cannot be properties of one set of scores: in the HeadCLIP paper the F1 is the best of 21 thresholds
    on a linear grid, which misses the best one by far where scores are saturated.
    """
    found = []
    for row in figures:
        if "pixel_ap" in row.values and "pixel_f1" in row.values:
            f1 = min(1.0, (row.values["pixel_f1"] + ROUNDING) / 100)
            if (row.values["pixel_ap"] - ROUNDING) / 100 > ap_bound(f1):
                found.append(row)
    return found
