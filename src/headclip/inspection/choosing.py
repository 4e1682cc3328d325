"""Which images of many a figure shows. The rule is part of what the figure says, so there are few and plain ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from headclip.errors import InputError

Rule = Literal["first", "anomalous", "different", "even", "wrong"]
RULES: tuple[str, ...] = get_args(Rule)


def choose_images(scores: NDArray[np.float64], count: int, rule: Rule, labels: Sequence[int | None] = ()) -> list[int]:
    """Indices of at most `count` images, in the order in which to show them.

    Args:
        scores: (n, k), the score that each of k methods gave each of n images. Methods are compared by the ranks
            that they give, since their scores have different scales.
        rule: "first": in the order given. "anomalous": the highest mean rank. "different": the largest difference
            between the ranks that two methods gave. "even": from the highest mean rank to the lowest in even
            steps, which hides nothing. "wrong": in turn the anomalous image with the lowest mean rank that is left,
            and the normal one with the highest; images whose label is not known are passed over.
        labels: for "wrong", 1 (anomalous), 0 (normal) or None (not known) of each image.

    Raises:
        InputError: "different" with a single method, "wrong" without a label, or an unknown rule.

    >>> choose_images(np.array([[0.1, 0.9], [0.2, 0.2], [0.9, 0.1]]), 2, "different")
    [0, 2]
    """
    if rule not in RULES:
        raise InputError(f"unknown choice '{rule}'; choose {', '.join(RULES)}")
    if rule == "different" and scores.shape[1] < 2:
        raise InputError("the most different images need two methods or runs at least; choose anomalous, even or first")
    if rule == "first":
        return list(range(min(count, len(scores))))
    ranks = np.stack([_ranks(column) for column in scores.T], axis=1)  # (n, k)
    mean = ranks.mean(axis=1)
    if rule == "different":
        order = np.lexsort((-mean, -(ranks.max(axis=1) - ranks.min(axis=1))))
        return [int(index) for index in order[:count]]
    order = np.argsort(-mean, kind="stable")
    if rule == "wrong":
        return _most_wrong([int(index) for index in order], labels)[:count]
    if rule == "even" and count < len(order):
        order = order[np.rint(np.linspace(0, len(order) - 1, count)).astype(int)]
    return [int(index) for index in order[:count]]


def _most_wrong(order: list[int], labels: Sequence[int | None]) -> list[int]:
    """Missed and falsely suspected images in turn, the worst first; `order` begins with the most anomalous."""
    if not any(label is not None for label in labels):
        raise InputError("of no image is it known what it is; --data names a labelled dataset")
    missed = [index for index in reversed(order) if labels[index] == 1]
    suspected = [index for index in order if labels[index] == 0]
    return [index for pair in zip_longest(missed, suspected) for index in pair if index is not None]


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0 (lowest) to 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle = ends - (counts + 1) / 2.0
    return np.asarray(middle[inverse] / max(1, len(values) - 1), np.float64)
