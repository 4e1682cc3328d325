"""Figures that papers and repositories print, with their source, protocol and known misprints.

>>> from headclip.evaluation.published import published
>>> row, = published(dataset="mvtec", method="HeadCLIP", source="headclip", table="1")
>>> row.values["pixel_mad"]
56.3
"""

from headclip.evaluation.published.checks import ap_bound, impossible_ap, iou_from_f1
from headclip.evaluation.published.figures import (
    AVERAGE,
    METRICS,
    Figure,
    Inconsistency,
    Source,
    inconsistencies,
    known_family,
    published,
    sources,
)

__all__ = [
    "AVERAGE",
    "METRICS",
    "Figure",
    "Inconsistency",
    "Source",
    "ap_bound",
    "impossible_ap",
    "inconsistencies",
    "iou_from_f1",
    "known_family",
    "published",
    "sources",
]
