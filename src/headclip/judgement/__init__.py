"""Decisions that can be defended: calibrated thresholds, verdicts, regions, re-judgement, exports. No torch needed."""

from headclip.judgement.calibration import Calibration, CalibrationError
from headclip.judgement.conformal import Promise, TooFewImagesError, conformal_threshold
from headclip.judgement.regions import Region, RegionRules, find_regions, region_level, region_mask
from headclip.judgement.verdicts import Criteria, ImageJudgement, Verdict, judge

__all__ = [
    "Calibration",
    "CalibrationError",
    "Criteria",
    "ImageJudgement",
    "Promise",
    "Region",
    "RegionRules",
    "TooFewImagesError",
    "Verdict",
    "conformal_threshold",
    "find_regions",
    "judge",
    "region_level",
    "region_mask",
]
