"""Bootstrap over images: the same as computing each draw anew, intervals that cover, paired comparison."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headclip.errors import InputError
from headclip.evaluation import bootstrap
from headclip.evaluation.bootstrap import Replicates, compare, image_replicates, macro_replicates, pixel_replicates
from headclip.metrics import PIXEL_METRICS, PixelMetrics, image_metrics, macro_average, pixel_metrics
from headclip.metrics.per_image import ImageCounts, join, lay_bins
from metrics.metrics_oracles import KINDS, _scores


def draws_of(images: int, replicates: int, seed: int, stream: str, chunk: int = 1000, needed=()) -> np.ndarray:
    kinds = needed or [np.ones(images, dtype=bool)]
    return np.concatenate(list(bootstrap._draws(kinds, chunk, replicates, (seed, stream))))


def counts_of(maps, masks, bins: int = 2048) -> ImageCounts:
    first = PixelMetrics()
    for pair in zip(maps, masks, strict=True):
        first.update(*pair)
    counts = ImageCounts(lay_bins(first.state, bins))
    for pair in zip(maps, masks, strict=True):
        counts.update(*pair)
    return counts


def made_case(seed: int, kind: str = "uniform", images: int = 6, side: int = 12):
    random = np.random.default_rng(seed)
    masks = np.zeros((images, side, side), np.uint8)
    for mask in masks[1:]:
        y, x = random.integers(0, side - 3, 2)
        mask[y : y + 3, x : x + 4] = 1
    maps = _scores(kind, random, masks.shape)
    return np.where(masks > 0, np.maximum(maps, np.roll(maps, 1)), maps), masks


def test_draws_are_resamples_and_independent_of_the_chunk_size() -> None:
    whole = draws_of(7, 50, 3, "bottle")
    assert (whole.sum(axis=1) == 7).all()
    assert np.array_equal(draws_of(7, 50, 3, "bottle", chunk=3), whole)
    assert not np.array_equal(draws_of(7, 50, 4, "bottle"), whole)
    assert not np.array_equal(draws_of(7, 50, 3, "cable"), whole)


def test_draws_have_an_image_of_every_kind_that_is_needed() -> None:
    kinds = [np.arange(7) == 2, np.arange(7) > 3, np.zeros(7, dtype=bool)]  # of the last there is none
    found = draws_of(7, 50, 3, "bottle", needed=kinds)
    assert np.array_equal(draws_of(7, 50, 3, "bottle", chunk=3, needed=kinds), found)
    assert len(found) == 50
    assert (found.sum(axis=1) == 7).all()
    assert found[:, 2].all()
    assert found[:, 4:].any(axis=1).all()
    loose = draws_of(7, 200, 3, "bottle")
    fitting = loose[(loose[:, 2] > 0) & loose[:, 4:].any(axis=1)]
    assert np.array_equal(fitting[:50], found[: len(fitting)])  # the others are left out, and no draw is changed


def test_memory_of_image_replicates_does_not_grow_with_the_images() -> None:
    peaks = []
    for images in (2000, 40_000):
        random = np.random.default_rng(0)
        scores, labels = random.random(images), random.integers(0, 2, images)
        tracemalloc.start()
        image_replicates(scores, labels, replicates=100)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 200 * 38_000  # some columns of all images, whatever the number of draws


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 15), st.sampled_from([2, 100]))
def test_image_replicates_are_the_metrics_of_each_draw(seed: int, images: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    scores, labels = np.floor(random.random(images) * levels), random.integers(0, 2, images)
    result = image_replicates(scores, labels, replicates=12, seed=5, stream="x")
    assert result.estimate == pytest.approx(dict(image_metrics(scores, labels)))
    kinds = [labels == 1, labels == 0]
    for row, draw in enumerate(draws_of(images, 12, 5, "x", needed=kinds)):
        expected = image_metrics(np.repeat(scores, draw), np.repeat(labels, draw))
        for name, values in result.values.items():
            assert values[row] == pytest.approx(expected.get(name, np.nan), nan_ok=True)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(KINDS))
def test_pixel_replicates_are_the_metrics_of_each_draw(seed: int, kind: str) -> None:
    maps, masks = made_case(seed, kind)
    counts = counts_of(maps, masks, bins=100_000)  # so many that each score has its own
    assert all(low == pytest.approx(high, abs=1e-12) for low, high in counts.bounds().values())
    result = pixel_replicates(counts, replicates=8, seed=1)
    assert result.estimate == pytest.approx(dict(pixel_metrics(maps, masks)), abs=1e-6)
    for row, draw in enumerate(draws_of(len(maps), 8, 1, "", needed=[masks.any(axis=(1, 2))])):
        expected = pixel_metrics(np.repeat(maps, draw, axis=0), np.repeat(masks, draw, axis=0))
        for name, values in result.values.items():
            assert values[row] == pytest.approx(expected.get(name, np.nan), abs=1e-6, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["uniform", "powers", "saturated", "heavy", "ties"]))
def test_coarse_counts_stay_within_their_stated_bounds(seed: int, kind: str) -> None:
    maps, masks = made_case(seed, kind, side=40)
    counts = counts_of(maps, masks, bins=64)
    exact, estimate = pixel_metrics(maps, masks), pixel_replicates(counts, replicates=1).estimate
    assert len(counts.bins.edges) < 64 + 250
    for name, (low, high) in counts.bounds().items():
        assert low - 1e-6 <= exact[name] <= high + 1e-6
        assert low - 1e-6 <= estimate[name] <= high + 1e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(KINDS))
def test_grid_figures_lose_nothing_in_coarse_counts(seed: int, kind: str) -> None:
    maps, masks = made_case(seed, kind, side=30)
    estimate = pixel_replicates(counts_of(maps, masks, bins=64), "ader", replicates=1).estimate
    exact = pixel_metrics(maps, masks, "ader")
    for name in ("pixel_f1", "pixel_iou", "pixel_aupro"):
        assert estimate.get(name) == (pytest.approx(exact[name], abs=1e-6) if name in exact else None)


def test_counts_of_several_processes_join() -> None:
    maps, masks = made_case(0)
    whole = counts_of(maps, masks)
    parts = [ImageCounts(whole.bins), ImageCounts(whole.bins)]
    for index, pair in enumerate(zip(maps, masks, strict=True)):
        parts[index // 3].update(*pair)
    joined = join(parts)
    assert joined.has_defect == whole.has_defect == (False, True, True, True, True, True)
    first, second = (pixel_replicates(counts, replicates=20) for counts in (joined, whole))
    assert all(np.array_equal(first.values[name], second.values[name], equal_nan=True) for name in first.values)
    with pytest.raises(InputError, match="same bins"):
        joined.extend(counts_of(maps[:2], masks[:2]))


def test_the_same_seed_gives_the_same_interval() -> None:
    scores, labels = np.random.default_rng(0).random(40), np.arange(40) % 2
    first, second, other = (image_replicates(scores, labels, seed=seed) for seed in (1, 1, 2))
    assert first.intervals() == second.intervals()
    assert first.intervals() != other.intervals()


def test_intervals_narrow_with_more_images_and_cover_the_truth() -> None:
    random = np.random.default_rng(0)
    truth, covered, widths = 0.7602, 0, []  # AUROC of two unit normals at distance 1: Phi(1 / sqrt 2)
    for _ in range(40):
        labels = np.arange(120) % 2
        interval = image_replicates(random.normal(size=120) + labels, labels, replicates=300).interval("image_auroc")
        assert interval is not None
        covered += interval.low <= truth <= interval.high
        widths.append(interval.high - interval.low)
    assert covered >= 33  # 38 expected of 40 at 95 %
    labels = np.arange(1920) % 2
    large = image_replicates(random.normal(size=1920) + labels, labels, replicates=300).interval("image_auroc")
    assert large is not None
    assert (large.high - large.low) == pytest.approx(np.mean(widths) / 4, rel=0.3)


def test_an_undefined_metric_has_no_interval() -> None:
    result = image_replicates([0.1, 0.2, 0.3], [1, 1, 1], replicates=20)
    assert result.interval("image_auroc") is None
    assert set(result.intervals()) == {"image_ap", "image_f1"}
    rare = image_replicates([0.1, 0.2, 0.9], [0, 0, 1], replicates=200).interval("image_auroc")
    assert rare is not None
    assert rare.replicates == 200  # draws without the only anomalous image are made again
    assert image_replicates([0.7], [1], replicates=20).intervals() == {}  # one image: all draws are the same


def test_the_interval_of_a_mean_over_many_small_categories_holds_the_mean() -> None:
    random = np.random.default_rng(0)
    rows = [image_replicates(random.random(3), [0, 0, 1], replicates=300, stream=str(name)) for name in range(12)]
    mean = macro_replicates(rows)
    assert {interval.replicates for interval in mean.intervals().values()} == {300}
    interval = mean.interval("image_auroc")
    assert interval is not None
    assert interval.low <= interval.value <= interval.high


def test_pixel_figures_without_defects_have_no_interval() -> None:
    maps, masks = made_case(0)
    for protocol in ("exact", "ader"):
        assert pixel_replicates(counts_of(maps, masks * 0), protocol, replicates=5).intervals() == {}


def test_the_mean_over_categories_has_an_interval() -> None:
    rows, figures = [], []
    for name, seed in (("bottle", 1), ("cable", 2), ("grid", 3)):
        maps, masks = made_case(seed)
        rows.append(pixel_replicates(counts_of(maps, masks, bins=100_000), replicates=100, stream=name))
        figures.append(pixel_metrics(maps, masks))
    mean, expected = macro_replicates(rows), macro_average(figures)
    assert dict(mean.estimate) == pytest.approx(dict(expected), abs=1e-6)
    interval, single = mean.interval("pixel_mad"), rows[0].interval("pixel_mad")
    assert interval is not None
    assert single is not None
    assert interval.low <= interval.value <= interval.high
    assert interval.high - interval.low < single.high - single.low
    assert mean.values["pixel_mad"] == pytest.approx(
        np.mean([mean.values[name] for name in PIXEL_METRICS], axis=0), nan_ok=True
    )
    with pytest.raises(InputError, match="stream"):
        macro_replicates([rows[0], rows[0]])


def test_a_mean_over_datasets_is_the_mean_of_their_means():
    streams = ("one/bottle", "one/cable", "two/skin")
    rows = [image_replicates(*made_scores(seed), replicates=80, stream=stream) for seed, stream in enumerate(streams)]
    means = [macro_replicates(rows[:2]), macro_replicates(rows[2:])]
    overall = macro_replicates(means)
    for name in ("image_auroc", "image_mad"):
        expected = (0.5 * (rows[0].values[name] + rows[1].values[name]) + rows[2].values[name]) / 2
        assert overall.values[name] == pytest.approx(expected, nan_ok=True)
    interval, single = overall.interval("image_ap"), rows[2].interval("image_ap")
    assert interval is not None
    assert single is not None
    assert interval.high - interval.low < single.high - single.low
    with pytest.raises(InputError, match="stream"):
        macro_replicates([means[0], means[0]])


def made_scores(seed: int, count: int = 30):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return random.normal(size=count) + labels, labels


def test_paired_comparison_sees_what_unpaired_intervals_hide() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(80) % 2
    difficulty = random.normal(size=80)
    weak = image_replicates(difficulty + 0.8 * labels, labels)
    strong = image_replicates(difficulty + 1.1 * labels, labels)
    result = compare(weak, strong, "image_auroc")
    assert result is not None
    first, second = weak.interval("image_auroc"), strong.interval("image_auroc")
    assert first is not None
    assert second is not None
    assert first.high > second.low  # the two intervals overlap
    assert result.low > 0.0
    assert result.p_value < 0.05
    assert result.difference == pytest.approx(second.value - first.value)
    back = compare(strong, weak, "image_auroc")
    assert back is not None
    assert (back.difference, back.p_value) == (-result.difference, result.p_value)


def test_a_method_does_not_differ_from_itself() -> None:
    scores, labels = np.random.default_rng(0).random(30), np.arange(30) % 2
    result = image_replicates(scores, labels)
    itself = compare(result, result, "image_ap")
    assert itself is not None
    assert (itself.difference, itself.low, itself.high, itself.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_the_p_value_counts_both_tails() -> None:
    draws = np.array([-0.1, 0.0, *np.linspace(0.1, 0.2, 96), np.nan])
    base = Replicates({"image_ap": 0.5}, {"image_ap": np.zeros(99)}, (99,), 20)
    better = Replicates({"image_ap": 0.65}, {"image_ap": draws}, (99,), 20)
    result = compare(base, better, "image_ap", confidence=0.9)
    assert result is not None
    assert result.replicates == 98
    assert result.p_value == pytest.approx(2 * (2 + 1) / (98 + 1))
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(draws[:98], [0.05, 0.95])))
    assert compare(base, better, "image_auroc") is None


def test_two_random_methods_rarely_differ() -> None:
    random = np.random.default_rng(1)
    labels, found = np.arange(60) % 2, 0
    for _ in range(40):
        pair = [image_replicates(random.random(60), labels, replicates=200) for _ in range(2)]
        result = compare(*pair, "image_auroc")
        assert result is not None
        found += result.p_value < 0.05
    assert found <= 6  # 2 expected


def test_only_the_same_images_compare() -> None:
    scores, labels = np.random.default_rng(0).random(30), np.arange(30) % 2
    result = image_replicates(scores, labels)
    for other in (
        image_replicates(scores, 1 - labels),
        image_replicates(scores[:-1], labels[:-1]),
        image_replicates(scores, labels, seed=1),
        image_replicates(scores, labels, replicates=10),
    ):
        with pytest.raises(InputError, match="same images"):
            compare(result, other, "image_auroc")


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        image_replicates([0.1, 0.9], [0, 1], replicates=5).intervals(confidence)


def test_nothing_to_draw_from_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one image"):
        image_replicates([], [])
    with pytest.raises(InputError, match="first pass"):
        lay_bins(PixelMetrics().state)
