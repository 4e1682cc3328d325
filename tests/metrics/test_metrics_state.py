"""Ordered keys, and states that merge to the same bits in any order."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headclip.errors import InputError
from headclip.metrics import PixelMetrics, PixelState, compute, empty_state, merge, update
from headclip.metrics.keys import KEY_ONE, LEVEL_KEYS, float_keys, key_values, single_valued
from metrics.metrics_oracles import KINDS, _scores

finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
around_one = st.integers(0, 400).map(lambda steps: float(np.float32(1.0) - np.float32(steps) * np.float32(2.0**-24)))


@given(st.lists(st.one_of(finite, around_one, st.sampled_from([0.0, -0.0, 0.5, 1.0])), min_size=1, max_size=30))
def test_keys_order_like_scores_and_lead_back_to_them(values: list[float]) -> None:
    scores = np.array(values, dtype=np.float32)
    keys, low, high = float_keys(scores)
    assert (low, high) == (scores.min(), scores.max())
    wide = keys.astype(np.int64)
    assert ((wide[:, None] < wide[None, :]) == (scores[:, None] < scores[None, :])).all()
    assert (key_values(wide).astype(np.float32) == scores).all()


def test_subnormal_scores_count_as_zero() -> None:
    keys, _, _ = float_keys(np.array([0.0, 1e-40, 2.0**-126], dtype=np.float32))
    assert keys[0] == keys[1] < keys[2]


def test_levels_have_the_keys_of_their_values() -> None:
    levels = np.arange(65536, dtype=np.float32) / np.float32(65535)
    assert (float_keys(levels)[0] == LEVEL_KEYS).all()
    assert (np.diff(LEVEL_KEYS) > 0).all()


@given(st.lists(st.one_of(around_one, st.floats(0, 1, width=32)), min_size=1, max_size=30), st.integers(0, 23))
def test_bins_said_to_hold_one_score_do(values: list[float], level: int) -> None:
    scores = np.unique(np.array(values, dtype=np.float32))
    scores = scores[(scores == 0) | (scores > 2.0**-126)]
    if len(scores) == 0:
        return
    keys, _, high = float_keys(scores)
    bins, counts = np.unique(keys.astype(np.int64) >> level, return_counts=True)
    single = single_valued(bins, level, high)
    assert (counts[single] == 1).all()
    assert single[bins == 0].all()
    assert single[bins == KEY_ONE >> level].all()


@pytest.mark.parametrize("level", [1, 4, 9, 12, 20])
def test_bins_below_one_are_told_apart_rightly(level: int) -> None:
    scores = 1.0 - np.arange(20_000) * np.float32(2.0**-24)  # every float32 there is, downwards from 1
    keys, _, high = float_keys(np.sort(scores.astype(np.float32)))
    bins, counts = np.unique(keys.astype(np.int64) >> level, return_counts=True)
    single = single_valued(bins, level, high)
    assert np.array_equal(single[1:], counts[1:] == 1)  # the lowest bin is cut off by the range of the test


def same_state(a: PixelState, b: PixelState) -> bool:
    return all(np.array_equal(column, b.to_arrays()[name]) for name, column in a.to_arrays().items())


@st.composite
def streams(draw):
    """Maps and masks of several sizes, some of 16 bits, and a capacity that some of them exceed."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pairs = []
    for _ in range(draw(st.integers(2, 6))):
        shape = tuple(random.integers(1, 48, 2))
        scores = _scores(draw(st.sampled_from(KINDS)), random, shape)
        if draw(st.booleans()):
            scores = np.rint(np.clip(scores, 0, 1) * 65535.0).astype(np.uint16)
        mask = random.random(shape) < draw(st.sampled_from([0.0, 0.01, 0.4, 1.0]))
        pairs.append((scores, mask))
    return pairs, draw(st.sampled_from([1024, 4096, 131072])), random


@settings(max_examples=60, deadline=None)
@given(streams())
def test_merge_is_associative_and_commutative_to_the_bit(case) -> None:
    pairs, capacity, random = case
    in_turn = empty_state(capacity)
    for scores, mask in pairs:
        in_turn = update(in_turn, scores, mask)
    parts = [update(empty_state(capacity), *pairs[index]) for index in random.permutation(len(pairs))]
    from_left, from_right = parts[0], parts[-1]
    for part in parts[1:]:
        from_left = merge(from_left, part)
    for part in parts[-2::-1]:
        from_right = merge(part, from_right)
    assert same_state(in_turn, from_left)
    assert same_state(in_turn, from_right)
    assert same_state(in_turn, merge(*parts))
    assert same_state(in_turn, merge(empty_state(capacity), in_turn))
    assert len(in_turn.bins) <= capacity
    assert in_turn.positives.sum() + in_turn.negatives.sum() == sum(mask.size for _, mask in pairs)


@settings(max_examples=30, deadline=None)
@given(streams())
def test_the_wrapper_agrees_with_the_functions(case) -> None:
    pairs, capacity, _ = case
    state, left, right = empty_state(capacity), PixelMetrics(capacity=capacity), PixelMetrics(capacity=capacity)
    for index, (scores, mask) in enumerate(pairs):
        state = update(state, scores, mask)
        (left if index % 2 else right).update(scores, mask)
    left.merge(right)
    assert same_state(left.state, state)
    assert left.compute() == compute(state)


def test_update_leaves_its_state_alone() -> None:
    first = update(empty_state(), np.array([[0.2, 0.7]], np.float32), np.array([[0, 1]]))
    before = {name: column.copy() for name, column in first.to_arrays().items()}
    update(first, np.array([[0.1, 0.7]], np.float32), None)
    assert all(np.array_equal(column, before[name]) for name, column in first.to_arrays().items())


def test_a_state_travels_through_a_file() -> None:
    state = update(empty_state(1024), np.random.default_rng(0).random((50, 60)), np.eye(50, 60))
    file = io.BytesIO()
    np.savez(file, **state.to_arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        loaded = PixelState.from_arrays(arrays)
    assert same_state(loaded, state)
    assert compute(loaded) == compute(state)


def test_states_of_different_capacity_do_not_merge() -> None:
    with pytest.raises(InputError, match="capacity"):
        merge(empty_state(1024), empty_state(2048))
    with pytest.raises(InputError, match="1024"):
        empty_state(10)
