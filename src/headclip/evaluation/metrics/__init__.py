"""Image and pixel metrics under two protocols: "exact" (no threshold grid) and "ader" (the published tables)."""

from headclip.evaluation.metrics.figures import (
    ALL_METRICS,
    IMAGE_METRICS,
    PIXEL_METRICS,
    PROTOCOLS,
    Figures,
    macro_average,
    row_counts,
)
from headclip.evaluation.metrics.image import category_image_metrics, image_metrics
from headclip.evaluation.metrics.pixel import PixelMetrics, bounds, compute, pixel_metrics
from headclip.evaluation.metrics.state import PixelState, empty_state, merge, update

__all__ = [
    "ALL_METRICS",
    "IMAGE_METRICS",
    "PIXEL_METRICS",
    "PROTOCOLS",
    "Figures",
    "PixelMetrics",
    "PixelState",
    "bounds",
    "category_image_metrics",
    "compute",
    "empty_state",
    "image_metrics",
    "macro_average",
    "merge",
    "pixel_metrics",
    "row_counts",
    "update",
]
