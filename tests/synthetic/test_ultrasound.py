"""Ultrasound: speckle has the statistics of physics, beams run where they should, growths are marked and cast shade."""

from __future__ import annotations

import math

import pytest
import torch

from headclip.data.synthetic import tissue_ultrasound
from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.defects import apply_defect
from headclip.data.synthetic.echo_view import Echoes, Fan, Probe, draw_fan
from headclip.data.synthetic.registry import FAMILIES

SIDE = 192
NO_NOISE = -200.0


def plain_probe(seed: int, looks: int | None = None) -> Probe:
    """A machine without noise of its own that shows levels in dB as they are: nothing is cut off."""
    for number in range(200):
        probe = Probe(Rng(seed + number), SIDE, SIDE)
        if looks in (None, probe.looks):
            probe.floor, probe.range, probe.gain, probe.gamma = NO_NOISE, 400.0, 0.0, 1.0
            return probe
    raise AssertionError(f"no machine with {looks} looks")


def decibels(probe: Probe, body: Echoes) -> torch.Tensor:
    return (probe.seen(body) - 0.6) * probe.range


def even(level: float = 0.0) -> Echoes:
    none = torch.zeros(SIDE, SIDE)
    return Echoes(none + level, none, none)


# The deviation of 10 log10 of a mean of n exponential variables is 10 / ln 10 * sqrt(trigamma(n)).
@pytest.mark.parametrize(("looks", "trigamma"), [(1, math.pi**2 / 6), (2, 0.644934), (3, 0.394934), (5, 0.221323)])
def test_speckle_is_that_of_many_scatterers(looks, trigamma):
    found = torch.stack([decibels(plain_probe(300 * k, looks), even()) for k in range(6)])
    expected = 10 / math.log(10) * math.sqrt(trigamma)
    assert float(found.std()) == pytest.approx(expected, rel=0.12)


def test_brightness_is_that_of_the_scatterers_at_every_depth():
    """Even tissue is as bright above the focus, in it and below; 6 dB more of echo are 6 dB more on the screen."""
    rows = torch.stack([decibels(plain_probe(40 * k, 5), even()) for k in range(8)]).mean((0, 2))
    thirds = rows[12:-12].view(3, -1).mean(1)
    assert float(thirds.max() - thirds.min()) < 1.0
    probe = plain_probe(7)
    torch.testing.assert_close(decibels(probe, even(6.0)) - decibels(probe, even()), torch.full((SIDE, SIDE), 6.0),
                               atol=1e-2, rtol=0)  # fmt: skip


def test_what_is_lost_on_the_way_is_lost_behind_and_nowhere_else():
    probe, body = plain_probe(3), even()
    body.loss = torch.zeros(SIDE, SIDE)
    body.loss[60:80, 50:90] = 1.0
    change = decibels(probe, body) - decibels(probe, even())
    torch.testing.assert_close(change[80:, 50:90], torch.full((SIDE - 80, 40), -20.0), atol=0.05, rtol=0)
    beside = torch.ones(SIDE, dtype=torch.bool)
    beside[50:90] = False
    assert not change[:60].any()
    assert not change[:, beside].any()


def fans(curved: bool) -> list[Fan]:
    found = [draw_fan(Rng(seed), 96, 128) for seed in range(30)]
    return [one for one in found if (one.field is not None) == curved]


def test_beams_are_shown_where_they_run():
    """A picture of the beams' own coordinates is the grid of pixels, as far as beams reach."""
    curved = fans(curved=True)
    assert 5 < len(curved) < 25
    x = (torch.arange(128.0) - 63.5).expand(96, 128)
    y = (torch.arange(96.0) - 47.5)[:, None].expand(96, 128)
    for fan in curved:
        inner = torch.nn.functional.avg_pool2d(fan.seen[None, None].float(), 7, 1, 3)[0, 0] > 0.999
        for field, expected in ((fan.x, x), (fan.y, y)):
            torch.testing.assert_close(fan.picture(field)[inner], expected[inner], atol=0.2, rtol=0)
        assert not fan.picture(torch.ones_like(fan.x))[~fan.seen].any()
    assert all(bool(fan.seen.all()) for fan in fans(curved=False))


@pytest.mark.parametrize(("kind", "sign"), [("dark", -1), ("bright", 1), ("cyst", -1)])
def test_growths_send_back_what_their_kind_says(kind, sign):
    for seed in range(10):
        rng = Rng(seed)
        fan = draw_fan(rng, SIDE, SIDE)
        none = torch.zeros_like(fan.x)
        grown = tissue_ultrasound._growth(rng, fan, none + 1.0, 60.0)
        changed = tissue_ultrasound._with(rng, Echoes(none, none, none), grown, kind)
        middle = grown.reach < 0.7
        if middle.any():
            assert sign * float(changed.echo[middle].mean()) > 1.0
        assert not changed.echo[grown.reach > 1.3].any()


def test_a_cyst_loses_less_than_what_lies_beside_it():
    rng = Rng(2)
    fan = fans(curved=False)[0]
    none = torch.zeros_like(fan.x)
    grown = tissue_ultrasound._growth(rng, fan, none + 1.0, 40.0)
    changed = tissue_ultrasound._with(rng, Echoes(none, none, none), grown, "cyst")
    assert float(changed.loss.min()) < 0.0
    assert not (changed.loss > 0).any()


@pytest.mark.parametrize("name", ["nodule", "large nodule", "nodules", "cyst", "calcifications"])
def test_own_defects_are_seen_where_they_are_marked(name):
    inside, outside = [], []
    for seed in range(12):
        scene = FAMILIES["ultrasound"].draw(Rng(seed), 96, 96)
        changed, mask = scene.variants[name]()
        difference = (changed - scene.image).abs().amax(0)
        inside.append(float(difference[mask].mean()) if mask.any() else 0.0)
        outside.append(float(difference[~mask].mean()))
    assert sum(one > 0.03 for one in inside) >= 7
    assert sum(inside) > 4 * sum(outside)


def test_a_shadow_stays_in_the_picture_and_out_of_the_mask():
    scene = FAMILIES["ultrasound"].draw(Rng(5), 96, 96)
    shadow = scene.image.clone()
    shadow[:, 40:, 30:60] *= 0.5
    mask = torch.zeros(96, 96, dtype=torch.bool)
    mask[30:44, 30:60] = True
    scene.variants = {"nodule": lambda: (torch.where(mask, 1.0 - shadow, shadow), mask)}
    names = set()
    for seed in range(20):
        image, marked, name = apply_defect(scene, Rng(seed))
        names.add(name)
        if name == "nodule":
            assert not marked[50:].any()
            assert torch.equal(image[:, 50:], shadow[:, 50:])
    assert "nodule" in names
