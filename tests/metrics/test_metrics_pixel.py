"""Pixel metrics against brute force and scikit-learn, on ties, flat maps, tiny regions and skewed scores."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from headclip.errors import InputError
from headclip.evaluation.published.checks import ap_bound
from headclip.metrics import (
    PIXEL_METRICS,
    PixelMetrics,
    PixelState,
    bounds,
    compute,
    curves,
    empty_state,
    pixel_metrics,
    update,
)
from headclip.metrics.keys import float_keys, key_values
from metrics import metrics_oracles as oracle
from metrics.metrics_oracles import cases


def stream(maps, masks, **options) -> PixelMetrics:
    metrics = PixelMetrics(**options)
    for anomaly_map, mask in zip(maps, masks, strict=True):
        metrics.update(anomaly_map, mask)
    return metrics


@settings(max_examples=150, deadline=None)
@given(cases())
def test_exact_equals_brute_force(case) -> None:
    maps, masks = case
    figures = stream(maps, masks).compute()
    scores, labels = np.stack(maps).ravel(), np.stack(masks).ravel()
    f1_iou = oracle.f1_and_iou_max(scores, labels)
    assert oracle.same(figures.get("pixel_auroc"), oracle.auroc(scores, labels))
    assert oracle.same(figures.get("pixel_ap"), oracle.average_precision(scores, labels))
    assert oracle.same(figures.get("pixel_f1"), f1_iou[0] if f1_iou else None)
    assert oracle.same(figures.get("pixel_iou"), f1_iou[1] if f1_iou else None)
    assert oracle.same(figures.get("pixel_aupro"), oracle.aupro(maps, masks))
    assert set(figures) | set(figures.absent) == {*PIXEL_METRICS, "pixel_mad"}


@settings(max_examples=100, deadline=None)
@given(cases())
def test_ader_equals_the_slow_way(case) -> None:
    maps, masks = case
    figures = stream(maps, masks, protocol="ader").compute()
    f1_iou = oracle.ader_f1_and_iou(maps, masks)
    assert oracle.same(figures.get("pixel_f1"), f1_iou[0] if f1_iou else None)
    assert oracle.same(figures.get("pixel_iou"), f1_iou[1] if f1_iou else None)
    assert oracle.same(figures.get("pixel_aupro"), oracle.ader_aupro(maps, masks))


@pytest.mark.parametrize("seed", range(4))
def test_ader_thresholds_are_strict_where_scores_lie_on_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    maps = np.floor(random.random((3, 14, 14)) * 201).astype(np.float32)  # 200 steps of exactly 1
    maps[0, 0, :2] = 0, 200
    masks = random.random(maps.shape) < 0.1
    value = pixel_metrics(maps, masks, "ader")["pixel_aupro"]
    assert oracle.same(value, oracle.ader_aupro(list(maps), list(masks)))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_ap_never_exceeds_what_f1_max_allows(case) -> None:
    figures = pixel_metrics(*case)
    if figures:
        assert figures["pixel_ap"] <= ap_bound(figures["pixel_f1"]) + 1e-12


@pytest.mark.parametrize("protocol", ["exact", "ader"])
@pytest.mark.parametrize("above", [7, 11, 22, 86, 100])
def test_aupro_of_maps_that_miss_nothing_is_not_above_one(protocol: str, above: int) -> None:
    """Sums of many thin slices round to just above it."""
    random = np.random.default_rng(above)
    for _ in range(20):
        mask = np.zeros((above, 9), np.uint8)
        mask[above // 2, 3] = mask[above // 3, 6] = 1
        anomaly_map = np.where(mask, 7157.5, np.exp(random.uniform(0, 9, mask.shape))).astype(np.float32)
        assert stream([anomaly_map], [mask], protocol=protocol).compute()["pixel_aupro"] <= 1.0


@settings(max_examples=60, deadline=None)
@given(cases(most_pixels=12), st.sampled_from(["exact", "ader"]))
def test_every_figure_lies_between_0_and_1(case, protocol: str) -> None:
    figures = stream(*case, protocol=protocol).compute()
    assert all(0.0 <= value <= 1.0 for value in figures.values())
    if "pixel_mad" in figures:
        assert figures["pixel_mad"] == pytest.approx(np.mean([figures[name] for name in PIXEL_METRICS]))
    if protocol == "exact" and "pixel_f1" in figures:
        f1 = figures["pixel_f1"]
        assert figures["pixel_iou"] == pytest.approx(f1 / (2 - f1))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(oracle.KINDS))
def test_exact_equals_scikit_learn(seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    maps = oracle._scores(kind, random, (3, 20, 30))
    masks = random.random(maps.shape) < 0.1
    masks[0, 0, 0] = True
    figures = pixel_metrics(maps, masks)
    scores, labels = maps.ravel(), masks.ravel()
    precision, recall, _ = precision_recall_curve(labels, scores)
    total = precision + recall
    assert figures["pixel_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert figures["pixel_ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    best = (2 * precision * recall)[total > 0] / total[total > 0]
    assert figures["pixel_f1"] == pytest.approx(best.max(), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_a_rank_preserving_change_of_scores_changes_nothing(case) -> None:
    maps, masks = case
    _, ranks = np.unique(np.stack(maps), return_inverse=True)
    ranked = list(ranks.reshape(np.shape(maps)).astype(np.float32))
    assert pixel_metrics(ranked, masks) == pixel_metrics(maps, masks)


@settings(max_examples=40, deadline=None)
@given(cases(kinds=("uniform", "ties", "constant", "binary", "saturated")))
def test_16_bit_maps_are_taken_as_levels_and_exactly(case) -> None:
    maps, masks = case
    levels = [np.rint(scores * 65535.0).astype(np.uint16) for scores in maps]
    floats = [scores.astype(np.float32) / np.float32(65535) for scores in levels]
    for protocol in ("exact", "ader"):
        assert stream(levels, masks).compute(protocol) == stream(floats, masks).compute(protocol)
    assert oracle.same(stream(levels, masks).compute().get("pixel_aupro"), oracle.aupro(floats, masks))


def test_all_16_bit_levels_stay_apart() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    random = np.random.default_rng(0)
    masks = [random.random(levels.shape) < 0.2 for _ in range(2)]
    metrics = stream([levels, levels[::-1]], masks)
    assert metrics.state.level == 0
    assert len(metrics.state.bins) == 65536
    for low, high in metrics.bounds().values():
        assert low == high


def test_undefined_is_absent_with_a_reason() -> None:
    flat, varied = np.full((4, 4), 0.5, np.float32), np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    corner = np.zeros((4, 4), np.uint8)
    corner[0, 0] = 1
    nothing = pixel_metrics([varied], [None])
    assert nothing == {}
    assert nothing.absent["pixel_aupro"] == "no defect pixel"
    everything = pixel_metrics([varied], [np.ones((4, 4), np.uint8)])
    assert everything == {"pixel_ap": 1.0, "pixel_f1": 1.0, "pixel_iou": 1.0}
    grid = pixel_metrics([flat], [corner], "ader")
    assert set(grid) == {"pixel_auroc", "pixel_ap"}
    assert "equal" in grid.absent["pixel_f1"]
    assert PixelMetrics().compute() == {}
    assert PixelMetrics().compute().absent["pixel_ap"] == "no map"
    assert PixelMetrics().bounds() == {}


def test_tiny_regions_weigh_as_much_as_large_ones() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[0, 0] = 1
    mask[5:15, 5:15] = 1
    found = np.where(mask > 0, 1.0, 0.0).astype(np.float32)
    found[0, 0] = 0.0  # the single pixel is missed: half of the regions is found, but 99 % of the pixels
    value = pixel_metrics([found], [mask])["pixel_aupro"]
    assert value == pytest.approx(0.5 + 0.5 * 0.3 / 2)


@pytest.mark.parametrize(
    ("anomaly_map", "mask", "what"),
    [
        (np.full((2, 2), np.nan, np.float32), None, "NaN"),
        (np.array([[0.0, np.inf]], np.float32), None, "infinite"),
        (np.zeros((2, 2), np.float32), np.zeros((2, 3)), r"\(2, 3\).*\(2, 2\)"),
        (np.zeros((2, 2, 1), np.float32), None, "H, W"),
        (np.zeros((0, 2), np.float32), None, "H, W"),
        (np.zeros((2, 2), np.uint8), None, "uint8"),
    ],
)
def test_bad_maps_are_refused_and_leave_the_state_alone(anomaly_map, mask, what: str) -> None:
    metrics = PixelMetrics()
    with pytest.raises(InputError, match=what):
        metrics.update(anomaly_map, mask)
    assert metrics.state.images == 0


def _large_case(seed: int, kind: str, order: str) -> tuple[np.ndarray, np.ndarray]:
    """(maps, masks) with more distinct scores than a small state holds; `order` decides who wins inside a bin."""
    random = np.random.default_rng(seed)
    masks = np.zeros((3, 64, 64), np.uint8)
    for mask in masks[1:]:
        y, x = random.integers(0, 50, 2)
        mask[y : y + 9, x : x + 9] = 1
    maps = oracle._scores(kind, random, masks.shape)
    if order != "random":
        # Scores of defects and of others differ only far below the width of a bin, all in one direction.
        coarse = np.round(maps.astype(np.float64) * 600) / 600
        sign = 1.0 if order == "defects above" else -1.0
        maps = (coarse * (1 + 1e-5 * (random.random(maps.shape) + 2 * sign * masks))).astype(np.float32)
    return maps, masks


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["uniform", "powers", "near_one", "saturated", "signed", "heavy", "crowded"]),
    st.sampled_from(["random", "defects above", "defects below"]),
)
@example(405, "uniform", "defects below")  # one bin holds everything: rounding was larger than the tolerance
def test_coarse_states_stay_within_their_stated_bounds(seed: int, kind: str, order: str) -> None:
    maps, masks = _large_case(seed, kind, order)
    exact = pixel_metrics(maps, masks)
    coarse = stream(maps, masks, capacity=1024)
    assert len(coarse.state.bins) <= 1024
    figures, limits = coarse.compute(), coarse.bounds()
    assert set(limits) == set(exact) == set(figures)
    for name, (low, high) in limits.items():
        assert low - 1e-12 <= exact[name] <= high + 1e-12
        assert low - 1e-12 <= figures[name] <= high + 1e-12


@pytest.mark.parametrize(("first", "count"), [(1, 7), (63, 2), (64, 900), (10**4, 3), (4 * 10**8, 50)])
def test_sums_of_reciprocals_lose_nothing_to_rounding(first: int, count: int) -> None:
    exact = float(sum(Fraction(1, first + step) for step in range(count)))
    found = curves._harmonic(np.array([float(first)]), np.array([float(count)]))[0]
    assert found == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize("order", ["defects above", "defects below"])
def test_the_bounds_are_needed(order: str) -> None:
    maps, masks = _large_case(1, "uniform", order)
    coarse = stream(maps, masks, capacity=1024)
    low, high = coarse.bounds()["pixel_auroc"]
    exact = pixel_metrics(maps, masks)["pixel_auroc"]
    reached = high - exact if order == "defects above" else exact - low
    assert coarse.state.level > 0
    assert reached < 0.1 * (high - low)


@pytest.mark.parametrize("kind", ["tiny", "near_one", "crowded", "powers", "saturated"])
def test_skewed_scores_keep_their_resolution(kind: str) -> None:
    maps, masks = _large_case(3, kind, "random")
    metrics = stream(maps, masks, capacity=4096)
    for low, high in metrics.bounds().values():
        assert high - low < 5e-3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["uniform", "signed", "saturated"]))
def test_coarse_ader_is_the_figure_of_slightly_lowered_maps(seed: int, kind: str) -> None:
    maps, masks = _large_case(seed, kind, "random")
    coarse = stream(maps, masks, capacity=1024)
    level = coarse.state.level
    keys, low, high = float_keys(maps)
    lowered = key_values((keys.astype(np.int64) >> level) << level).astype(np.float32)
    lowered = np.maximum(lowered, np.float32(low))
    width = np.maximum(np.where(maps < 0.5, np.abs(maps), 1 - maps), np.abs(lowered)) * 2.0 ** (level - 23)
    assert level > 0
    assert (lowered <= maps).all()
    assert (maps.astype(np.float64) - lowered <= width).all()
    fine = replace(stream(lowered, masks, capacity=2**20).state, maximum=high)  # the largest score is known exactly
    assert coarse.compute("ader") == compute(fine, "ader")


def test_a_state_never_exceeds_its_capacity() -> None:
    state: PixelState = empty_state(2048)
    random = np.random.default_rng(0)
    for step in range(5):
        state = update(state, random.normal(size=(80, 80)) * 10.0**step, None)
        assert len(state.bins) <= 2048
    assert state.negatives.sum() == 5 * 6400
    assert bounds(state) == {}
