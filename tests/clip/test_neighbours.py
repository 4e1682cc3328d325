"""The distance of each patch to those most like it, beside a slow way to the same and what it must and must not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headclip.clip.neighbours import FLOOR, NEAREST, TYPICAL, describe, neighbour_distance
from headclip.clip.rarity import MOST, SPREAD
from headclip.clip.streams import Stream, run_streams
from headclip.clip.vision import VisionRequest
from tiny_clip import make_backbone, make_config


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow(pixels: np.ndarray, patch: int) -> np.ndarray:
    """(3, H, W) -> (rows, columns), in float64, patch by patch."""
    rows, columns = pixels.shape[1] // patch, pixels.shape[2] // patch
    described = []
    for row in range(rows):
        for column in range(columns):
            one = pixels[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            grey, numbers = one.mean(axis=0), []
            signals = [grey, one[0] - one[1], one[2] - one[1]]
            for scale in (1, 2):
                side = patch // scale
                cells = grey.reshape(side, scale, side, scale).mean(axis=(1, 3))
                down, right = np.diff(cells, axis=0)[:, :-1], np.diff(cells, axis=1)[:-1]
                bend = np.diff(cells, 2, axis=0)[:, 1:-1] + np.diff(cells, 2, axis=1)[1:-1]
                signals += [np.hypot(down, right), -bend]
            for signal in signals:
                numbers += [signal.mean(), signal.std()]
            described.append(numbers)
    found = np.array(described)
    found = found - found.mean(axis=0)
    found = np.clip(found / (SPREAD * np.abs(found).mean(axis=0) + FLOOR), -MOST, MOST)
    distances = []
    for number, one in enumerate(found):
        others = np.delete(found, number, axis=0)
        distances.append(np.sort(np.linalg.norm(others - one, axis=1))[:NEAREST].mean())
    return np.array(distances).reshape(rows, columns)


@pytest.mark.parametrize(("patch", "size"), [(14, (56, 42)), (16, (48, 96)), (8, (24, 32))])
def test_equal_to_the_slow_way(patch, size):
    pixels = noise(2, 3, *size)
    pixels[:, :, :patch] *= 3
    found = neighbour_distance(pixels, patch)
    assert found.dtype == torch.float32
    for one, expected in zip(found, pixels.double().numpy(), strict=True):
        np.testing.assert_allclose(one.numpy(), slow(expected, patch), rtol=1e-3, atol=1e-3)


def test_the_odd_patch_is_farthest():
    pixels = noise(1, 3, 80, 96)
    pixels[:, :, 32:48, 48:64] *= 2  # rougher, of the same brightness
    found = neighbour_distance(pixels, 16)[0]
    assert found.argmax() == 2 * 6 + 3
    assert found.max() > 2 * found.median()


def test_a_patch_repeated_often_enough_is_at_home():
    """Four alike are no farther from each other than nothing; three alike have to look elsewhere once."""
    pixels = noise(1, 3, 64, 64)
    tile = noise(3, 16, 16, seed=1) * 4
    for row in range(3):
        pixels[0, :, row * 16 : row * 16 + 16, :16] = tile
    three = neighbour_distance(pixels, 16)[0, :3, 0]
    pixels[0, :, 48:, :16] = tile
    four = neighbour_distance(pixels, 16)[0, :, 0]
    assert three.min() > 1
    assert four.max() < 0.01


def test_brightness_of_the_whole_picture_does_not_count():
    pixels = noise(1, 3, 64, 64)
    torch.testing.assert_close(neighbour_distance(pixels + 2, 16), neighbour_distance(pixels, 16), atol=0.02, rtol=0)


def test_an_even_picture_and_one_of_few_patches():
    assert neighbour_distance(torch.full((1, 3, 64, 64), 0.7), 16).max() < 0.01
    torch.testing.assert_close(neighbour_distance(noise(2, 3, 14, 14), 14), torch.full((2, 1, 1), TYPICAL))
    pair = neighbour_distance(noise(1, 3, 14, 28), 14)[0, 0]
    assert pair[0] == pair[1] > TYPICAL  # their distance once, TYPICAL for the two that are missing


def test_half_precision_is_described_in_full():
    pixels = noise(1, 3, 64, 64).half()
    assert torch.equal(neighbour_distance(pixels, 16), neighbour_distance(pixels.float(), 16))


def test_patches_too_small_for_differences_have_colours_alone():
    assert describe(noise(1, 3, 8, 8), 2).shape == (1, 16, 6)
    assert describe(noise(1, 3, 15, 15), 5).shape == (1, 9, 10)  # cells of 2 px do not fit
    assert describe(noise(1, 3, 32, 32), 16).shape == (1, 4, 14)


def test_a_tower_tells_it_where_it_is_asked_for():
    backbone, pixels = make_backbone(make_config()), noise(2, 3, 42, 56)
    asked, plain = VisionRequest(csa=(2, 3), taps=(3,), neighbours=True), VisionRequest(csa=(2, 3), taps=(3,))
    expected = neighbour_distance(pixels, 14)
    with torch.no_grad():
        assert torch.equal(backbone.vision(pixels, asked).neighbours, expected)
        assert backbone.vision(pixels, plain).neighbours is None
        shared = run_streams(backbone.vision, pixels, [Stream(plain), Stream(asked)])
    assert shared[0].neighbours is None
    assert torch.equal(shared[1].neighbours, expected)
