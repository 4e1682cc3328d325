"""Which thresholds a run is judged by: those asked for, else those in force, else the checkpoint's default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from headclip.errors import InputError
from headclip.judgement.calibration import Calibration, CalibrationError
from headclip.judgement.regions import RegionRules
from headclip.judgement.verdicts import Criteria, by_hand

COMPARED = {"peers": "--peers", "references": "--reference"}  # settings by which images are compared with others
BESIDE_OTHERS = "It was found without {}, which raises more alarms, true ones and false."


@dataclass(frozen=True)
class Judging:
    """What a user asks for; None leaves a thing as it is.

    calibration and threshold exclude each other; a threshold by hand has no review band. pixel_threshold replaces the
    one of either; both lie in [0, 1]. min_area, ignore_border, pixel_mm: as in `RegionRules` and `Criteria`. none: no
    thresholds at all.

    Raises:
        InputError: what excludes each other, or a threshold out of range.
    """

    calibration: Calibration | None = None
    threshold: float | None = None
    pixel_threshold: float | None = None
    min_area: int | None = None
    ignore_border: int | None = None
    pixel_mm: float | None = None
    none: bool = False

    @property
    def rules(self) -> RegionRules:
        """Which regions are to count, where nothing else says so."""
        return RegionRules(self.min_area or 1, self.ignore_border or 0)

    def __post_init__(self) -> None:
        if self.calibration is not None and self.threshold is not None:
            raise InputError("--calibration and --threshold exclude each other; give one of them")
        given = (getattr(self, item.name) for item in fields(self) if item.name != "none")
        if self.none and any(value is not None for value in given):
            raise InputError("no thresholds were asked for, and some were given; choose one")
        by_hand("--threshold", self.threshold)
        by_hand("--pixel-threshold", self.pixel_threshold)


@dataclass(frozen=True)
class Chosen:
    """criteria: None where no threshold is known; calibration: where they come from; note: what they are worth."""

    criteria: Criteria | None = None
    calibration: Calibration | None = None
    note: str | None = None


def choose(judging: Judging, settings: Mapping[str, Any], judgement: Mapping[str, Any] | None = None) -> Chosen:
    """The thresholds to judge by.

    Args:
        settings: of the detector (`Detector.describe()`), with the checkpoint's default calibration if it has one.
        judgement: what a run was judged by until now (`Run.judgement`).

    Raises:
        CalibrationError: the calibration belongs to another model.
        InputError: a pixel threshold without an image threshold; nonsensical numbers.
    """
    if judging.none:
        return Chosen()
    if judging.calibration is not None:
        judging.calibration.check_fits(settings)
        base = _of(judging.calibration)
    elif judgement is not None:
        calibration = judgement.get("calibration")
        read = None if calibration is None else Calibration.from_values(calibration)
        base = Chosen(Criteria.from_json(judgement["criteria"]), read, judgement.get("note"))
    else:
        base = _default(settings)
    if judging.threshold is not None:
        manual = Criteria.manual(judging.threshold)
        kept = base.criteria or manual
        manual = replace(
            manual, pixel=kept.pixel, alarm_pixel=kept.alarm_pixel, rules=kept.rules, pixel_mm=kept.pixel_mm
        )
        pixel = "" if kept.pixel is None or judging.pixel_threshold is not None else "; regions as before"
        base = Chosen(manual, None, f"Threshold set by hand, no promise{pixel}.")
    return _with_details(base, judging)


def _of(calibration: Calibration) -> Chosen:
    return Chosen(calibration.criteria(), calibration, calibration.describe())


def _default(settings: Mapping[str, Any]) -> Chosen:
    """What ships with the checkpoint, where it was made for these settings."""
    if not settings.get("calibration"):
        return Chosen()
    try:
        calibration = Calibration.from_values(settings["calibration"], "the checkpoint's calibration")
        alone = dict(settings) | {"references": []}  # to compare images leaves a usual score where it is
        alone.pop("peers", None)
        alone.pop("roi", None)  # a part of an image is an image
        calibration.check_fits(alone, "the checkpoint's default calibration")
    except CalibrationError as error:
        return Chosen(note=f"No thresholds: {error}.")
    chosen = _of(calibration)
    options = [option for name, option in COMPARED.items() if settings.get(name)]
    return replace(chosen, note=f"{chosen.note} {BESIDE_OTHERS.format(options[0])}") if options else chosen


def why_no_default(settings: Mapping[str, Any]) -> str | None:
    """Why the thresholds that ship with a checkpoint do not hold for these settings; None where they do, or none do."""
    chosen = _default(settings)
    return chosen.note if chosen.criteria is None else None


def _with_details(base: Chosen, judging: Judging) -> Chosen:
    """Pixel threshold, rules and pixel pitch as asked for, and what that does to a promise."""
    criteria = base.criteria
    if criteria is None:
        if judging.pixel_threshold is not None:
            raise InputError("--pixel-threshold needs an image threshold beside it; add --threshold")
        return base
    note = base.note or ""
    if judging.pixel_threshold is not None:
        criteria = replace(criteria, pixel=judging.pixel_threshold, alarm_pixel=None)
        note += " Pixel threshold set by hand."
    before = criteria.rules
    criteria = criteria.with_rules(
        min_area=judging.min_area, ignore_border=judging.ignore_border, pixel_mm=judging.pixel_mm
    )
    by_hand = judging.pixel_threshold is not None
    if base.calibration is not None and not by_hand and not criteria.rules.covers(base.calibration.rules):
        note += (
            f" More regions may show than promised: it was calibrated for regions from {base.calibration.min_area} px "
            f"and a border of {base.calibration.ignore_border} px."
        )
    changed = criteria.rules != before or by_hand
    return Chosen(criteria, base.calibration, note if changed else base.note)
