"""The part of each image that is judged, where a camera sees more than the part to inspect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headclip.data.decode import MIN_SIDE
from headclip.errors import ImageError, InputError
from headclip.prediction import Prediction

_FORM = "LEFT,TOP,WIDTH,HEIGHT, each in pixels or in percent of the image, such as 120,80,640,480 or 10%,0,80%,100%"


@dataclass(frozen=True)
class Roi:
    """A region of interest, upright rectangle: four numbers, each of pixels or a share of the image's side.

    >>> Roi.parse("10%,20,50%,40").box(100, 200)
    (slice(20, 60, None), slice(20, 120, None))
    """

    numbers: tuple[float, float, float, float]
    shares: tuple[bool, bool, bool, bool]

    @classmethod
    def parse(cls, text: str) -> Roi:
        """From LEFT,TOP,WIDTH,HEIGHT.

        Raises:
            InputError: not four such numbers, or a rectangle that no image holds.
        """
        parts = [part.strip() for part in text.split(",")]
        try:
            numbers = [float(part.removesuffix("%")) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) != 4 or not np.isfinite(numbers).all():
            raise InputError(f"region of interest {text!r}: give {_FORM}")
        shares = [part.endswith("%") for part in parts]
        if any(not share and number != int(number) for number, share in zip(numbers, shares, strict=True)):
            raise InputError(f"region of interest {text}: pixels are whole numbers; write 10% for a share")
        if min(numbers[:2]) < 0 or min(numbers[2:]) <= 0:
            raise InputError(f"region of interest {text}: it begins at 0 or later, and has a width and a height")
        for start, size in ((0, 2), (1, 3)):
            if shares[start] and shares[size] and numbers[start] + numbers[size] > 100:
                raise InputError(f"region of interest {text}: it reaches beyond 100 %")
        return cls((numbers[0], numbers[1], numbers[2], numbers[3]), (shares[0], shares[1], shares[2], shares[3]))

    def __str__(self) -> str:
        return ",".join(f"{n:g}{'%' if share else ''}" for n, share in zip(self.numbers, self.shares, strict=True))

    def box(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns of an image of that size.

        Raises:
            ImageError: they reach beyond it, or are fewer than a detector takes.
        """
        rows, columns = self._span(1, 3, height), self._span(0, 2, width)
        if rows.stop > height or columns.stop > width:
            raise ImageError(f"the region of interest {self} reaches beyond its {width} x {height} pixels")
        if min(rows.stop - rows.start, columns.stop - columns.start) < MIN_SIDE:
            raise ImageError(
                f"the region of interest {self} is less than {MIN_SIDE} pixels wide or high in its {width} x {height}"
            )
        return rows, columns

    def crop(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) -> what is judged of it, (h, w, 3)."""
        return np.ascontiguousarray(image[self.box(image.shape[0], image.shape[1])])

    def _span(self, start: int, size: int, length: int) -> slice:
        first, extent = (self.numbers[i] / 100 * length if self.shares[i] else self.numbers[i] for i in (start, size))
        return slice(round(first), round(first + extent))


def judged_within(
    roi: Roi | None, images: Sequence[np.ndarray], judge: Callable[[Sequence[np.ndarray]], list[Prediction]]
) -> list[Prediction]:
    """What `judge` says of the regions of interest of images, with maps of the images' size, 0 outside.

    Raises:
        ImageError: an image does not hold the region.
    """
    if roi is None:
        return judge(images)
    found = judge([roi.crop(image) for image in images])
    return [replace(one, anomaly_map=_placed(one, roi, image)) for one, image in zip(found, images, strict=True)]


def refuse_roi(detector: object, advice: str) -> None:
    """For what sees whole images alone.

    Raises:
        InputError: the detector has a region of interest.
    """
    roi = getattr(detector, "roi", None)
    if roi is not None:
        raise InputError(f"the detector judges a region of interest alone ({roi}); {advice}")


def _placed(prediction: Prediction, roi: Roi, image: np.ndarray) -> np.ndarray:
    whole = np.zeros(image.shape[:2], np.float32)
    whole[roi.box(image.shape[0], image.shape[1])] = prediction.anomaly_map
    return whole
