"""Metrics against the numbers of the official codes (ADer, AnomalyCLIP, AdaCLIP, anomalib) on the golden maps."""

from __future__ import annotations

import json
import math
from functools import lru_cache

import numpy as np
import pytest

from golden_io import golden_dir
from headclip.metrics import PixelMetrics, image_metrics, pixel_metrics
from headclip.metrics.state import image_state

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(
        not (golden_dir() / "metrics.json").is_file(), reason="no metrics.json in the folder of golden numbers"
    ),
]
TOLERANCE = 1e-6
# In single precision they print AUPRO with about seven digits.
PIXEL_NAMES = {
    "pixel_auroc": "mAUROC_px",
    "pixel_ap": "mAP_px",
    "pixel_f1": "mF1_max_px",
    "pixel_iou": "mIoU_max_px",
    "pixel_aupro": "mAUPRO_px",
}
IMAGE_NAMES = {"image_auroc": "auroc", "image_ap": "ap", "image_f1": "f1_max"}


@lru_cache
def golden() -> dict:
    path = golden_dir() / "metrics.json"
    return json.loads(path.read_text())["cases"] if path.is_file() else {}


@lru_cache
def inputs(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = np.load(golden_dir() / "metrics_inputs.npz")
    return arrays[f"{case}.maps"], arrays[f"{case}.masks"], arrays[f"{case}.image_scores"]


def is_number(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def check(value: float | None, official, *, defined: bool = True) -> None:
    """Equal where the official code gives a number that means something, absent elsewhere."""
    if defined and is_number(official):
        assert value == pytest.approx(official, abs=TOLERANCE)
    else:
        assert value is None


@pytest.mark.parametrize("case", sorted(golden()))
def test_pixel_figures_under_ader(case: str) -> None:
    maps, masks, _ = inputs(case)
    figures = pixel_metrics(maps, masks, "ader")
    flat = maps.min() == maps.max()
    for name, official in PIXEL_NAMES.items():
        # ADer says 0 without defects, and 0 for the F1 of a map that it has turned into NaN: we say nothing.
        defined = bool(masks.any()) and not (flat and name in ("pixel_f1", "pixel_iou"))
        check(figures.get(name), golden()[case]["ader"][official], defined=defined)
        assert (name in figures) != (name in figures.absent)
    check(figures.get("pixel_aupro"), golden()[case]["anomalyclip"]["pixel_aupro"])


@pytest.mark.parametrize("case", sorted(golden()))
def test_pixel_figures_without_a_grid(case: str) -> None:
    maps, masks, _ = inputs(case)
    figures = pixel_metrics(maps, masks)
    exact, some = golden()[case]["exact"], bool(masks.any())
    check(figures.get("pixel_f1"), exact["f1_max_px"], defined=some)
    check(figures.get("pixel_iou"), exact["iou_max_px"], defined=some)
    check(figures.get("pixel_aupro"), exact["aupro_0p3"], defined=some)
    check(figures.get("pixel_aupro"), golden()[case]["anomalib"]["aupro_0p3"], defined=some)
    for name, official in (("pixel_auroc", "auroc_px"), ("pixel_ap", "ap_px"), ("pixel_f1", "f1_px")):
        percent = golden()[case]["adaclip_percent"][official]
        check(figures.get(name), percent / 100 if is_number(percent) else percent, defined=some)


@pytest.mark.parametrize("case", sorted(golden()))
@pytest.mark.parametrize("protocol", ["exact", "ader"])
def test_streaming_gives_the_same(case: str, protocol: str) -> None:
    maps, masks, _ = inputs(case)
    metrics = PixelMetrics(protocol)
    for anomaly_map, mask in zip(maps, masks, strict=True):
        metrics.update(anomaly_map, mask)
    assert metrics.compute() == pixel_metrics(maps, masks, protocol)


@pytest.mark.parametrize("case", sorted(golden()))
@pytest.mark.parametrize("protocol", ["exact", "ader"])
def test_image_figures(case: str, protocol: str) -> None:
    maps, masks, scores = inputs(case)
    labels = masks.reshape(len(masks), -1).max(axis=1)
    figures = image_metrics(scores, labels, protocol)
    by_maximum = image_metrics(maps.reshape(len(maps), -1).max(axis=1), labels, protocol)
    for name, official in IMAGE_NAMES.items():
        some = bool(labels.any())
        check(figures.get(name), golden()[case]["external_image_score"][official], defined=some)
        ader = {"auroc": "mAUROC_sp_max", "ap": "mAP_sp_max", "f1_max": "mF1_max_sp_max"}[official]
        check(by_maximum.get(name), golden()[case]["ader"][ader], defined=some)


@pytest.mark.parametrize("case", sorted(golden()))
def test_regions_are_eight_connected(case: str) -> None:
    maps, masks, _ = inputs(case)
    counted = sum(image_state(*pair).regions for pair in zip(maps, masks, strict=True))
    assert counted == golden()[case]["n_regions_8conn"]
