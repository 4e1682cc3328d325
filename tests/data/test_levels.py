"""The 16 bits of a map, block by block as in one piece."""

from __future__ import annotations

import numpy as np
import pytest

from headclip.data.levels import _BLOCK, MAP_MAXIMUM, quantise


@pytest.mark.parametrize("shape", [(1, 1), (0, 5), (3, _BLOCK // 3), (1, _BLOCK), (2, _BLOCK - 1), (257, 513)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_every_value_is_rounded_to_the_nearest_level(shape, kind):
    values = np.random.default_rng(0).uniform(-0.1, 1.1, shape).astype(kind)
    levels = quantise(values)
    assert levels.dtype == np.uint16
    assert levels.shape == shape
    assert np.array_equal(levels, np.rint(np.clip(values.astype(np.float64), 0, 1) * MAP_MAXIMUM))


def test_views_keep_their_places():
    values = np.random.default_rng(0).uniform(0, 1, (301, 403)).astype(np.float32)
    assert np.array_equal(quantise(values.T[::2, 1:]), quantise(np.ascontiguousarray(values.T[::2, 1:])))
    assert np.array_equal(quantise(values)[100:110, 7], quantise(values[100:110, 7:8])[:, 0])


def test_levels_come_back_as_they_were():
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(quantise(levels.astype(np.float32) / np.float32(MAP_MAXIMUM)), levels)
