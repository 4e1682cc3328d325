"""One scale for the run, colours in order, and normal areas left alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from headclip.data.levels import quantise
from headclip.runs.overlay import LevelHistogram, Scale, colour_table, resize_map, tint


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of (N, 3) sRGB uint8."""
    linear = np.where(rgb <= 10, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return 116 * np.cbrt(y) - 16


def test_colours_rise_in_lightness_and_opacity():
    table = colour_table()
    assert table.shape == (256, 4)
    steps = np.diff(lightness(table[:, :3]))
    assert steps.min() > -0.6  # rounding to 8 bits may step back by that much
    assert lightness(table[[255], :3])[0] - lightness(table[[0], :3])[0] > 50
    assert (np.diff(table[:, 3].astype(int)) >= 0).all()
    assert table[0, 3] == 0
    assert table[255, 3] > 128


def test_scale_is_the_quantiles_of_all_maps_each_weighing_the_same():
    rng = np.random.default_rng(0)
    maps = [rng.random((60, 60), dtype=np.float32), rng.random((10, 10), dtype=np.float32) * 0.2]
    histogram = LevelHistogram()
    for anomaly_map in maps:
        histogram.update(quantise(anomaly_map))
    scale = histogram.scale()
    # Half of the small map's weight of 1/2 and the whole large map's: P(x < t) = t / 2 + min(5 t, 1) / 2.
    assert scale.low == pytest.approx(1 / 6, abs=0.02)
    assert scale.high == pytest.approx(0.998, abs=0.005)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_equal_maps_do_not_glow(value):
    histogram = LevelHistogram()
    histogram.update(quantise(np.full((9, 9), value, np.float32)))
    scale = histogram.scale()
    assert 0.0 <= scale.low < scale.high
    assert scale.high - scale.low >= 0.05 - 1e-9
    noisy = np.full((9, 9), min(value, 0.94) + 0.001, np.float32)
    assert scale.normalise(noisy).max() < 0.05 or value == 1.0


def test_no_maps_give_the_whole_range():
    assert LevelHistogram().scale() == Scale(0.0, 1.0)


def test_tint_changes_what_is_high_and_only_that():
    picture = Image.fromarray(np.full((40, 60, 3), 120, np.uint8))
    normalised = np.zeros((20, 30), np.float32)
    normalised[:, 20:] = 1.0
    tinted = np.asarray(tint(picture, normalised))
    assert tinted.shape == (40, 60, 3)
    assert (tinted[:, :36] == 120).all()
    assert np.abs(tinted[:, 44:].astype(int) - 120).max() > 50


def test_normalise_and_resize_stay_in_range():
    values = Scale(0.2, 0.6).normalise(np.array([[0.0, 0.2, 0.4, 0.6, 1.0]], np.float32))
    np.testing.assert_allclose(values, [[0, 0, 0.5, 1, 1]], atol=1e-6)
    resized = resize_map(np.eye(16, dtype=np.float32), (5, 7))
    assert resized.shape == (7, 5)
    assert 0.0 <= resized.min() <= resized.max() <= 1.0
