"""From scores and maps to verdicts and regions: what stands on which side of a threshold.

A score is not a decision. `Criteria` are the numbers that make it one; they come from a calibration
(`headclip.judgement.calibration`) or from a hand (`Criteria.manual`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headclip.errors import InputError
from headclip.judgement.regions import Region, RegionRules, find_regions

if TYPE_CHECKING:
    from headclip.judgement.calibration import Calibration


_NUMBERS = frozenset({"threshold", "low", "high", "pixel", "alarm_pixel", "pixel_mm", "share"})


class Verdict(StrEnum):
    """What is said of an image. `review`: the calibration is too small, or too impure, to tell; a person looks."""

    ok = "ok"
    review = "review"
    defect = "defect"


def _verdict(score: float, low: float, high: float | None) -> Verdict:
    if score <= low:
        return Verdict.ok
    return Verdict.review if high is None or score <= high else Verdict.defect


@dataclass(frozen=True)
class VolumeRule:
    """The thresholds of volumes, by their scores: the mean of the highest `share` of their slices' scores.

    threshold, low, high: as those of images in `Criteria`.
    """

    threshold: float
    low: float
    high: float | None
    share: float

    def verdict(self, score: float) -> Verdict:
        """The verdict on the score of one volume."""
        return _verdict(score, self.low, self.high)


@dataclass(frozen=True)
class Criteria:
    """The thresholds that a run is judged by. An image or a pixel is on the far side when it is above, not at, one.

    Attributes:
        threshold: image score in [0, 1]; above it the image raises an alarm. The promise of a calibration is about
            this one.
        low, high: the review band. score <= low: ok; score > high: defect; between: review. high is None where the
            calibration is too small to give the band an upper end: then nothing is a defect, all alarms are review.
        pixel: map value in [0, 1] above which a pixel belongs to a region; None finds no regions.
        rules: which regions count.
        pixel_mm: side of a pixel in millimetres; None where it is not known.
        source: "manual", "conformal", "labelled" or "synthetic".
        alarm_pixel: the same as `pixel` for images that are not ok, where their regions are drawn more generously;
            the lower of both holds for them. None: as in any image.
        volume: the thresholds of volumes, where there are some.
    """

    threshold: float
    low: float
    high: float | None
    pixel: float | None = None
    rules: RegionRules = field(default_factory=RegionRules)
    pixel_mm: float | None = None
    source: str = "manual"
    alarm_pixel: float | None = None
    volume: VolumeRule | None = None

    def __post_init__(self) -> None:
        if not np.isfinite(self.threshold):
            raise InputError(f"threshold {self.threshold}: a number is needed")
        upper = self.threshold if self.high is None else self.high
        if not self.low <= self.threshold <= upper:
            raise InputError(
                f"review band {self.low} to {self.high}: the threshold {self.threshold} must lie within it"
            )
        for pixel in (self.pixel, self.alarm_pixel):
            if pixel is not None and not np.isfinite(pixel):
                raise InputError(f"pixel threshold {pixel}: a number is needed")
        if self.pixel_mm is not None and not (np.isfinite(self.pixel_mm) and self.pixel_mm > 0):
            raise InputError(f"pixel pitch {self.pixel_mm} mm: a positive number is needed")

    @classmethod
    def manual(
        cls,
        threshold: float,
        pixel: float | None = None,
        *,
        low: float | None = None,
        high: float | None = None,
        rules: RegionRules | None = None,
        pixel_mm: float | None = None,
    ) -> Criteria:
        """Thresholds by hand; without `low` and `high` there is no review band.

        Raises:
            InputError: a threshold outside [0, 1], where scores and maps lie (`by_hand`), or outside its band.

        >>> Criteria.manual(0.5).verdict(0.5), Criteria.manual(0.5).verdict(0.51)
        (<Verdict.ok: 'ok'>, <Verdict.defect: 'defect'>)
        """
        by_hand("threshold", threshold)
        by_hand("pixel threshold", pixel)
        low, high = threshold if low is None else low, threshold if high is None else high
        return cls(threshold, low, high, pixel, rules or RegionRules(), pixel_mm)

    def verdict(self, score: float) -> Verdict:
        """The verdict on one image score."""
        return _verdict(score, self.low, self.high)

    def alarm(self, score: float) -> bool:
        """Whether the score lies above the threshold: the two-way label."""
        return score > self.threshold

    def pixel_for(self, score: float) -> float | None:
        """The map value above which a pixel of an image with that score belongs to a region."""
        if self.pixel is None or self.alarm_pixel is None or self.verdict(score) is Verdict.ok:
            return self.pixel
        return min(self.pixel, self.alarm_pixel)

    def regions(self, score: float, anomaly_map: NDArray[Any]) -> tuple[Region, ...]:
        """The regions of one map, (H, W) float in [0, 1] or uint16 levels; none without a pixel threshold."""
        pixel = self.pixel_for(score)
        return () if pixel is None else find_regions(anomaly_map, pixel, self.rules, pixel_mm=self.pixel_mm)

    def with_rules(
        self, *, min_area: int | None = None, ignore_border: int | None = None, pixel_mm: float | None = None
    ) -> Criteria:
        """The same thresholds with what is given replaced."""
        rules = RegionRules(
            self.rules.min_area if min_area is None else min_area,
            self.rules.ignore_border if ignore_border is None else ignore_border,
        )
        return replace(self, rules=rules, pixel_mm=self.pixel_mm if pixel_mm is None else pixel_mm)

    def to_json(self) -> dict[str, Any]:
        """JSON-able; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Criteria:
        """What `to_json` wrote.

        Raises:
            InputError: it is damaged.
        """
        try:
            volume = values.get("volume")
            for name, value in (*values.items(), *(volume or {}).items()):
                number = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
                if name in _NUMBERS and not (number or value is None):
                    raise ValueError(f"{name} is {value!r}"[:80])
            rule = None if volume is None else VolumeRule(**volume)
            return cls(**{**values, "rules": RegionRules(**values["rules"]), "volume": rule})
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(
                f"the thresholds of the run are damaged ({error}); `headclip rejudge` sets new ones"
            ) from error


