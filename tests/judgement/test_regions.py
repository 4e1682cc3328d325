"""Regions against brute force and scikit-image; outlines that give back exactly the pixels they go round."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage import measure

from headclip.errors import InputError
from headclip.judgement.outlines import outline, signed_area, simplify
from headclip.judgement.regions import (
    EXTENT,
    MAXIMUM,
    Region,
    RegionRules,
    as_levels,
    extent_level,
    find_regions,
    level_above,
    region_level,
    region_mask,
)

maps = arrays(np.uint16, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 6))
rule_sets = st.builds(RegionRules, st.integers(1, 8), st.integers(0, 3))


def inside(shape: tuple[int, int], rings) -> np.ndarray:
    """(H, W): pixel centres inside, by the even-odd rule; vertical edges to the left are counted one by one."""
    crossings = np.zeros(shape, dtype=int)
    for ring in rings:
        for (x, y), (right, below) in zip(ring, [*ring[1:], ring[0]], strict=True):
            if x == right:
                crossings[int(min(y, below)) : int(max(y, below)), int(x) :] += 1
    return crossings % 2 == 1


@given(maps, st.integers(0, 5), rule_sets)
@settings(max_examples=200, deadline=None)
def test_regions_by_scikit_image(levels, level, rules):
    threshold = level / MAXIMUM
    mask = levels > level
    border = rules.ignore_border
    if border:
        mask[:border], mask[-border:], mask[:, :border], mask[:, -border:] = False, False, False, False
    labels = measure.label(mask, connectivity=2)
    wanted = [p for p in measure.regionprops(labels, levels) if p.area >= rules.min_area]
    found = find_regions(levels, threshold, rules, tolerance=0)

    def key(props):
        top, left, bottom, right = props.bbox
        return (left, top, right - left, bottom - top), int(props.area)

    mine = sorted((region.box, region.area) for region in found)
    assert mine == sorted(key(props) for props in wanted)
    assert sorted(r.peak for r in found) == pytest.approx(sorted(p.intensity_max / MAXIMUM for p in wanted))
    assert sorted(r.mean for r in found) == pytest.approx(sorted(p.intensity_mean / MAXIMUM for p in wanted))
    union = np.zeros(levels.shape, dtype=bool)
    for region in found:
        x, y = region.peak_at
        assert levels[int(y), int(x)] == round(region.peak * MAXIMUM)
        pixels = inside(levels.shape, (region.polygon, *region.holes))
        assert pixels.sum() == region.area
        assert pixels[int(y), int(x)]
        union |= pixels
    assert (union == region_mask(levels, threshold, rules)).all()
    assert [region.number for region in found] == list(range(1, len(found) + 1))
    assert [region.peak for region in found] == sorted((region.peak for region in found), reverse=True)


@given(maps, rule_sets)
@settings(max_examples=200, deadline=None)
def test_region_level_is_the_least_threshold_without_regions(levels, rules):
    brute = next(level for level in range(8) if not find_regions(levels, level / MAXIMUM, rules))
    assert region_level(levels, rules) == brute / MAXIMUM


@given(maps, rule_sets)
@settings(deadline=None)
def test_an_alarm_is_a_region_above_the_threshold(levels, rules):
    for level in range(7):
        threshold = level / MAXIMUM
        assert bool(find_regions(levels, threshold, rules)) == (region_level(levels, rules) > threshold)


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(max_examples=200, deadline=None)
def test_outlines_have_the_area_and_the_orientation_promised(mask):
    labels = measure.label(mask, connectivity=2)
    for number in range(1, labels.max() + 1):
        part = labels == number
        outer, *holes = outline(part)
        assert signed_area(outer) > 0
        assert all(signed_area(hole) < 0 for hole in holes)
        assert signed_area(outer) + sum(map(signed_area, holes)) == part.sum()
        assert 1 - len(holes) == measure.euler_number(part, connectivity=2)
        for ring in (outer, *holes):
            steps = np.roll(ring, -1, axis=0) - ring
            assert ((steps == 0).sum(axis=1) == 1).all()  # along the pixels' edges, and no corner without a turn
            assert ((steps[:, 0] == 0) != (np.roll(steps, -1, axis=0)[:, 0] == 0)).all()


@given(st.integers(0, 1000), st.floats(0.1, 4))
@settings(max_examples=40, deadline=None)
def test_simple_outlines_stay_within_the_tolerance(seed, tolerance):
    yy, xx = np.mgrid[:40, :50]
    rng = np.random.default_rng(seed)
    blobs = [
        np.exp(-((xx - rng.uniform(5, 45)) ** 2 + (yy - rng.uniform(5, 35)) ** 2) / rng.uniform(20, 90))
        for _ in range(3)
    ]
    mask = measure.label(sum(blobs) > 0.4, connectivity=2) == 1
    for ring in outline(mask):
        less = simplify(ring, tolerance)
        assert {tuple(point) for point in less} <= {tuple(point) for point in ring}
        ends = np.roll(less, -1, axis=0)
        for point in ring:
            along = ends - less
            share = (((point - less) * along).sum(1) / (along**2).sum(1)).clip(0, 1)
            assert np.sqrt(((less + share[:, None] * along - point) ** 2).sum(1)).min() <= tolerance + 1e-9


def test_a_diagonal_becomes_a_line():
    region = find_regions(np.tri(30) * 0.5, 0.2)[0]
    assert len(region.polygon) <= 5
    assert len(find_regions(np.tri(30) * 0.5, 0.2, tolerance=0)[0].polygon) == 62


def test_millimetres():
    region = find_regions(np.pad(np.full((2, 3), 0.7), 2), 0.5, pixel_mm=0.25)[0]
    assert region.area_mm2 == pytest.approx(6 / 16)
    assert region.box_mm == (0.75, 0.5)


def test_through_json_and_back():
    ring = np.pad(np.ones((5, 5)), 1)
    ring[3, 3] = 0
    for pitch in (None, 0.1):
        for region in find_regions(ring, 0.5, pixel_mm=pitch):
            assert len(region.holes) == 1
            assert Region.from_json(json.loads(json.dumps(region.to_json()))) == region


@given(st.integers(0, MAXIMUM))
def test_a_pixel_at_the_threshold_is_not_above_it(level):
    assert level_above(level / MAXIMUM) == level
    assert level_above((level + 0.5) / MAXIMUM) == level
    assert level_above(float(np.float32(level / MAXIMUM))) in (level, level - 1)


def test_thresholds_outside_the_scale():
    values = np.array([[0.0, 1.0]])
    assert find_regions(values, -0.5)[0].area == 2
    assert find_regions(values, 1.0) == find_regions(values, 7.0) == ()


def test_the_smallest_steps_of_a_map_are_told_apart():
    """Thresholds that differ by one of 65,535 steps give different regions, at both ends of the scale."""
    for low in (0, 1, MAXIMUM - 1):
        values = np.full((4, 4), low, dtype=np.uint16)
        values[1:3, 1:3] += 1
        assert [region.area for region in find_regions(values, low / MAXIMUM)] == [4]
        assert find_regions(values, (low + 1) / MAXIMUM) == ()


def test_maps_of_other_kinds_are_refused():
    with pytest.raises(InputError):
        as_levels(np.zeros((2, 2, 3)))
    with pytest.raises(InputError):
        as_levels(np.zeros((2, 2), dtype=np.uint8))
    for rules in ({"min_area": 0}, {"ignore_border": -1}):
        with pytest.raises(InputError):
            RegionRules(**rules)


def test_a_map_smaller_than_the_border():
    assert find_regions(np.ones((4, 9)), 0.5, RegionRules(ignore_border=2)) == ()
    assert region_level(np.ones((4, 9)), RegionRules(ignore_border=2)) == 0.0
    assert region_level(np.ones((4, 9)), RegionRules(min_area=37)) == 0.0


@given(maps, rule_sets)
def test_an_extent_level_is_the_least_that_shows_so_little(values, rules):
    inside = slice(rules.ignore_border, -rules.ignore_border or None)
    inner = values[inside, inside]
    found = extent_level(values, rules)
    most = EXTENT * (inner > 0).sum()  # what is 0 lies outside of what was looked at
    assert (inner > level_above(found)).sum() <= most
    assert found == 0.0 or (inner > level_above(found) - 1).sum() > most


def test_regions_of_a_far_corner_have_their_place():
    values = np.zeros((300, 400))
    values[290:297, 380:391], values[293, 388] = 0.6, 0.9
    (region,) = find_regions(values, 0.5)
    assert region.box == (380, 290, 11, 7)
    assert region.peak_at == (388.5, 293.5)
    assert region.polygon[0] in {(380.0, 290.0), (391.0, 290.0), (391.0, 297.0), (380.0, 297.0)}
    assert find_regions(np.ones((3, 4)), 1.0) == ()
    assert find_regions(np.zeros((3, 4)), -1e-3)[0].area == 12
