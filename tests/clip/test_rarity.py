"""How unlike a patch is to the rest of its picture."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from headclip.clip.backbone import Backbone
from headclip.clip.config import ClipConfig, VisionConfig
from headclip.clip.initialise import grow, initialise
from headclip.clip.rarity import BANDWIDTHS, FLOOR, MOST, SPREAD, Rarity, describe, signals
from headclip.errors import BackboneError, InputError
from tiny_clip import make_backbone, make_config

COUNT = len(BANDWIDTHS)


def with_rarity() -> ClipConfig:
    vision = VisionConfig(64, 3, 1, 16, 48, activation="gelu", detail=6, rarity=True)
    return replace(make_config("gelu"), vision=vision)


def pixels() -> Tensor:
    return torch.randn(2, 3, 48, 80, generator=torch.Generator().manual_seed(3))


def answers(patches: int = 40, filters: int = 5, seed: int = 0) -> Tensor:
    return torch.rand(1, patches, filters, 16, generator=torch.Generator().manual_seed(seed))


def by_loops(one: Tensor) -> Tensor:
    """What `describe` says of one picture (N, F, cells), patch by patch and in double precision."""
    one = one.double()
    raw = torch.cat([one.mean(-1), one.std(-1, correction=0)], dim=1)
    centred = raw - raw.mean(0)
    found = (centred / (SPREAD * centred.abs().mean(0) + FLOOR)).clamp(-MOST, MOST)
    rare = torch.zeros(len(one), COUNT, dtype=torch.float64)
    for patch in range(len(one)):
        distances = [float(((found[patch] - other) ** 2).mean()) for other in found]
        for column, bandwidth in enumerate(BANDWIDTHS):
            rare[patch, column] = -math.log(sum(math.exp(-d / bandwidth) for d in distances) / len(distances))
    return torch.cat([found, rare, rare - rare.mean(0)], dim=1)


def test_it_is_the_definition():
    given = answers()
    assert torch.allclose(describe(given)[0].double(), by_loops(given[0]), atol=1e-4)
    assert describe(given).shape == (1, 40, signals(5))


def test_where_all_are_alike_nothing_is_rare():
    assert describe(answers(patches=1).expand(2, 30, -1, -1)).abs().max() < 1e-5


def test_the_odd_one_is_the_rarest():
    given = 0.02 * answers(patches=60)
    given[0, 17] += 0.5
    rare = describe(given)[0, :, -2 * COUNT : -COUNT]
    assert rare.argmax(dim=0).tolist() == [17] * COUNT
    assert torch.allclose(rare[17], torch.tensor(60.0).log(), atol=0.15)  # like none but itself


def test_it_goes_with_its_patch_wherever_that_lies():
    given, order = answers(), torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(describe(given[:, order]), describe(given)[:, order], atol=1e-4)


def test_pictures_of_a_batch_do_not_mix():
    both = torch.cat([answers(), 3 * answers(seed=1)])
    assert torch.allclose(describe(both)[1:], describe(both[1:]), atol=1e-5)


def test_filters_do_not_learn_from_it():
    given, rarity = answers().requires_grad_(), Rarity(8, 5)
    rarity(given).sum().backward()
    assert given.grad is None
    assert rarity.mix.grad is not None
    assert bool(rarity.mix.grad.any())


def test_a_tower_with_it_begins_as_the_one_without():
    plain = make_backbone(replace(with_rarity(), vision=replace(with_rarity().vision, rarity=False)))
    grown = grow(plain, with_rarity())
    with torch.no_grad():
        assert torch.allclose(grown.vision(pixels()).cls, plain.vision(pixels()).cls, atol=1e-5)
        mix = grown.vision.get_parameter("detail.rarity.mix")
        mix.copy_(0.05 * torch.randn(mix.shape, generator=torch.Generator().manual_seed(2)))
        assert not torch.allclose(grown.vision(pixels()).cls, plain.vision(pixels()).cls, atol=1e-3)
    with pytest.raises(InputError, match="rarity"):
        grow(grown, plain.config)
    assert not bool(initialise(Backbone(with_rarity(), name="x")).state_dict()["vision.detail.rarity.mix"].any())


def test_without_detail_it_is_refused():
    vision = replace(with_rarity().vision, detail=0)
    with pytest.raises(BackboneError, match="rarity needs detail"):
        replace(with_rarity(), vision=vision).check()


def test_what_is_neither_true_nor_false_is_refused():
    values = with_rarity().to_dict()
    values["vision"] |= {"rarity": "many"}
    with pytest.raises(BackboneError, match="true or false"):
        ClipConfig.from_dict(values)
