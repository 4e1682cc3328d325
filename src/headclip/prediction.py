"""The result for one image, and what makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from headclip.errors import ImageError

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Prediction:
    """What was found in one image.

    score: image score in [0, 1], higher is more anomalous; joined from global_score (whole image) and local_score
        (the highest share of the map). anomaly_map: float32 (H, W) in [0, 1] at the image's own resolution.
    path: where the image came from, None for one given as an array.
    verdict, alarm, regions: what thresholds make of it, where the detector has some (`Detector(calibration=...)`):
        "ok", "review" or "defect"; whether the score lies above the threshold; the parts of the map above the pixel
        threshold (`headclip.judgement.Region`), the highest peak first.
    """

    score: float
    global_score: float
    local_score: float
    anomaly_map: np.ndarray
    path: str | None = None
    verdict: str | None = None
    alarm: bool | None = None
    regions: tuple[Any, ...] = ()

    @property
    def height(self) -> int:
        return int(self.anomaly_map.shape[0])

    @property
    def width(self) -> int:
        return int(self.anomaly_map.shape[1])


class Judgement(Protocol):
    """What is needed of a `Prediction`."""

    @property
    def score(self) -> float: ...
    @property
    def global_score(self) -> float: ...
    @property
    def local_score(self) -> float: ...
    @property
    def anomaly_map(self) -> NDArray[np.float32]: ...


class Judge(Protocol):
    """What is needed of a `Detector`."""

    @property
    def batch_size(self) -> int: ...
    def predict_arrays(self, images: list[NDArray[np.uint8]], /) -> Sequence[Judgement]: ...
    def describe(self) -> dict[str, Any]: ...

    # May also have `passes`, how many batches it judges at once, and `side_by_side()`, within which it does.


def judged_or_refused(
    judge: Callable[[Sequence[Item]], Sequence[Found]],
    batch: Sequence[Item],
    refuse: Callable[[Item, ImageError], None],
) -> list[tuple[Item, Found]]:
    """The items of a batch with what `judge` makes of them; those that it cannot take go to `refuse`.

    Where it takes not all of them, it is asked for each by itself.
    """
    try:
        return list(zip(batch, judge(batch), strict=True))
    except ImageError as error:
        if len(batch) == 1:
            refuse(batch[0], error)
            return []
    return [pair for item in batch for pair in judged_or_refused(judge, [item], refuse)]
