"""From scores to a calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from headclip.judgement.calibration import Calibration, Terms, Threshold, model_facts
from headclip.judgement.conformal import (
    Promise,
    TooFewImagesError,
    attainable_rate,
    conformal_threshold,
    images_needed,
)
from headclip.judgement.copies import exact_copies, near_copies
from headclip.judgement.optimal import Costs, optimal_pixels, optimal_threshold
from headclip.judgement.scored import Scored, labelled_apart

if TYPE_CHECKING:
    from headclip.metrics import PixelState


@dataclass(frozen=True)
class Repeated:
    """Images that are no independent looks at the line.

    copies: name -> the image that it is an exact copy of; references: names of the method's own reference images.
    Both are left out. near: (name, the image that it looks like a copy of); these are kept.
    """

    copies: Mapping[str, str]
    references: tuple[str, ...]
    near: tuple[tuple[str, str], ...]


def count_once(
    scored: Scored, settings: Mapping[str, Any], labels: Mapping[str, int] | None = None
) -> tuple[Scored, Repeated]:
    """The images that count, and those that repeat others; what was found stands in `Scored.source`.

    Args:
        settings: of the detector; its reference images score lower than any other, unless each was judged beside the
            other ones (`Scored.left_out`).
        labels: copies are those with the same label too; what somebody labelled both ways counts once for either.
    """
    known = exact_copies({name: (content, (labels or {}).get(name)) for name, content in scored.contents.items()})
    held = set(settings.get("references") or ()) - scored.left_out
    references = tuple(name for name, content in scored.contents.items() if content in held)
    kept = scored.select(lambda name: name not in known and name not in references)
    looked = [(name, score) for name, score in zip(kept.names, kept.scores, strict=True) if name in kept.thumbnails]
    pairs = near_copies([score for _, score in looked], [kept.thumbnails[name] for name, _ in looked])
    near = tuple((looked[j][0], looked[i][0]) for i, j in pairs)
    seen = bool(scored.thumbnails)  # the pictures themselves, rather than their files or nothing
    facts = {
        "copies": len(known) if scored.contents else None,
        "references": len(references) if seen else None,
        **({"left_out": len(scored.left_out)} if scored.left_out else {}),
        "near_copies": len(near) if seen else None,
        "files": sorted(set(scored.files.values())),
    }
    return replace(kept, source={**scored.source, **facts}), Repeated(known, references, near)


def calibrate(
    scored: Scored,
    settings: Mapping[str, Any],
    promise: Promise | None = None,
    *,
    kind: Literal["conformal", "synthetic"] = "conformal",
    tightest: bool = False,
) -> Calibration:
    """Image and pixel thresholds that keep a promise on normal images; see `headclip.judgement.conformal`.

    Exact copies count once, and a method's own reference images not at all (`count_once`). The pixel threshold keeps
    the same promise about another alarm: at most its share of normal images shows any region without being one of the
    score's. A line that stops at either alarm stops for at most twice that share (union bound). Within images that are
    not ok regions may be drawn more generously: by the level at which at most that share of normal images would show
    more than 2 % of its pixels. Where the images are slices of volumes (`Scored.volumes`), there is a threshold of
    volumes too, if they are enough: slices of one volume are alike, and volumes are what is exchangeable.

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
    scored = _counted(scored, settings)
    if tightest:
        promise = _attainable(len(scored.scores), promise)
    image = _threshold(scored.scores, promise)
    pixel, alarm_pixel = _of_maps(scored, promise)
    return Calibration(
        kind=kind,
        terms=Terms(
            false_alarms=promise.false_alarms, confidence=promise.confidence, contaminated=promise.contaminated
        ),
        image=image,
        pixel=pixel,
        alarm_pixel=alarm_pixel,
        volume=_of_volumes(scored, promise, tightest),
        volume_share=scored.volume_share,
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
    pixels: PixelState | None = None,
) -> Calibration:
    """The image threshold of the best F1 or the least cost on labelled images, with a bootstrap review band.

    The pixel threshold is that of the best F1 over pixels where masks mark any. Else it is conformal on the normal
    images, for regions have no labels of their own; with too few of them for the promise it keeps the lowest rate that
    they can.

    Args:
        labels: 0 normal, 1 anomalous, by the names in `scored`.
        pixels: counts of the maps with their masks (`optimal.MaskedPixels`).

    Raises:
        InputError: no normal or no anomalous image.
    """
    promise, rules = promise or Promise(), scored.rules
    scored = _counted(scored, settings, labels)
    scores, anomalous = labelled_apart(scored, labels)
    best = optimal_threshold(scores, anomalous, costs)
    masked = None if pixels is None else optimal_pixels(pixels)
    pixel: Threshold | None
    alarm_pixel: Threshold | None = None
    found: dict[str, Any]  # of Terms
    if masked is not None:
        level = masked.threshold
        pixel = Threshold(threshold=level, low=level, high=level, images=masked.images)
        found = {"pixel_objective": "f1"}
    else:
        normal = scored.select(lambda name: labels.get(name) == 0)
        kept = replace(_attainable(len(normal.scores), promise), contaminated=0.0)
        pixel, alarm_pixel = _of_maps(normal, kept)
        found = {"false_alarms": kept.false_alarms, "confidence": kept.confidence}
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
        terms=Terms(contaminated=0.0, **found, **terms),
        image=Threshold(threshold=best.threshold, low=best.low, high=best.high, images=len(scores)),
        pixel=pixel,
        alarm_pixel=alarm_pixel,
        min_area=rules.min_area,
        ignore_border=rules.ignore_border,
        model=model_facts(settings),
        data={
            **scored.source,
            "scored": len(scores),
            "failed": len(scored.failed),
            "anomalous": int(anomalous.sum()),
            "value": best.value,
            "pixels": None if masked is None else asdict(masked),
        },
    )


def _counted(scored: Scored, settings: Mapping[str, Any], labels: Mapping[str, int] | None = None) -> Scored:
    """`count_once`, unless that has been done."""
    return scored if "copies" in scored.source else count_once(scored, settings, labels)[0]


def _of_maps(scored: Scored, promise: Promise) -> tuple[Threshold | None, Threshold | None]:
    """The pixel threshold of any image, and that of images that are not ok."""
    pixel = _threshold(scored.levels, promise) if scored.levels else None
    return pixel, _threshold(scored.extents, promise) if scored.extents else None


def _of_volumes(scored: Scored, promise: Promise, tightest: bool) -> Threshold | None:
    """The threshold of volumes; None where there are too few for the promise."""
    if not scored.volumes:
        return None
    try:
        kept = _attainable(len(scored.volumes), promise) if tightest else promise
        return _threshold(scored.volumes, kept)
    except TooFewImagesError:
        return None


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
