"""The figures of a table: their names and order, values that may be absent with a reason, mAD and macro averages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from headclip.errors import InputError

PROTOCOLS = ("exact", "ader")
# "f1" and "iou" are the largest over thresholds (F1-max, IoU-max); the order is that of the published tables.
IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1")
PIXEL_METRICS = ("pixel_auroc", "pixel_aupro", "pixel_ap", "pixel_f1", "pixel_iou")
ALL_METRICS = (*IMAGE_METRICS, "image_mad", *PIXEL_METRICS, "pixel_mad")


class Figures(dict[str, float]):
    """Metric name -> value in [0, 1]. A metric that is not defined has no key; `absent` says why.

    Being a dict, it compares, prints and serialises as one; the reasons travel beside it.

    Example:
        >>> figures = Figures({"image_ap": 1.0}, absent={"image_auroc": "no normal image"})
        >>> figures.get("image_auroc"), figures.absent["image_auroc"]
        (None, 'no normal image')
    """

    def __init__(self, values: Mapping[str, float] | None = None, absent: Mapping[str, str] | None = None) -> None:
        super().__init__(values or {})
        self.absent: dict[str, str] = dict(absent or {})

    def put(self, name: str, value: float, reason: str) -> None:
        """Store a value, or the reason for its absence where the value is not a finite number."""
        if math.isfinite(value):
            self[name] = float(value)
        else:
            self.absent[name] = reason

    def add_mad(self) -> Figures:
        """Add `image_mad` and `pixel_mad`: the plain mean of the level's metrics, absent unless all are there.

        (AUROC, AP, F1-max) per image; (AUROC, AUPRO, AP, F1-max, IoU-max) per pixel, as in the HeadCLIP tables.
        """
        for name, parts in (("image_mad", IMAGE_METRICS), ("pixel_mad", PIXEL_METRICS)):
            missing = [part for part in parts if part not in self]
            if not missing:
                self[name] = float(np.mean([self[part] for part in parts]))
            elif len(missing) < len(parts) or any(part in self.absent for part in parts):
                self.absent[name] = f"{', '.join(missing)} absent"
        return self


def check_protocol(protocol: str) -> None:
    """Raise InputError unless the protocol is one of PROTOCOLS."""
    if protocol not in PROTOCOLS:
        raise InputError(f"unknown metric protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")


def macro_average(rows: Iterable[Mapping[str, float]]) -> Figures:
    """Plain mean over rows: over the categories of a dataset, or over datasets.

    Each metric is averaged over the rows that have it: a pixel-only dataset neither raises nor lowers an image
    average. A metric that no row has stays absent. mAD is the mean of the averaged columns, so that a printed
    row adds up.

    Example:
        >>> average = macro_average([{"image_ap": 0.5}, {"image_ap": 1.0}, {"pixel_ap": 0.2}])
        >>> average["image_ap"], average["pixel_ap"], "image_auroc" in average
        (0.75, 0.2, False)
    """
    table = list(rows)
    average = Figures()
    for name in (*IMAGE_METRICS, *PIXEL_METRICS):
        values = [row[name] for row in table if name in row]
        if values:
            average[name] = float(np.mean(values))
        elif table:
            average.absent[name] = "absent in every row"
    return average.add_mad()


def row_counts(rows: Iterable[Mapping[str, float]]) -> dict[str, int]:
    """How many rows a macro average of each metric rests on; metrics that no row has are left out."""
    counts: dict[str, int] = {}
    for row in rows:
        for name in row:
            counts[name] = counts.get(name, 0) + 1
    return counts
