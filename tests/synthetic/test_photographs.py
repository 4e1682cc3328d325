"""Photographs as ground for rendered defects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from headclip.data.synthetic import SyntheticDataset, render
from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.photographs import Photographs, noun_of, pictures_below, window
from headclip.errors import ImageError, InputError
from headclip.inference.predict import predict_run
from inference.fake_detector import FakeDetector

STRIPES = (40, 90, 140, 190)  # grey levels of the photographs, each nearly even


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "wood").mkdir()
    for number, level in enumerate(STRIPES):
        pixels = level + rng.integers(-3, 4, (90, 130, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "wood" / f"{number}.png")
    return tmp_path


def test_all_of_the_pictures_can_be_photographs_or_none(folder):
    always, never = Photographs(folder, 1.0), Photographs(folder, 0.0)
    assert all(render(seed, 64, photographs=always).family == "photograph" for seed in range(6))
    for seed in range(6):
        assert render(seed, 64, photographs=never).family != "photograph"


def test_pictures_without_photographs_are_what_they_were(folder):
    plain = render(3, 64)
    assert torch.equal(plain.image, render(3, 64).image)
    mixed = {render(seed, 64, photographs=Photographs(folder, 0.5)).family == "photograph" for seed in range(20)}
    assert mixed == {True, False}


def test_a_seed_gives_the_same_photograph_with_and_without_a_defect(folder):
    photographs = Photographs(folder, 1.0)
    sound = render(5, (64, 96), defect_rate=0.0, photographs=photographs)
    broken = render(5, (64, 96), defect_rate=1.0, photographs=photographs)
    assert sound.image.shape == (3, 64, 96)
    assert not sound.mask.any()
    assert broken.mask.any()
    assert "wood" in {sound.noun, broken.noun}
    apart = (sound.image.float() - broken.image.float()).abs().amax(0)
    assert apart[broken.mask].mean() > 4 * apart[~broken.mask].mean()


@pytest.mark.parametrize(("size", "wanted"), [((40, 60), (40, 60)), ((300, 200), (300, 200)), ((90, 130), (90, 130))])
def test_windows_of_small_and_large_photographs_have_the_size_asked_for(size, wanted):
    pixels = torch.arange(90 * 130 * 3, dtype=torch.float32).remainder(251).to(torch.uint8).view(3, 90, 130)
    for seed in range(8):
        found = window(pixels, Rng(seed), *size)
        assert found.shape == (3, *wanted)
        assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_a_broken_file_gives_way_to_another(folder):
    for path in sorted((folder / "wood").iterdir())[:3]:
        path.write_bytes(b"no picture")
    levels = {round(float(Photographs(folder).draw(Rng(seed), 48, 48).image.mean() * 255), -1) for seed in range(8)}
    assert levels == {190}
    (folder / "wood" / "3.png").write_bytes(b"none either")
    with pytest.raises(ImageError, match="none of the 4 photographs"):
        Photographs(folder).draw(Rng(0), 48, 48)


def test_a_folder_without_photographs_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InputError, match="no photographs"):
        Photographs(tmp_path)


def test_the_fingerprint_knows_files_and_share(folder):
    first = Photographs(folder).fingerprint()
    assert Photographs(folder).fingerprint() == first
    assert Photographs(folder, 0.9).fingerprint() != first
    known = Photographs(folder)
    (folder / "wood" / "0.png").unlink()
    assert known.fingerprint() == first  # a file that goes while a training runs ends nothing
    assert Photographs(folder).fingerprint() != first


def test_a_set_of_photographs_is_another_set(folder):
    plain, mixed = SyntheticDataset(1, 4, 64), SyntheticDataset(1, 4, 64, photographs=Photographs(folder, 1.0))
    assert [mixed[index].family for index in range(4)] == ["photograph"] * 4
    assert plain.fingerprint() != mixed.fingerprint()
    assert SyntheticDataset(1, 4, 64, photographs=Photographs(folder, 1.0)).fingerprint() == mixed.fingerprint()


def test_names_tell_what_is_shown(folder):
    path = folder.relative_to(folder.anchor)
    assert noun_of(path / "base-Floor3.jpg") == "floor"
    assert noun_of(path.relative_to(path) / "x17.jpg") == "surface"


def test_what_lies_in_a_run_is_no_photograph(folder):
    before = pictures_below(folder)
    predict_run(FakeDetector(), [folder / "wood"], folder / "wood" / "run")
    assert pictures_below(folder) == before
