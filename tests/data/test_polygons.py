"""Polygons of COCO as masks: coordinates are edges of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headclip.data.coco import CocoOutline
from headclip.data.polygons import add_polygon
from headclip.errors import ImageError
from headclip.judgement.regions import TOLERANCE, find_regions


def draw(*points: float, size: tuple[int, int] = (60, 60)) -> np.ndarray:
    return CocoOutline(*size, ([list(points)],)).draw()


def box(left: float, top: float, width: float, height: float) -> tuple[float, ...]:
    right, bottom = left + width, top + height
    return (left, top, right, top, right, bottom, left, bottom)


@pytest.mark.parametrize("width", [1, 3, 10, 40])
@pytest.mark.parametrize("height", [1, 2, 10])
@pytest.mark.parametrize(("left", "top"), [(0, 0), (2, 1), (20, 50)])
def test_a_box_has_the_pixels_between_its_edges(left, top, width, height):
    wanted = np.zeros((60, 60), dtype=bool)
    wanted[top : top + height, left : left + width] = True
    np.testing.assert_array_equal(draw(*box(left, top, width, height)), wanted)
    np.testing.assert_array_equal(draw(*box(left + 0.4, top - 0.4, width, height)), wanted)


def test_what_lies_beyond_the_image_is_cut_off():
    assert draw(*box(-5, -5, 8, 9)).sum() == 3 * 4
    assert draw(*box(57, 58, 100, 100)).sum() == 3 * 2
    assert draw(*box(-1e6, -1e6, 2e6, 2e6)).all()
    for left, top in ((-8, 3), (60, 3), (3, -8), (3, 60)):
        assert not draw(*box(left, top, 8, 8)).any()


def test_centres_count_by_the_even_odd_rule():
    rows, columns = np.mgrid[:60, :60] + 0.5
    triangle = draw(3, 4, 50, 9, 11, 55)
    sides = [(3, 4, 50, 9), (50, 9, 11, 55), (11, 55, 3, 4)]
    wanted = np.ones((60, 60), dtype=bool)
    for x, y, x_end, y_end in sides:
        wanted &= (x_end - x) * (rows - y) - (y_end - y) * (columns - x) > 0
    np.testing.assert_array_equal(triangle, wanted)
    around, within = box(10, 10, 20, 20), box(15, 15, 5, 5)
    ring = draw(*around, around[0], around[1], within[0], within[1], *within[2:], within[0], within[1])
    assert ring.sum() == 400 - 25


@pytest.mark.parametrize(
    ("points", "pixels"),
    [
        (box(7.1, 3.1, 0.2, 0.2), {(3, 7)}),
        (box(7.7, 3, 0.3, 3), {(3, 7), (4, 7), (5, 7)}),
        (box(59.6, 59.6, 0.4, 0.4), {(59, 59)}),
        ((4, 4, 4, 4, 4, 4), {(4, 4)}),
        ((2, 2.5, 5, 2.5, 3, 2.5), {(2, 2), (2, 3), (2, 4)}),
    ],
)
def test_too_thin_for_a_centre_is_not_nothing(points, pixels):
    assert {(int(row), int(column)) for row, column in np.argwhere(draw(*points))} == pixels


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e300])
def test_coordinates_that_are_none(value):
    with pytest.raises(ImageError, match="coordinates"):
        draw(1, 1, value, 1, 3, 3)


@given(st.integers(2, 12), st.integers(2, 12), st.randoms(use_true_random=False))
def test_exact_outlines_of_regions_give_the_regions(height, width, random):
    levels = np.array([[random.choice((0, 0, 60000)) for _ in range(width)] for _ in range(height)], dtype=np.uint16)
    drawn = np.zeros(levels.shape, dtype=bool)
    for region in find_regions(levels, 0.5, tolerance=0.0):
        add_polygon(drawn, np.array(region.polygon))
        for hole in region.holes:
            inside = np.zeros_like(drawn)
            add_polygon(inside, np.array(hole))
            drawn &= ~inside
            drawn |= inside & (levels > 0)  # another region within the hole
    np.testing.assert_array_equal(drawn, levels > 0)


def test_simplified_outlines_differ_at_the_edge_alone():
    rows, columns = np.mgrid[:80, :80]
    disc = (rows - 40) ** 2 + (columns - 37) ** 2 < 30**2
    (region,) = find_regions(disc.astype(np.uint16) * 60000, 0.5, tolerance=TOLERANCE)
    drawn = np.zeros(disc.shape, dtype=bool)
    add_polygon(drawn, np.array(region.polygon))
    distance = np.hypot(rows - 40, columns - 37)[drawn != disc]
    assert (np.abs(distance - 30) < 1).all()
    assert abs(int(drawn.sum()) - int(disc.sum())) < 0.02 * disc.sum()
