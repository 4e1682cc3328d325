"""Pixel counts as files: nothing of what the metrics need is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headclip.errors import InputError
from headclip.evaluation.counts import StateCounts, encode_counts, merge_all, read_counts, read_facts
from headclip.metrics import merge
from headclip.metrics.per_image import ImageCounts, lay_bins
from headclip.metrics.state import image_state


def image(seed, wide=False, defects=True):
    rng = np.random.default_rng(seed)
    scores = rng.random((24, 30), dtype=np.float32) ** rng.integers(1, 9)
    mask = rng.random((24, 30)) > 0.9 if defects else None
    return (scores * 4 - 2 if wide else scores).astype(np.float32), mask


def same(one, other):
    first, second = one.to_arrays(), other.to_arrays()
    return all(np.array_equal(first[name], second[name]) for name in first)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.booleans(), st.sampled_from([1024, 131_072]))
def test_a_state_comes_back_as_it_was(tmp_path_factory, seed, wide, defects, capacity):
    file = tmp_path_factory.mktemp("counts") / "a"
    state = image_state(*image(seed, wide, defects), capacity=capacity)
    file.write_bytes(encode_counts(state, {"note": "x"}))
    assert same(read_counts(file), state)
    assert read_facts(file) == {"note": "x", "known": True}


def test_merging_files_equals_merging_states_whatever_the_groups():
    states = [image_state(*image(seed, defects=seed % 3 > 0), capacity=2048) for seed in range(70)]
    assert same(merge_all(states), merge(*states))
    assert merge_all(states).level > 0


def test_counts_from_states_are_those_from_maps():
    images = [image(seed, defects=seed % 2 > 0) for seed in range(9)]
    states = [image_state(*entry, capacity=2048) for entry in images]
    bins = lay_bins(merge_all(states), 64)
    from_states, from_maps = StateCounts(bins), ImageCounts(bins)
    for state, entry in zip(states, images, strict=True):
        from_states.add(state)
        from_maps.update(*entry)
    draws = np.random.default_rng(0).integers(0, 3, (5, 9))
    for one, other in zip(from_states.weighted(draws), from_maps.weighted(draws), strict=True):
        assert np.allclose(one, other, rtol=1e-6)
        assert one.any()


def test_a_damaged_file_says_what_to_do(tmp_path):
    file = tmp_path / "a"
    whole = encode_counts(image_state(*image(1)), {})
    for content in (b"", whole[: len(whole) // 2], encode_counts(None, {})):
        file.write_bytes(content)
        with pytest.raises(InputError, match="--resume"):
            read_counts(file)
    assert read_facts(file) == {"known": False}
    assert read_facts(tmp_path / "none") is None
