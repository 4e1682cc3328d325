"""Photographs of things, cut out of their background, as parts of a scene."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from headclip.data.synthetic import photographs, render
from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.photographs import Photographs, noun_of_thing
from headclip.data.synthetic.things import thing_scene

SIZE = (96, 128)


def disc(side: int = 80) -> np.ndarray:
    """A disc with a bright ring on nothing, (side, side, 4) uint8."""
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    away = np.hypot(rows, columns)
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., :3] = np.where(away > 0.3 * side, 220, 90)[..., None]
    pixels[..., 3] = 255 * (away < 0.45 * side)
    return pixels


@pytest.fixture
def cutout():
    return torch.from_numpy(disc()).permute(2, 0, 1).float() / 255


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(disc()).save(tmp_path / "brass_washer_2.png")
    Image.fromarray(np.dstack([np.full((64, 64, 3), 60, np.uint8), np.full((64, 64), 255, np.uint8)])).save(
        tmp_path / "opaque.png"
    )
    Image.fromarray(np.full((64, 64, 3), 60, np.uint8)).save(tmp_path / "wall.jpg")
    return tmp_path


def test_a_picture_with_transparent_places_is_a_thing_and_others_are_surfaces(folder):
    found = Photographs(folder)
    assert [path.name for path in found.things] == ["brass_washer_2.png"]
    assert [path.name for path in found.surfaces] == ["opaque.png", "wall.jpg"]
    assert noun_of_thing(found.things[0]) == "brass washer"


def test_some_of_the_pictures_show_things_and_the_others_surfaces(folder):
    kinds = [Photographs(folder).draw(Rng(seed), *SIZE).kind for seed in range(200)]
    assert abs(kinds.count("part") / len(kinds) - photographs.THINGS) < 0.08
    (folder / "opaque.png").unlink()
    (folder / "wall.jpg").unlink()
    assert {Photographs(folder).draw(Rng(seed), *SIZE).kind for seed in range(6)} == {"part"}


@pytest.mark.parametrize("seed", range(12))
def test_a_thing_covers_a_part_of_the_picture_and_defects_lie_on_it(cutout, seed):
    scene = thing_scene(cutout, Rng(seed), *SIZE, "washer")
    assert scene.image.shape == (3, *SIZE)
    assert scene.image.min() >= 0
    assert scene.image.max() <= 1
    assert 0.01 <= float(scene.foreground.float().mean()) <= 1.0
    assert not torch.equal(scene.image, thing_scene(cutout, Rng(seed + 100), *SIZE, "washer").image)
    assert torch.equal(scene.image, thing_scene(cutout, Rng(seed), *SIZE, "washer").image)


@pytest.mark.parametrize("seed", range(12))
def test_a_missing_piece_shows_the_ground_where_the_thing_was(cutout, seed):
    scene = thing_scene(cutout, Rng(seed), *SIZE, "washer", ground=torch.full((3, *SIZE), 0.5))
    changed, mask = scene.variants["missing piece"]()
    if scene.foreground.all() or not mask.any():  # it fell out of view, or where it is covered by another
        return
    near = torch.nn.functional.max_pool2d(mask[None, None].float(), 15, 1, 7)[0, 0] > 0
    assert torch.equal(changed[:, ~near], scene.image[:, ~near])
    assert (mask & scene.foreground).any()


def test_things_take_defects_of_their_own_and_others(folder, monkeypatch):
    monkeypatch.setattr(photographs, "THINGS", 1.0)
    always = Photographs(folder, 1.0)
    made = [render(seed, 96, defect_rate=1.0, photographs=always) for seed in range(40)]
    assert all(sample.mask.any() for sample in made)
    assert "missing piece" in {sample.defect for sample in made}
    assert len({sample.defect for sample in made}) > 5
    assert any("brass washer" in sample.caption for sample in made)