def by_hand(name: str, value: float | None) -> None:
    """Check a threshold that somebody set. Calibrated ones may lie a hair outside: below the lowest score, say.

    Raises:
        InputError: it is no number in [0, 1].
    """
    if value is not None and not 0.0 <= value <= 1.0:
        hint = f"; for {value:g} % write {value / 100:g}" if 1.0 < value <= 100.0 else ""
        raise InputError(f"{name} {value:g}: scores and maps lie between 0 and 1, so choose a number from there{hint}")


@dataclass(frozen=True)
class ImageJudgement:
    """What judging adds to the prediction of one image. alarm: the score lies above the threshold."""

    verdict: Verdict
    alarm: bool
    regions: tuple[Region, ...] = ()


def judge(
    scores: Sequence[float],
    maps: Sequence[NDArray[Any] | None] | None,
    criteria: Criteria | Calibration,
    *,
    pixel_mm: float | None = None,
) -> list[ImageJudgement]:
    """Verdict and regions of each image.

    A judgement here, of a run folder (`headclip rejudge`) and of `headclip predict` are the same for the same map:
    maps are compared with the threshold after rounding to 16 bits, as run folders keep them.

    Args:
        scores: (n,) image scores in [0, 1].
        maps: n maps, (H, W) float in [0, 1] or uint16 levels, or None for no regions.
        criteria: thresholds, or a calibration, whose criteria are taken.
        pixel_mm: side of a pixel in millimetres, in place of the criteria's.

    Raises:
        InputError: not as many maps as scores, or a score that is not a number.

    >>> high = np.zeros((8, 8), np.float32); high[2:4, 3:6] = 0.9
    >>> found = judge([0.2, 0.8], [np.zeros((8, 8)), high], Criteria.manual(0.5, pixel=0.5))
    >>> [(image.verdict.value, len(image.regions)) for image in found], found[1].regions[0].box
    ([('ok', 0), ('defect', 1)], (3, 2, 3, 2))
    """
    rule = criteria if isinstance(criteria, Criteria) else criteria.criteria()
    rule = rule.with_rules(pixel_mm=pixel_mm)
    given = [None] * len(scores) if maps is None else list(maps)
    if len(given) != len(scores):
        raise InputError(f"{len(given)} maps for {len(scores)} scores")
    if not np.isfinite(np.asarray(scores, dtype=np.float64)).all():
        raise InputError("a score is not a number; leave failed images out")
    return [
        ImageJudgement(rule.verdict(score), rule.alarm(score), () if values is None else rule.regions(score, values))
        for score, values in zip(scores, given, strict=True)
    ]
