"""A prediction as a picture, for notebooks and files."""

from __future__ import annotations

from PIL import Image, ImageDraw

from headclip.errors import InputError
from headclip.inference.given import ImageLike, read
from headclip.prediction import Prediction
from headclip.runs.overlay import MIN_SPAN, Scale, tint

_LINE = 400  # pixels of the longer side for each pixel of an outline's width
_BRIGHT, _DARK = (255, 255, 255), (20, 20, 20)  # one of them stands out on any image


def overlay(
    prediction: Prediction, image: ImageLike | None = None, *, low: float = 0.0, high: float = 1.0
) -> Image.Image:
    """The image with its map laid over it in colours, and the outlines of its regions where there are any.

    Every picture has the same scale, so that a good image does not glow; `headclip predict` takes that of the run.

    Args:
        prediction: of a detector.
        image: what was judged; None reads the file at `prediction.path`.
        low, high: map values in [0, 1] for the first and the last colour.

    Returns:
        RGB, of the image's size.

    Raises:
        InputError: an image was judged that has no path, an image of another size, or a scale that is none.
        ImageError: the image cannot be read.

    Example:
        >>> prediction = Detector(calibration="default").predict("part.png")[0]   # doctest: +SKIP
        >>> overlay(prediction).save("part-overlay.jpg")                          # doctest: +SKIP
    """
    source = prediction.path if image is None else image
    if source is None:
        raise InputError("the prediction has no path; give the image that was judged: overlay(prediction, image)")
    if not 0 <= low <= high - MIN_SPAN <= 1 - MIN_SPAN:
        raise InputError(f"a scale from {low} to {high}: choose values in [0, 1], at least {MIN_SPAN} apart")
    pixels = read(source)
    if pixels.shape[:2] != prediction.anomaly_map.shape:
        raise InputError(
            f"the image has {pixels.shape[1]} x {pixels.shape[0]} pixels and the map "
            f"{prediction.width} x {prediction.height}; give the image that was judged"
        )
    picture = tint(Image.fromarray(pixels), Scale(low, high).normalise(prediction.anomaly_map))
    pen, width = ImageDraw.Draw(picture), max(1, round(max(picture.size) / _LINE))
    for region in prediction.regions:
        for ring in (region.polygon, *region.holes):
            closed = [*ring, ring[0]]
            pen.line(closed, fill=_DARK, width=width + 2, joint="curve")
            pen.line(closed, fill=_BRIGHT, width=width, joint="curve")
    return picture
