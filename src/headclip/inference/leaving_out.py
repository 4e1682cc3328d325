"""Reference images judged beside the other ones: leave one out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.discover import ImageFile
from headclip.data.hashing import pixel_hash
from headclip.data.volumes.lone import LoneImage
from headclip.errors import InputError
from headclip.files import expanded
from headclip.inference.detector import Detector
from headclip.judgement.calibrate import calibrate
from headclip.judgement.calibration import Calibration
from headclip.judgement.conformal import Promise
from headclip.judgement.regions import RegionRules
from headclip.judgement.scored import Progress, Scored, Watch, score_images, silent
from headclip.prediction import Prediction


class LeaveOneOut:
    """A detector with reference images, by which each of these is judged as if it were none of them.

    An image that is among those which it is compared with has its like there, so its score says nothing of images to
    come. Here it and its exact copies are left out of the references while it is judged; all other images are judged
    as by the detector itself.

    Attributes:
        judged: `pixel_hash` of each reference image that was judged so.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.judged: set[str] = set()

    @property
    def batch_size(self) -> int:
        return self._detector.batch_size

    def describe(self) -> dict[str, Any]:
        return self._detector.describe()

    def predict_arrays(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """As `Detector.predict_arrays`.

        A reference image that has too few others (`Method.least_references`) is judged as by the detector itself, and
        is not in `judged`.
        """
        places: dict[str, list[int]] = {}
        for place, content in enumerate(self._detector.references):
            places.setdefault(content, []).append(place)
        contents = [pixel_hash(image) for image in images]
        others = [image for image, content in zip(images, contents, strict=True) if content not in places]
        usual = iter(self._detector.predict_arrays(others))
        return [
            self._beside_others(image, content, places[content]) if content in places else next(usual)
            for image, content in zip(images, contents, strict=True)
        ]

    def _beside_others(self, image: NDArray[np.uint8], content: str, places: Sequence[int]) -> Prediction:
        detector = self._detector
        if len(detector.references) - len(places) < detector.method.least_references:
            return detector.predict_arrays([image])[0]
        with detector.method.without_references(places):
            self.judged.add(content)
            return detector.predict_arrays([image])[0]


def score_beside_others(
    detector: Detector,
    files: Sequence[ImageFile],
    rules: RegionRules,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> Scored:
    """As `score_images`; images that are among the detector's references are judged beside the other ones.

    What a calibration makes of that is near a promise, not one: an image to come has one reference more to be like
    than each of these had, so that its score is rather lower, but the scores are not exchangeable (see `conformal`).
    """
    judge = LeaveOneOut(detector)
    found = score_images(judge, files, rules, max_pixels=max_pixels, progress=progress, watch=watch)
    return replace(found, left_out=frozenset(judge.judged))


def calibrate_on_references(
    detector: Detector,
    files: Sequence[ImageFile | str | Path],
    false_alarms: float = 0.05,
    rules: RegionRules | None = None,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Progress = silent,
) -> Calibration:
    """Thresholds that about that share of normal images exceeds, from the detector's own references.

    Args:
        files: the reference images; others that are normal may be among them. Broken ones are left out.
        false_alarms: the share; where the images are too few for it, `Calibration.terms` says what they can keep.

    Raises:
        InputError: too few images, or the share is not between 0 and 1.
    """
    promise = Promise(false_alarms)
    images = [one if isinstance(one, ImageFile) else LoneImage(expanded(one), str(one)) for one in files]
    given, least = len(detector.references), detector.method.least_references + 1
    if len(images) <= given < least:
        raise InputError(f"{given} reference images are too few to judge each beside the others; give {least} or more")
    scored = score_beside_others(detector, images, rules or RegionRules(), max_pixels=max_pixels, progress=progress)
    return calibrate(scored, detector.describe(), promise, tightest=True)
