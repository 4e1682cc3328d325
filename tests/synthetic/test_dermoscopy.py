"""Skin under a dermatoscope: what absorbs light makes it darker, and lesions are masked as they lie."""

from __future__ import annotations

import pytest
import torch

from headclip.data.synthetic import tissue_dermoscopy as derm
from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.registry import FAMILIES


def flat_light(heights):
    return torch.ones_like(heights), torch.zeros_like(heights)


@pytest.mark.parametrize("field", ["melanin", "blood", "deep"])
def test_more_of_an_absorber_takes_more_light(field):
    skin = derm._skin(Rng(3), 64, 64)
    zero = torch.zeros(64, 64)
    one = derm._Pigment(zero, zero, zero, zero)
    setattr(one, field, torch.full((64, 64), 0.7))
    before, after = skin.seen(skin.own, flat_light), skin.seen(skin.own + one, flat_light)
    assert (after < before).all()
    red, green, blue = (after / before).mean((1, 2)).tolist()
    assert red < blue if field == "deep" else red > max(green, blue)


def test_a_lesion_is_as_large_as_asked_and_nearer_to_the_middle_the_more_it_is_pulled():
    skin = derm._skin(Rng(5), 128, 128)
    areas = {size: [derm._lesion(skin, size, 1.0)[1].float().mean() for _ in range(12)] for size in (24.0, 72.0)}
    small, large = (float(torch.stack(found).median()) for found in areas.values())
    assert 4 < large / small < 16
    assert 0.5 < small * 128**2 / (3.14 * 12**2) < 2.0
    for _ in range(5):
        _, there = derm._lesion(skin, 40.0, 1.0)
        assert (there.nonzero().float().mean(0) - 63.5).norm() < 20


@pytest.mark.parametrize("name", ["lesion", "large lesion", "lesions"])
def test_lesions_change_what_they_mask(name):
    strong = 0
    for seed in range(15):
        scene = FAMILIES["dermoscopy"].draw(Rng(seed), 96, 96)
        changed, mask = scene.variants[name]()
        assert torch.equal(changed[:, ~mask], scene.image[:, ~mask])
        strong += bool(mask.any()) and float((changed - scene.image).abs()[:, mask].mean()) > 0.03
    assert strong >= 10


def test_large_lesions_are_larger():
    def share(name: str) -> float:
        return sum(float(FAMILIES["dermoscopy"].draw(Rng(seed), 96, 96).variants[name]()[1].float().mean())
                   for seed in range(12))  # fmt: skip

    assert share("large lesion") > 2 * share("lesion")
