"""Every scene family gives sound, repeatable, varied pictures; its own defects change only what they mask."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.scenes import FAMILIES, make_scene

SIZES = ((96, 96), (64, 192), (160, 80))
EVERY_FAMILY = pytest.mark.parametrize("family", sorted(FAMILIES))


def drawn(family: str, seed: int, height: int = 96, width: int = 96) -> Scene:
    return make_scene(Rng(seed), height, width, family)


def saturation(image: torch.Tensor) -> float:
    return float((image.amax(0) - image.amin(0)).mean())


@EVERY_FAMILY
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_picture_is_sound_at_any_shape(family: str, height: int, width: int) -> None:
    for seed in range(4):
        scene = drawn(family, seed, height, width)
        assert scene.image.shape == (3, height, width)
        assert scene.image.dtype == torch.float32
        assert bool(torch.isfinite(scene.image).all())
        assert float(scene.image.min()) >= 0.0
        assert float(scene.image.max()) <= 1.0
        assert scene.foreground.shape == (height, width)
        assert scene.foreground.dtype == torch.bool
        assert bool(scene.foreground.any())
        assert scene.family == family
        assert scene.noun
        assert scene.kind in {"surface", "part", "grid", "tissue"}


@EVERY_FAMILY
def test_seed_decides_the_picture(family: str) -> None:
    assert torch.equal(drawn(family, 7).image, drawn(family, 7).image)
    others = [drawn(family, seed).image for seed in range(4)]
    for first in range(4):
        for second in range(first):
            assert not torch.allclose(others[first], others[second], atol=0.01)


@EVERY_FAMILY
def test_own_defects_change_only_what_they_mask(family: str) -> None:
    for seed in range(6):
        scene = drawn(family, seed)
        before = scene.image.clone()
        for name, draw in scene.variants.items():
            changed, mask = draw()
            assert torch.equal(scene.image, before), name  # the good picture stays as it was
            assert changed.shape == before.shape
            assert bool(torch.isfinite(changed).all())
            assert float(changed.min()) >= 0.0
            assert float(changed.max()) <= 1.0
            assert mask.dtype == torch.bool
            assert bool(mask.any()), (name, seed)
            near = F.max_pool2d(mask[None, None].float(), 7, 1, 3)[0, 0] > 0.5
            assert scene.casts or torch.equal(changed[:, ~near], before[:, ~near]), (name, seed)
            assert float((changed - before).abs().amax()) > 0.0, (name, seed)


def shares(family: str, name: str, seeds: int = 60) -> torch.Tensor:
    """What share of the part each of that defect's masks covers."""
    scenes = [drawn(family, seed) for seed in range(seeds)]
    return torch.tensor([float(s.variants[name]()[1].float().sum() / s.foreground.float().sum()) for s in scenes])


def test_large_polyps_are_larger_and_polyps_lie_in_the_endoscope_s_window() -> None:
    assert shares("mucosa", "large polyp").mean() > 1.5 * shares("mucosa", "polyp").mean()
    for seed in range(40):
        scene = drawn("mucosa", seed)
        _, mask = scene.variants["large polyp"]()
        assert float((mask & ~scene.foreground).float().sum()) <= 0.1 * float(mask.float().sum())


def test_a_cell_that_fails_is_darker_where_it_fails() -> None:
    faults = ("dead area", "cell crack", "shattered cell", "finger interruption", "dark edge")
    for name in (*faults, "poor contact", "shunt", "corroded contact"):
        darker = []
        for seed in range(20):
            scene = drawn("electroluminescence", seed)
            changed, mask = scene.variants[name]()
            darker.append(float((changed - scene.image).mean(0)[mask].mean()) < 0.0)
        assert sum(darker) >= 18, name


def test_families_are_drawn_by_weight() -> None:
    seen = {make_scene(Rng(seed), 64, 64).family for seed in range(150)}
    assert len(seen) > 0.7 * len(FAMILIES)
    assert seen <= set(FAMILIES)


def test_most_pictures_are_nearly_grey() -> None:
    grey = sum(saturation(make_scene(Rng(seed), 64, 64).image) < 0.12 for seed in range(200))
    assert 100 < grey < 180


def test_unknown_family_is_refused() -> None:
    with pytest.raises(KeyError):
        make_scene(Rng(0), 64, 64, "no such family")
