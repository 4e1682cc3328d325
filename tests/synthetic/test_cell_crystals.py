"""Silicon: flaws lie in grains, borders and rims as crystals grow them, and only take light; rings are slight."""

from __future__ import annotations

import pytest
import torch

from headclip.data.synthetic import cell_crystals
from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.cell_crystals import crystals, dislocations, grains_of, rings
from headclip.data.synthetic.cell_faults import Cell
from headclip.data.synthetic.shapes import pixel_grid

SIZE = (120, 150)


def cell(seed: int) -> Cell:
    rng = Rng(seed)
    u, v = pixel_grid(rng, *SIZE)
    return Cell(rng, u, v, [-20.0, 20.0], 0.5 * SIZE[0], torch.zeros(SIZE))


@pytest.mark.parametrize("seed", range(8))
def test_what_is_left_of_the_light_is_a_share(seed):
    light = crystals(cell(seed))
    assert light.shape == SIZE
    assert bool(torch.isfinite(light).all())
    assert 0.0 < float(light.amin()) < float(light.amax()) <= 1.2
    assert torch.equal(light, crystals(cell(seed)))  # the seed alone decides


@pytest.mark.parametrize("seed", range(8))
def test_grains_fill_the_cell_and_their_borders_lie_where_numbers_change(seed):
    grains = grains_of(cell(seed))
    assert 0 <= int(grains.number.amin()) <= int(grains.number.amax()) < grains.count
    assert len(grains.number.unique()) > 3
    changes = torch.zeros(SIZE, dtype=torch.bool)
    changes[:, 1:] = grains.number[:, 1:] != grains.number[:, :-1]
    assert float(grains.border[changes].mean()) < 0.5 * float(grains.border[~changes].mean())


def test_some_grains_are_full_of_dislocations_and_others_have_none():
    """In nearly all pictures, the density of grains differs by far more than that of places within a sound grain."""
    uneven = 0
    for seed in range(20):
        one = cell(seed)
        grains = grains_of(one)
        density = dislocations(one, grains)
        assert float(density.amin()) >= 0.0
        means = [float(density[grains.number == k].mean()) for k in grains.number.unique()]
        uneven += min(means) < 0.02 < 2.5 * sum(means) / len(means) < 2.5 * max(means)
    assert uneven > 12


def test_the_rim_is_dark_along_one_side_and_not_along_the_one_across():
    for seed in range(12):
        dark = cell_crystals._ingot_rim(cell(seed))
        assert 0.0 <= float(dark.amin()) <= float(dark.amax()) <= 1.0
        left, right = float(dark[40:80, 15:18].mean()), float(dark[40:80, -18:-15].mean())  # the cell is 120 wide
        assert max(left, right) > 2.0 * min(left, right)


def test_twins_are_straight_bands_in_grains_that_have_them():
    one = cell(3)
    grains = grains_of(one)
    stripes = cell_crystals._twins(one, grains)
    striped = [k for k in grains.number.unique() if float(stripes[grains.number == k].abs().sum()) > 0]
    assert 0 < len(striped) < len(grains.number.unique())
    assert len(stripes.unique()) < 400  # a level a band


def test_specks_are_small_and_many():
    dark = cell_crystals._precipitates(cell(1))
    assert 0.0 < float((dark > 0.1).float().mean()) < 0.2
    assert 0.2 < float(dark.amax()) <= 1.0


def test_rings_of_a_single_crystal_are_slight_and_lie_about_its_middle():
    centred = 0
    for seed in range(40):
        one = cell(seed)
        tone = rings(one)
        assert float(tone.abs().amax()) < 0.4
        away = torch.hypot(one.u, one.v)
        circle = (away > 30.0) & (away < 30.5)
        centred += float(tone[circle].std()) < 0.5 * float(tone.std())
    assert centred > 15
