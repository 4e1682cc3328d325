"""What all detectors do with the images that they are given; how each judges pixels is its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from headclip.inference.deciding import decided
from headclip.inference.given import ImageLike, given_images, name_of, read
from headclip.inference.streaming import OnError, Predictor, stream
from headclip.prediction import Prediction


class BaseDetector:
    """Images in, predictions out, by the `predict_arrays`, `batch_size` and `criteria` of a detector."""

    def predict(
        self: Predictor, images: Iterable[ImageLike] | ImageLike, categories: Sequence[str] | None = None
    ) -> list[Prediction]:
        """Paths, bytes, PIL images or (H, W), (H, W, 3), (H, W, 4) arrays -> one prediction each, in order.

        All images and maps are held at once; `stream` is for more than that, and for folders.

        categories: what each image shows, where that is not the detector's category.

        Raises:
            ImageError: an image cannot be read.
            InputError: as `predict_arrays`.
        """
        given = list(given_images(images))
        found = decided(self.predict_arrays([read(image) for image in given], categories), self.criteria)
        return [replace(one, path=name_of(image)) for one, image in zip(found, given, strict=True)]

    def stream(
        self: Predictor, images: Iterable[ImageLike] | ImageLike, on_error: OnError | None = None
    ) -> Iterator[Prediction]:
        """Images, folders, globs or a generator of images -> their predictions, one after another.

        For more images than memory holds, and for cameras: no more than a batch and a few images are held, nothing is
        judged before it is asked for, and with `batch_size=1` nothing is read ahead, so that each frame is answered
        before the next is taken.

        images: folders and globs are searched as by `headclip predict`.
        on_error: called with an image that cannot be read, as it was given, and the reason; None warns. The others
            go on, unless it raises.

        Raises:
            InputError: a path given alone does not exist, a folder holds no image, or a glob matches none.

        Example:
            >>> for prediction in Detector().stream("photos"):                 # doctest: +SKIP
            ...     print(prediction.path, prediction.score)
        """
        return stream(self, images, on_error)
