"""Slices of heads: what the volume holds, how a cut reads it, and lesions that are masked as they lie."""

from __future__ import annotations

import pytest
import torch

from headclip.data.synthetic import brain_slice, tissue_brain
from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.head_volume import AIR, CENTRE, INSIDE, HeadVolume, head_volume
from headclip.data.synthetic.registry import FAMILIES

CPU = torch.device("cpu")


def test_the_volume_is_a_head():
    volume = head_volume(CPU)
    shares = torch.bincount(volume.regions.reshape(-1).long(), minlength=4) / volume.regions.numel()
    assert 1.4e6 < shares[INSIDE] * volume.regions.numel() < 2.1e6  # cubic millimetres: a brain and its fluid
    assert not volume.t1[volume.regions == AIR].any()
    middle = volume.at(torch.tensor(CENTRE)[:, None])
    assert float(middle.inside) == 1.0
    assert 0.05 < float(middle.level) < 0.5


def test_places_between_voxels_are_weighted_and_air_is_beyond():
    levels = torch.arange(27, dtype=torch.uint8).reshape(3, 3, 3)
    volume = HeadVolume(levels, torch.full((3, 3, 3), INSIDE, dtype=torch.uint8))
    points = torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.0, 0.0], [0.25, 1.0, 1.5], [2.5, 2.0, 2.0], [-5.0, 1.0, 1.0]]).T
    seen = volume.at(points)
    expected = torch.tensor([13.0, 4.5, 0.25 * 9 + 3 + 1.5, 0.5 * 26, 0.0]) / 255
    torch.testing.assert_close(seen.level, expected)
    torch.testing.assert_close(seen.inside, torch.tensor([1.0, 1.0, 1.0, 0.5, 0.0]))


def test_levels_between_two_tissues_get_a_tone_between_theirs():
    levels = torch.tensor([0.0, 0.12, 0.21, 0.30, 0.42, 0.9])
    tones = brain_slice._tones(levels, brain_slice.INSIDE_LEVELS, (0.9, 0.5, 0.3, 0.1))
    torch.testing.assert_close(tones, torch.tensor([0.9, 0.9, 0.7, 0.5, 0.3, 0.1]))


def test_a_slice_that_nothing_pushes_shows_the_same_tissue():
    drawn = brain_slice.draw_slice(Rng(4), 96, 80)
    still = drawn.moved(torch.zeros(2, 96, 80))
    torch.testing.assert_close(still.level, drawn.tissue.level, atol=2e-3, rtol=0)
    down = drawn.moved(torch.stack([torch.full((96, 80), 3.0), torch.zeros(96, 80)]))
    torch.testing.assert_close(down.level[3:], drawn.tissue.level[:-3], atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["tumour", "large tumour", "lesions", "haemorrhage"])
def test_lesions_change_what_they_mask_and_lie_inside_the_skull(name):
    strong = 0
    for seed in range(15):
        scene = FAMILIES["brain"].draw(Rng(seed), 96, 96)
        changed, mask = scene.variants[name]()
        assert torch.equal(changed[:, ~mask], scene.image[:, ~mask])
        if mask.any():
            assert float(scene.foreground[mask].float().mean()) > 0.8
            strong += float((changed - scene.image).abs()[:, mask].mean()) > 0.03
    assert strong >= 8


def test_large_tumours_are_larger():
    def share(name: str) -> float:
        return sum(float(FAMILIES["brain"].draw(Rng(seed), 96, 96).variants[name]()[1].float().mean())
                   for seed in range(12))  # fmt: skip

    assert share("large tumour") > 1.5 * share("tumour")


def test_a_growth_pushes_away_from_its_middle_and_only_where_it_is_marked():
    drawn = brain_slice.draw_slice(Rng(8), 128, 128)
    found = [tissue_brain._mass(Rng(seed), drawn, 30.0) for seed in range(10)]
    assert any(bool(one.push.any()) for one in found)
    for one in found:
        moved = one.push.abs().amax(0) > 0.5
        assert float(((one.body > 0) | (one.swelling > 0))[moved].float().mean() if moved.any() else 1.0) == 1.0


def test_contrasts_differ_in_whether_fluid_is_bright():
    fluids = torch.tensor([brain_slice._contrast(Rng(seed)).inner[0] for seed in range(60)])
    assert 5 < int((fluids > 0.7).sum()) < 40
    assert int((fluids < 0.25).sum()) > 20
