"""From what a user gives a detector as thresholds to verdicts and regions of its predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headclip.errors import InputError
from headclip.files import expanded
from headclip.judgement.calibration import Calibration
from headclip.judgement.choosing import Judging, choose
from headclip.judgement.verdicts import Criteria, judge
from headclip.prediction import Prediction

DEFAULT = "default"
"""In place of a calibration: the thresholds that ship with the checkpoint."""

Thresholds = Calibration | Criteria | str | Path


def criteria_of(thresholds: Thresholds, settings: Mapping[str, Any]) -> Criteria:
    """The thresholds to judge by.

    Args:
        thresholds: a calibration or its file, criteria, or `DEFAULT`.
        settings: of the detector (`Detector.describe()`), which a calibration has to fit.

    Raises:
        CalibrationError: the file cannot be read, or belongs to another model.
        InputError: no thresholds come with the checkpoint, or none that hold with these settings.
    """
    if isinstance(thresholds, Criteria):
        return thresholds
    if thresholds == DEFAULT:
        chosen = choose(Judging(), settings)
        if chosen.criteria is None:
            raise InputError(
                chosen.note or "no thresholds come with this checkpoint; make some with headclip calibrate"
            )
        return chosen.criteria
    given = thresholds if isinstance(thresholds, Calibration) else Calibration.load(expanded(thresholds))
    given.check_fits(settings)
    return given.criteria()


def decided(predictions: Iterable[Prediction], criteria: Criteria | None) -> list[Prediction]:
    """The same predictions with verdict, alarm and regions; as they are without criteria."""
    found = list(predictions)
    if criteria is None:
        return found
    judged = judge([one.score for one in found], [one.anomaly_map for one in found], criteria)
    return [
        replace(one, verdict=said.verdict, alarm=said.alarm, regions=said.regions)
        for one, said in zip(found, judged, strict=True)
    ]
