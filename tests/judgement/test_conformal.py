"""The promises hold: by brute force on ranks, and on real scores over a thousand random splits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from headclip.errors import InputError
from headclip.judgement.conformal import (
    Promise,
    TooFewImagesError,
    attainable_rate,
    confident_rank,
    confident_rate,
    conformal_threshold,
    expected_rank,
    images_needed,
    promise_rank,
    share_text,
    suspects_of,
    tighter_promises,
)
from judgement.stored import stored

SPLITS = 1000
rates = st.floats(0.005, 0.5)
confidences = st.floats(0.5, 0.995)
each_set = pytest.mark.parametrize("dataset", ["elpv", "sdd"])
each_column = pytest.mark.parametrize("column", ["score", "peak"])  # peaks are what the pixel threshold stands on


def splits(values: np.ndarray, size: int):
    """(calibration, rest) of 1,000 random splits."""
    rng = np.random.default_rng(0)
    for _ in range(SPLITS):
        order = rng.permutation(len(values))
        yield values[order[:size]], values[order[size:]]


@each_set
@each_column
@pytest.mark.parametrize(("size", "rate"), [(20, 0.05), (50, 0.02), (99, 0.01), (150, 0.1)])
def test_expected_rate_on_real_scores(dataset, column, size, rate):
    realised = [
        float(np.mean(rest > conformal_threshold(part, Promise(rate)).threshold))
        for part, rest in splits(stored(dataset, column), size)
    ]
    error = np.std(realised) / np.sqrt(SPLITS)
    assert np.mean(realised) <= rate + 3.5 * error


@each_set
def test_an_ordinary_quantile_would_break_the_promise(dataset):
    """The test above can fail: with few images the empirical quantile raises too many alarms."""
    rate = 0.02
    realised = [float(np.mean(rest > np.quantile(part, 1 - rate))) for part, rest in splits(stored(dataset), 50)]
    assert np.mean(realised) > rate + 3.5 * np.std(realised) / np.sqrt(SPLITS)


@each_set
@each_column
@pytest.mark.parametrize(("size", "rate", "confidence"), [(150, 0.05, 0.9), (100, 0.1, 0.95), (59, 0.05, 0.95)])
def test_rate_with_confidence_on_real_scores(dataset, column, size, rate, confidence):
    """On what is left of a split, the rate is above the promise no more often than the law of the rank allows.

    The share of m later images above the k-th of n scores follows Beta-Binomial(m, n + 1 - k, k) without ties; with
    infinitely many later images that is the promise itself.
    """
    values, promise = stored(dataset, column), Promise(rate, confidence)
    broken = [
        float(np.mean(rest > conformal_threshold(part, promise).threshold)) > rate
        for part, rest in splits(values, size)
    ]
    rest, rank = len(values) - size, promise_rank(size, promise)
    allowed = float(stats.betabinom(rest, size + 1 - rank, rank).sf(np.floor(rate * rest + 1e-9)))
    assert np.mean(broken) <= allowed + 3.5 * np.sqrt(allowed * (1 - allowed) / SPLITS)


@each_set
@each_column
@pytest.mark.parametrize(("size", "rate", "confidence"), [(150, 0.05, 0.9), (300, 0.01, 0.95), (59, 0.05, 0.95)])
def test_confidence_itself_on_real_scores(dataset, column, size, rate, confidence):
    """With the stored scores as the whole population, thresholds from independent draws keep the rate in at least
    the promised share of 1,000 draws."""
    values, rng = stored(dataset, column), np.random.default_rng(1)
    kept = [
        float(np.mean(values > conformal_threshold(rng.choice(values, size), Promise(rate, confidence)).threshold))
        <= rate
        for _ in range(SPLITS)
    ]
    assert np.mean(kept) >= confidence - 3.5 * np.sqrt(confidence * (1 - confidence) / SPLITS)


@each_set
@pytest.mark.parametrize("where", ["low", "high", "among"])
def test_contaminated_images_do_not_break_the_promise(dataset, where):
    """Wherever the contaminants score, at most the promised share of clean images raises an alarm."""
    clean, size, promise = stored(dataset), 120, Promise(0.05, contaminated=0.1)
    suspects = suspects_of(size, 0.1)
    foreign = {"low": np.zeros(suspects), "high": np.ones(suspects), "among": clean[:suspects]}[where]
    realised, strict = [], []
    for part, rest in splits(clean, size - suspects):
        mixed = np.concatenate([part, foreign])
        realised.append(float(np.mean(rest > conformal_threshold(mixed, promise).threshold)))
        strict.append(float(np.mean(rest > conformal_threshold(mixed, Promise(0.05)).threshold)))
    error = 3.5 * np.std(realised) / np.sqrt(SPLITS)
    assert np.mean(realised) <= 0.05 + error
    if where == "low":
        assert np.mean(strict) > 0.05 + error  # the correction is needed


@settings(deadline=None)
@given(st.integers(1, 400), rates, confidences)
def test_ranks_by_brute_force(images, rate, confidence):
    law, rank = stats.binom(images, 1 - rate), confident_rank(images, rate, confidence)
    assert rank == images + 1 or law.sf(rank - 1) <= 1 - confidence + 1e-9  # keeps the promise
    assert rank == 1 or law.sf(rank - 2) > 1 - confidence - 1e-9  # and the next lower rank does not
    rank = expected_rank(images, rate)
    assert 1 - rank / (images + 1) <= rate + 1e-9
    assert rank == 0 or 1 - (rank - 1) / (images + 1) > rate - 1e-9


@settings(deadline=None)
@given(rates, st.none() | confidences, st.sampled_from([0.0, 0.02, 0.1, 0.3]))
@example(0.5, 0.5000000000000001, 0.0)  # where rounding decides whether one image is enough
def test_images_needed_is_the_least_number(rate, confidence, contaminated):
    promise = Promise(rate, confidence, contaminated)
    needed = images_needed(promise)
    assert promise_rank(needed, promise) <= needed
    assert needed == 1 or promise_rank(needed - 1, promise) > needed - 1


@settings(deadline=None)
@given(st.integers(1, 3000), st.none() | confidences, st.sampled_from([0.0, 0.05]))
def test_the_attainable_rate_is_attained(images, confidence, contaminated):
    rate = attainable_rate(images, Promise(0.01, confidence, contaminated))
    if rate < 1:
        assert images_needed(Promise(min(rate * (1 + 1e-9), 0.999), confidence, contaminated)) <= images
        assert images_needed(Promise(rate * 0.99, confidence, contaminated)) > images


@settings(deadline=None)
@given(st.integers(2, 400), rates, confidences)
def test_ranks_grow_by_at_most_one(images, rate, confidence):
    """What the derivation for contaminated images stands on."""
    for rank in (lambda n: expected_rank(n, rate), lambda n: confident_rank(n, rate, confidence)):
        assert 0 <= rank(images) - rank(images - 1) <= 1


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=20, max_size=200),
    st.floats(0.06, 0.4),
    st.none() | confidences,
    st.sampled_from([0, 0.05]),
)
def test_threshold_and_band(scores, rate, confidence, contaminated):
    promise = Promise(rate, confidence, contaminated)
    if images_needed(promise) > len(scores):
        with pytest.raises(TooFewImagesError):
            conformal_threshold(scores, promise)
        return
    found = conformal_threshold(scores, promise)
    assert found.low <= found.threshold
    assert found.high is None or found.threshold <= found.high
    assert found.threshold in scores
    assert found.expected <= rate + 1e-9
    assert sum(score > found.threshold for score in scores) <= len(scores) - found.rank
    if confidence is None and not contaminated:
        assert found.low == found.threshold
    if confidence is not None:
        assert found.high == found.threshold


def test_the_band_narrows_with_more_images():
    widths = []
    for images in (400, 4000, 40000):
        found = conformal_threshold(np.arange(images) / images, Promise(0.05))
        widths.append(found.high - found.low)
    assert widths[0] > 2.5 * widths[1] > 6 * widths[2] > 0


def test_few_images_have_no_verdict_of_defect():
    found = conformal_threshold(range(120), Promise(0.01))
    assert found.high is None
    assert found.threshold == found.low == 119.0


def test_what_too_few_images_are_told():
    with pytest.raises(TooFewImagesError, match=r"30 images are too few .* 1 % .*needs 99.* 3\.23 % at best") as caught:
        conformal_threshold(range(30), Promise(0.01))
    assert (caught.value.given, caught.value.needed) == (30, 99)
    conformal_threshold(range(30), Promise(caught.value.attainable))
    with pytest.raises(TooFewImagesError, match=r"95% confidence: that needs 299"):
        conformal_threshold(range(298), Promise(0.01, 0.95))
    assert tighter_promises(Promise(0.01)) == {0.005: 199, 0.002: 499, 0.001: 999}


def test_beta_quantile():
    assert confident_rate(299, 299, 0.95) == pytest.approx(0.01, abs=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"false_alarms": 0}, {"false_alarms": 1.5}, {"confidence": 0.3}, {"contaminated": 0.5}]
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(InputError):
        Promise(**{"false_alarms": 0.1, **wrong})


@pytest.mark.parametrize("scores", [[], [0.1, float("nan")]])
def test_scores_that_are_none(scores):
    with pytest.raises(InputError):
        conformal_threshold(scores, Promise(0.4))


@settings(deadline=None)
@given(st.floats(1e-6, 1))
def test_shares_are_never_understated(share):
    assert float(share_text(share).split()[0]) / 100 >= share * (1 - 1e-6)
    assert float(share_text(share).split()[0]) / 100 <= share * 1.02 + 1e-9
