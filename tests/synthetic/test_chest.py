"""Chests by X-ray: chords are those of ellipsoids, a sickness lies in a lung and changes nothing outside its mask."""

from __future__ import annotations

import pytest
import torch

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.chest_shadow import chord, draw_chest
from headclip.data.synthetic.registry import FAMILIES
from headclip.data.synthetic.tissue_chest import SICK


def test_a_ray_crosses_an_ellipsoid_by_its_chord():
    at = torch.tensor([0.0, 3.0, 5.0, 6.0])
    found = chord(at, torch.zeros(4), 5.0, 2.0)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.8, 0.0, 0.0]))  # 3-4-5


@pytest.mark.parametrize("seed", range(5))
def test_lungs_are_two_and_let_more_through_than_what_surrounds_them(seed):
    chest = draw_chest(Rng(seed), 160, 160)
    for half in (chest.x < 0, chest.x > 0):
        assert float(chest.lungs[half].mean()) > 0.05
    beside = (chest.lungs < 0.05) & (chest.x.abs() < 0.4 * chest.side) & (chest.y.abs() < 0.2 * chest.side)
    assert float(chest.shadow[chest.lungs > 0.9].mean()) < float(chest.shadow[beside].mean()) - 0.1


@pytest.mark.parametrize(("name", "sign"), [("nodule", 1), ("opacity", 1), ("effusion", 1), ("collapsed lung", -1)])
def test_fluid_and_tissue_take_more_of_the_rays_and_air_takes_less(name, sign):
    for seed in range(10):
        chest = draw_chest(Rng(seed), 160, 160)
        added, there = SICK[name](Rng(50 + seed), chest)
        if (there > 0.5).any():
            assert sign * float(added[there > 0.5].mean()) > 0.02


@pytest.mark.parametrize("name", sorted(SICK))
def test_sick_lungs_are_seen_where_they_are_marked(name):
    strong = 0
    for seed in range(15):
        scene = FAMILIES["chest"].draw(Rng(seed), 112, 112)
        changed, mask = scene.variants[name]()
        assert torch.equal(changed[:, ~mask], scene.image[:, ~mask])
        if mask.any():
            strong += float((changed - scene.image).abs()[:, mask].mean()) > 0.02
    assert strong >= 9
