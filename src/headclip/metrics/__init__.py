"""Image and pixel metrics under two protocols: "exact" (no threshold grid) and "ader" (the published tables)."""

from headclip.metrics.figures import (
    ALL_METRICS,
    IMAGE_METRICS,
    PIXEL_METRICS,
    PROTOCOLS,
    Figures,
    macro_average,
    row_counts,
)
from headclip.metrics.image import category_image_metrics, image_metrics
from headclip.metrics.pixel import PixelMetrics, bounds, compute, pixel_metrics
from headclip.metrics.state import PixelState, empty_state, merge, update

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
