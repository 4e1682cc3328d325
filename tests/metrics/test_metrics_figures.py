"""Figures that may be absent, mAD, and macro averages."""

from __future__ import annotations

import json

import pytest

from headclip.metrics import IMAGE_METRICS, PIXEL_METRICS, Figures, macro_average, row_counts


def test_mad_is_the_plain_mean_of_its_level() -> None:
    values = (0.9, 0.8, 0.7, 0.9, 0.8, 0.4, 0.3, 0.1)
    figures = Figures(dict(zip((*IMAGE_METRICS, *PIXEL_METRICS), values, strict=True)))
    figures.add_mad()
    assert figures["image_mad"] == pytest.approx(0.8)
    assert figures["pixel_mad"] == pytest.approx(0.5)


def test_mad_needs_all_its_parts() -> None:
    figures = Figures({"image_ap": 1.0, "image_f1": 1.0}, absent={"image_auroc": "no normal image"}).add_mad()
    assert "image_mad" not in figures
    assert figures.absent["image_mad"] == "image_auroc absent"
    assert "pixel_mad" not in figures.absent  # nothing was asked of that level


def test_a_value_that_is_no_number_is_stored_as_its_reason() -> None:
    figures = Figures()
    figures.put("pixel_ap", float("nan"), "no defect pixel")
    figures.put("pixel_auroc", 0.0, "unused")
    assert figures == {"pixel_auroc": 0.0}
    assert figures.absent == {"pixel_ap": "no defect pixel"}
    assert json.loads(json.dumps(figures)) == {"pixel_auroc": 0.0}


def test_macro_average_never_counts_an_absent_figure() -> None:
    full = dict.fromkeys(IMAGE_METRICS, 0.6) | {"pixel_ap": 0.5}
    pixel_only = {"pixel_ap": 0.1}
    average = macro_average([full, pixel_only])
    assert average["image_auroc"] == pytest.approx(0.6)
    assert average["pixel_ap"] == pytest.approx(0.3)
    assert average["image_mad"] == pytest.approx(0.6)
    assert "pixel_auroc" not in average
    assert average.absent["pixel_auroc"] == "absent in every row"
    assert "pixel_mad" not in average
    assert row_counts([full, pixel_only])["pixel_ap"] == 2
    assert row_counts([full, pixel_only])["image_ap"] == 1


def test_the_mean_of_no_rows_is_empty() -> None:
    assert macro_average([]) == {}


def test_the_row_of_averages_adds_up() -> None:
    rows = [dict.fromkeys(IMAGE_METRICS, 0.5), {"image_ap": 1.0, "image_f1": 1.0}]
    average = macro_average(rows)
    assert average["image_mad"] == pytest.approx(sum(average[name] for name in IMAGE_METRICS) / 3)
