"""Where a cell's current goes astray: dim only where the fault reaches, and what sound strips show is slight."""

from __future__ import annotations

import pytest
import torch

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.cell_currents import corroded, poor_contact, shunts, uneven_lanes
from headclip.data.synthetic.cell_faults import Cell
from headclip.data.synthetic.shapes import pixel_grid

SIZE = (120, 150)
BARS = [-40.0, 0.0, 40.0]


def cell(seed: int) -> Cell:
    rng = Rng(seed)
    u, v = pixel_grid(rng, *SIZE)
    return Cell(rng, u, v, list(BARS), 0.5 * SIZE[0], torch.zeros(SIZE))


@pytest.mark.parametrize("fault", [poor_contact, shunts, corroded])
@pytest.mark.parametrize("seed", range(8))
def test_a_fault_leaves_a_share_of_the_light_and_all_of_it_elsewhere(fault, seed):
    light = fault(cell(seed))
    assert light.shape == SIZE
    assert 0.0 <= float(light.amin()) < 0.9
    assert float(light.amax()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(light, fault(cell(seed)))  # the seed alone decides


def test_without_contact_only_the_lost_bar_s_own_strip_is_dim_and_most_of_all_far_from_the_others():
    whole, wavering = 0, 0
    for seed in range(30):
        one = cell(seed)
        light = poor_contact(one)
        nearest = torch.stack([(one.v - place).abs() for place in BARS]).argmin(0)
        dim = [float(light[nearest == k].amin()) < 0.99 for k in range(len(BARS))]
        assert sum(dim) == 1, seed
        strip = light[nearest == dim.index(True)]
        whole += float((strip < 0.99).float().mean()) > 0.9
        wavering += float(strip.amin()) < float(strip.mean())
    assert 5 < whole < 25  # all along, or a part of the way
    assert wavering == 30


def test_short_circuits_are_points_and_corrosion_grows_from_bars_and_sides():
    near, far = 0.0, 0.0
    for seed in range(40):
        assert float((shunts(cell(seed)) < 0.5).float().mean()) < 0.4
        one = cell(seed)
        lost = 1.0 - corroded(one)
        to_bar = torch.stack([(one.v - place).abs() for place in BARS]).amin(0)
        to_side = torch.minimum(one.seen - one.u.abs(), one.seen - one.v.abs())
        middle = torch.minimum(to_bar, to_side.clamp(min=0.0)) > 15.0
        near, far = near + float(lost[~middle].mean()), far + float(lost[middle].mean())
    assert near > 1.5 * far


def test_a_sound_cell_s_strips_are_slight_and_run_along_the_bars():
    for seed in range(20):
        lanes = uneven_lanes(cell(seed))
        assert float((lanes - 1.0).abs().amax()) < 0.3
        assert float(lanes.std(1).amax()) < 1e-5  # alike all along the bars
