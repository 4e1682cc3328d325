"""A prediction as a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from headclip import overlay
from headclip.errors import InputError
from headclip.judgement.regions import find_regions
from headclip.prediction import Prediction


def prediction(regions=(), path=None):
    anomaly_map = np.zeros((60, 80), np.float32)
    anomaly_map[20:40, 30:50] = 0.9
    return Prediction(0.8, 0.7, 0.9, anomaly_map, path, regions=regions)


GREY = np.full((60, 80, 3), 128, np.uint8)


def test_colour_lies_where_the_map_is_high():
    picture = np.asarray(overlay(prediction(), GREY)).astype(int)
    assert picture.shape == (60, 80, 3)
    coloured = np.abs(picture - 128).max(axis=2) > 8
    assert coloured[22:38, 32:48].all()
    assert not coloured[:18].any()
    assert not coloured[42:].any()


def test_the_scale_is_the_callers():
    plain = np.asarray(overlay(replace(prediction(), anomaly_map=np.full((60, 80), 0.3, np.float32)), GREY, low=0.3))
    assert (plain == 128).all()
    with pytest.raises(InputError, match=r"a scale from 0\.9 to 0\.2"):
        overlay(prediction(), GREY, low=0.9, high=0.2)


def test_regions_are_outlined():
    found = prediction()
    regions = tuple(find_regions(found.anomaly_map, 0.5))
    without, outlined = overlay(found, GREY), overlay(replace(found, regions=regions), GREY)
    changed = np.abs(np.asarray(without).astype(int) - np.asarray(outlined)).max(axis=2) > 20
    rows, columns = np.nonzero(changed)
    assert changed.any()
    assert not changed[24:36, 34:46].any()  # the inside stays to be seen
    assert (rows.min(), rows.max()) == pytest.approx((20, 40), abs=2)
    assert (columns.min(), columns.max()) == pytest.approx((30, 50), abs=2)


def test_the_image_is_read_from_its_path(tmp_path):
    path = tmp_path / "part.png"
    Image.fromarray(GREY).save(path)
    found = overlay(prediction(path=str(path)))
    assert np.array_equal(np.asarray(found), np.asarray(overlay(prediction(), GREY)))


def test_wrong_images_are_refused():
    with pytest.raises(InputError, match="give the image that was judged"):
        overlay(prediction())
    with pytest.raises(InputError, match="30 x 20 pixels and the map 80 x 60"):
        overlay(prediction(), np.zeros((20, 30, 3), np.uint8))
