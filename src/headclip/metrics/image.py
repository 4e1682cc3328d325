"""Image-level metrics from one score and one label per image: exact, by sorting."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headclip.errors import InputError
from headclip.metrics import curves
from headclip.metrics.figures import IMAGE_METRICS, Figures, check_protocol


def image_metrics(scores: ArrayLike, labels: ArrayLike, protocol: str = "exact") -> Figures:
    """AUROC, step-wise AP, F1-max and their mean (mAD) over images.

    The two protocols agree at image level: ADer also takes every distinct score as a threshold here.

    Args:
        scores: (n,) finite; higher is more anomalous.
        labels: (n,) 0 normal, 1 anomalous.
        protocol: "exact" or "ader".

    Returns:
        `image_auroc`, `image_ap`, `image_f1`, `image_mad` in [0, 1]. What is not defined has no key:
        AUROC without normals; everything without anomalous images.

    Raises:
        InputError: unequal lengths, a score that is not finite, a label other than 0 and 1, unknown protocol.

    Example:
        >>> image_metrics([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])["image_auroc"]
        0.75
    """
    check_protocol(protocol)
    values, is_positive = check_scores(scores, labels)
    figures = Figures()
    if len(values) == 0 or not is_positive.any():
        reason = "no anomalous image" if len(values) else "no image"
        figures.absent = dict.fromkeys(("image_auroc", "image_ap", "image_f1"), reason)
        return figures.add_mad()
    positives, negatives = score_counts(values, is_positive)
    figures.put("image_auroc", float(curves.auroc(positives, negatives)), "no normal image")
    figures.put("image_ap", float(curves.average_precision(positives, negatives)), "no anomalous image")
    figures.put("image_f1", float(curves.f1_max(positives, negatives)), "no anomalous image")
    return figures.add_mad()


def category_image_metrics(scores: ArrayLike, labels: ArrayLike, protocol: str = "exact") -> Figures:
    """`image_metrics` for a row of a table: without normal images none is defined.

    AP and F1-max would be 1 there whatever the scores, and raise every mean that they enter.
    """
    figures = image_metrics(scores, labels, protocol)
    if "image_auroc" in figures or "image_ap" not in figures:
        return figures
    return Figures(absent=dict.fromkeys(IMAGE_METRICS, "no normal image")).add_mad()


def check_scores(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Validated (n,) scores and (n,) "is anomalous"."""
    values = np.asarray(scores, dtype=np.float64)
    truth = np.asarray(labels)
    if values.ndim != 1 or truth.shape != values.shape:
        raise InputError(f"scores and labels must be two lists of one length, not {values.shape} and {truth.shape}")
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(f"score number {bad} is {values[bad]}: leave failed images out of the metrics")
    if truth.size and not np.isin(truth, (0, 1)).all():
        raise InputError("labels must be 0 (normal) or 1 (anomalous); leave unlabelled images out of the metrics")
    return values, truth.astype(bool)


def score_counts(
    values: NDArray[np.float64], is_positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(positives, negatives) per distinct score, highest first; (K,) each."""
    distinct, place = np.unique(values, return_inverse=True)
    positives = np.bincount(place[is_positive], minlength=len(distinct)).astype(np.float64)
    negatives = np.bincount(place[~is_positive], minlength=len(distinct)).astype(np.float64)
    return positives[::-1], negatives[::-1]
