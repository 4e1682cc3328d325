"""From scores to a calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from headclip.judgement.calibration import Calibration, Terms, Threshold, model_facts
from headclip.judgement.conformal import (
    Promise,
    TooFewImagesError,
    attainable_rate,
    conformal_threshold,
    images_needed,
)
from headclip.judgement.optimal import Costs, optimal_threshold
from headclip.judgement.scored import Scored, labelled_apart


def calibrate(
    scored: Scored,
    settings: Mapping[str, Any],
    promise: Promise | None = None,
    *,
    kind: Literal["conformal", "synthetic"] = "conformal",
    tightest: bool = False,
) -> Calibration:
    """Image and pixel thresholds that keep a promise on normal images; see `headclip.judgement.conformal`.

    The pixel threshold keeps the same promise about another alarm: at most its share of normal images shows any
    region. A line that stops at either alarm stops for at most twice that share (union bound).

    Args:
        scored: images believed normal.
        settings: of the detector that scored them (`Detector.describe()`).
        promise: at most 1 % false alarms on average, by default.
        kind: "synthetic" marks rendered images, from which nothing follows for real ones.
        tightest: where the images are too few, promise what they can keep.

    Raises:
        TooFewImagesError: not enough images for the promise.

    >>> scored = Scored([str(i) for i in range(200)], [i / 1000 for i in range(200)], [i / 500 for i in range(200)])
    >>> found = calibrate(scored, {"method": "headclip"}, Promise(0.05))
    >>> found.image.threshold, found.image.high, found.pixel.threshold
    (0.19, 0.195, 0.38)
    """
    promise, rules = promise or Promise(), scored.rules
    if tightest:
        promise = _attainable(len(scored.scores), promise)
    image = _threshold(scored.scores, promise)
    pixel = None if scored.levels is None else _threshold(scored.levels, promise)
    return Calibration(
        kind=kind,
        terms=Terms(
            false_alarms=promise.false_alarms, confidence=promise.confidence, contaminated=promise.contaminated
        ),
        image=image,
        pixel=pixel,
        min_area=rules.min_area,
        ignore_border=rules.ignore_border,
        model=model_facts(settings),
        data={**scored.source, "scored": len(scored.scores), "failed": len(scored.failed)},
    )


def calibrate_labelled(
    scored: Scored,
    labels: Mapping[str, int],
    settings: Mapping[str, Any],
    costs: Costs | None = None,
    promise: Promise | None = None,
) -> Calibration:
    """The image threshold of the best F1 or the least cost on labelled images, with a bootstrap review band.

    The pixel threshold is conformal on the normal ones: regions have no labels of their own. With too few of them for
    the promise it keeps the lowest rate that they can.

    Args:
        labels: 0 normal, 1 anomalous, by the names in `scored`.

    Raises:
        InputError: no normal or no anomalous image.
    """
    promise, rules = promise or Promise(), scored.rules
    scores, anomalous = labelled_apart(scored, labels)
    best = optimal_threshold(scores, anomalous, costs)
    normal = scored.select(lambda name: labels.get(name) == 0)
    kept = _attainable(len(normal.scores), promise)
    terms = (
        {"objective": "f1"}
        if costs is None
        else {
            "objective": "cost",
            "cost_miss": costs.miss,
            "cost_false_alarm": costs.false_alarm,
            "prevalence": costs.prevalence,
        }
    )
    return Calibration(
        kind="labelled",
        terms=Terms(false_alarms=kept.false_alarms, confidence=kept.confidence, contaminated=0.0, **terms),
        image=Threshold(threshold=best.threshold, low=best.low, high=best.high, images=len(scores)),
        pixel=None if normal.levels is None else _threshold(normal.levels, replace(kept, contaminated=0.0)),
        min_area=rules.min_area,
        ignore_border=rules.ignore_border,
        model=model_facts(settings),
        data={
            **scored.source,
            "scored": len(scores),
            "failed": len(scored.failed),
            "anomalous": int(anomalous.sum()),
            "value": best.value,
        },
    )


def _threshold(values: Sequence[float], promise: Promise) -> Threshold:
    found = conformal_threshold(values, promise)
    return Threshold(
        threshold=found.threshold, low=found.low, high=found.high, images=found.images, expected=found.expected
    )


def _attainable(count: int, promise: Promise) -> Promise:
    """The promise itself, or the lowest rate that so many images can keep.

    Raises:
        TooFewImagesError: they can keep none.
    """
    rate = attainable_rate(count, promise)
    if rate <= promise.false_alarms:
        return promise
    if rate >= 1.0:
        raise TooFewImagesError(f"{count} normal images can promise nothing; give more", count, 2, 1.0)
    while images_needed(replace(promise, false_alarms=rate)) > count:  # a rounding error away
        rate += 1e-9
    return replace(promise, false_alarms=rate)
