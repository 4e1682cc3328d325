"""Sections of retinas: layers lie in order, what is sick is marked as it lies, and lifts what is above it."""

from __future__ import annotations

import pytest
import torch

from headclip.data.synthetic import tissue_retina
from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.registry import FAMILIES
from headclip.data.synthetic.retina_layers import CHOROID, LAYERS, PIGMENT, draw_retina
from headclip.data.synthetic.tissue_retina import SICK

SIZE = (160, 200)


def retina(seed: int):
    return draw_retina(Rng(seed), *SIZE)


@pytest.mark.parametrize("seed", range(8))
def test_layers_lie_one_below_the_other_also_when_something_lifts_them(seed):
    sound = retina(seed)
    assert sound.borders.shape == (len(LAYERS), SIZE[1])
    assert bool((sound.borders[1:] > sound.borders[:-1]).all())
    dome = torch.zeros(SIZE[1])
    dome[80:110] = 0.8 * sound.thickness
    lifted = sound.lifted(dome, PIGMENT)
    assert bool((lifted.borders[1:] > lifted.borders[:-1]).all())
    torch.testing.assert_close(sound.borders[PIGMENT] - lifted.borders[PIGMENT], dome)
    assert torch.equal(sound.borders[CHOROID:], lifted.borders[CHOROID:])
    risen = sound.borders[:PIGMENT] - lifted.borders[:PIGMENT]
    assert bool((risen[:, :20] < 0.3 * sound.thickness).all())  # far from the dome little moves
    assert bool((risen[:, 90:100] > 0).all())


def test_each_layer_sends_back_what_it_is_said_to():
    sound = retina(3)
    still = torch.zeros_like(sound.grain)
    echo = type(sound)(sound.borders, sound.levels, still, sound.clear, still, sound.pit, sound.thickness).echoes().echo
    for number, (top, bottom) in enumerate(zip(sound.borders[:-1], sound.borders[1:], strict=True)):
        row = (0.5 * (top + bottom)).long().clamp(0, SIZE[0] - 1)
        wide = (bottom - top > 4.0) & (bottom < SIZE[0]) & (top > 0)
        found = echo[row, torch.arange(SIZE[1])][wide]
        torch.testing.assert_close(found, sound.levels[number].expand_as(found), atol=1e-3, rtol=0)
    assert float(echo[0].max()) <= sound.clear + 1e-3


@pytest.mark.parametrize(("name", "sign"), [("fluid", -1), ("cysts", -1), ("macular hole", -1), ("deposits", 1)])
def test_what_is_marked_is_darker_or_brighter_than_what_was_there(name, sign):
    changes = []
    for seed in range(12):
        sound = retina(seed)
        sick, there = SICK[name](Rng(100 + seed), sound)
        if (there > 0.9).any():
            changes.append(float((sick.echo - sound.echoes().echo)[there > 0.9].mean()))
    assert len(changes) >= 8
    assert sum(sign * change > 2.0 for change in changes) >= 0.8 * len(changes)


@pytest.mark.parametrize("name", ["drusen", "swelling"])
def test_what_lies_under_the_pigment_layer_is_marked_with_the_layer(name):
    for seed in range(6):
        sound = retina(seed)
        _, there = SICK[name](Rng(200 + seed), sound)
        rows = torch.arange(SIZE[0])[:, None] + 0.5
        assert not (there[(rows > sound.borders[CHOROID] + 2).expand_as(there)] > 0.35).any()


@pytest.mark.parametrize("name", sorted(SICK))
def test_own_defects_are_seen_where_they_are_marked(name):
    inside, outside = [], []
    for seed in range(12):
        scene = FAMILIES["oct"].draw(Rng(seed), 112, 112)
        assert scene.casts
        changed, mask = scene.variants[name]()
        difference = (changed - scene.image).abs().amax(0)
        inside.append(float(difference[mask].mean()) if mask.any() else 0.0)
        outside.append(float(difference[~mask].mean()))
    assert sum(one > 0.03 for one in inside) >= 8
    assert sum(inside) > 2.5 * sum(outside)


def test_vessels_take_light_from_what_lies_below_the_surface_alone():
    for seed in range(40):
        sound = retina(seed)
        if sound.shade.any():
            break
    loss = sound.echoes().loss
    assert not loss[(sound.rows < sound.borders[0] - 3).expand_as(loss)].any()
    assert float(loss.sum(0).max()) > 0.5
    assert float(loss.min()) >= 0.0


def test_pictures_of_the_family_are_grey_and_named_as_what_they_are():
    scene = FAMILIES["oct"].draw(Rng(1), 96, 120)
    assert torch.equal(scene.image[0], scene.image[1])
    assert scene.noun in tissue_retina.NOUNS
    assert 0.05 < float(scene.foreground.float().mean()) < 0.95
