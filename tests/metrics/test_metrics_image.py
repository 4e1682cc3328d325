"""Image metrics against brute force and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from headclip.errors import InputError
from headclip.metrics import image_metrics
from metrics import metrics_oracles as oracle

scored = st.lists(
    st.tuples(st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(-1e9, 1e9)), st.booleans()), max_size=12
)


@given(scored)
def test_equals_brute_force(rows: list[tuple[float, bool]]) -> None:
    scores, labels = [row[0] for row in rows], [row[1] for row in rows]
    figures = image_metrics(scores, labels)
    expected_f1 = oracle.f1_and_iou_max(scores, labels)
    has_positive = any(labels)
    assert oracle.same(figures.get("image_auroc"), oracle.auroc(scores, labels))
    assert oracle.same(figures.get("image_ap"), oracle.average_precision(scores, labels))
    assert oracle.same(figures.get("image_f1"), expected_f1[0] if expected_f1 else None)
    assert ("image_mad" in figures) == (has_positive and not all(labels))
    assert set(figures) | set(figures.absent) == {"image_auroc", "image_ap", "image_f1", "image_mad"}
    assert all(0.0 <= value <= 1.0 for value in figures.values())


@given(st.integers(0, 2**32), st.integers(2, 200), st.sampled_from([2, 5, 1000]))
def test_equals_scikit_learn(seed: int, count: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.arange(count) < random.integers(1, count)
    scores = np.floor(random.random(count) * levels) + labels
    figures = image_metrics(scores, labels)
    precision, recall, _ = precision_recall_curve(labels, scores)
    total = precision + recall
    f1 = (2 * precision * recall)[total > 0] / total[total > 0]
    assert figures["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert figures["image_ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert figures["image_f1"] == pytest.approx(f1.max(), abs=1e-12)
    parts = [figures[name] for name in ("image_auroc", "image_ap", "image_f1")]
    assert figures["image_mad"] == pytest.approx(sum(parts) / 3)


@given(scored)
def test_the_protocols_agree_per_image(rows: list[tuple[float, bool]]) -> None:
    scores, labels = [row[0] for row in rows], [row[1] for row in rows]
    assert image_metrics(scores, labels, "ader") == image_metrics(scores, labels, "exact")


def test_undefined_is_absent_with_a_reason() -> None:
    only_normal = image_metrics([0.1, 0.2], [0, 0])
    assert only_normal == {}
    assert only_normal.absent["image_ap"] == "no anomalous image"
    only_anomalous = image_metrics([0.1, 0.2], [1, 1])
    assert only_anomalous == {"image_ap": 1.0, "image_f1": 1.0}
    assert only_anomalous.absent == {"image_auroc": "no normal image", "image_mad": "image_auroc absent"}


@pytest.mark.parametrize(
    ("scores", "labels", "what"),
    [
        ([0.1, float("nan")], [0, 1], "score number 1"),
        ([0.1, float("inf")], [0, 1], "score number 1"),
        ([0.1], [0, 1], "one length"),
        ([0.1, 0.2], [0, 255], "labels"),
    ],
)
def test_bad_input_is_refused(scores: list[float], labels: list[int], what: str) -> None:
    with pytest.raises(InputError, match=what):
        image_metrics(scores, labels)


def test_unknown_protocol_is_refused() -> None:
    with pytest.raises(InputError, match="exact, ader"):
        image_metrics([0.1, 0.2], [0, 1], "approximate")
