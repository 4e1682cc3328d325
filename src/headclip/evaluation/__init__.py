"""Evaluation: data sets, metrics, intervals, tables. The public names load when first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_METRICS = (
    "ALL_METRICS",
    "IMAGE_METRICS",
    "PIXEL_METRICS",
    "PROTOCOLS",
    "Figures",
    "PixelMetrics",
    "image_metrics",
    "macro_average",
    "pixel_metrics",
)


def __getattr__(name: str) -> Any:
    """Import on first use, so that reading a dataset does not import scipy."""
    if name in _METRICS:
        return getattr(import_module("headclip.metrics"), name)
    raise AttributeError(f"module 'headclip.evaluation' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_METRICS})
