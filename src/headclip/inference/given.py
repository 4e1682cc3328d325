"""What callers hand to a detector, checked and brought to one form: images of every kind, and their categories."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from headclip.data.decode import as_rgb
from headclip.errors import ImageError, InputError
from headclip.files import expanded

ImageLike = str | Path | bytes | Image.Image | np.ndarray


def given_images(images: Iterable[ImageLike] | ImageLike) -> Iterable[ImageLike]:
    """One image or several -> several; a path is one image, not its letters.

    Raises:
        InputError: a tensor, whose order and range of values nothing tells, or an array of several images.
    """
    if isinstance(images, Tensor):
        raise InputError(
            "a torch tensor does not say how its values are to be read; give an array (H, W, 3), such as "
            "tensor.permute(1, 2, 0).numpy() of one image (3, H, W) in [0, 1]"
        )
    if isinstance(images, np.ndarray) and images.ndim == 4:
        raise InputError(f"an array of shape {images.shape} looks like a batch; give the images of it, list(batch)")
    return [images] if isinstance(images, str | Path | bytes | Image.Image | np.ndarray) else images


def name_of(image: ImageLike) -> str | None:
    """The path of an image that is given by one."""
    return str(image) if isinstance(image, str | Path) else None


def read(image: ImageLike) -> np.ndarray:
    """Any image that `Detector.predict` takes -> (H, W, 3) uint8.

    Raises:
        ImageError: it cannot be read; names the file.
    """
    source = expanded(image) if isinstance(image, str | Path) else image
    try:
        return as_rgb(source)
    except ImageError as error:
        advice = ", or the folder to the detector's stream" if isinstance(source, Path) and source.is_dir() else ""
        raise ImageError(f"{name_of(image) or 'an image'}: {error}{advice}") from error


def check_arrays(images: Sequence[np.ndarray], categories: Sequence[str] | None = None) -> None:
    """Whether decoded images are what the tower takes, with a category each or none.

    Raises:
        InputError: an image is not (H, W, 3) uint8; more or fewer categories than images.
    """
    for image in images:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(
                f"predict_arrays takes (H, W, 3) uint8, and was given {image.shape} {image.dtype}; predict takes other "
                "kinds of image too"
            )
    check_count(images, categories)


def check_count(images: Sequence[ImageLike], categories: Sequence[str] | None) -> None:
    """Whether there is a category for each image, or none at all.

    Raises:
        InputError: more or fewer.
    """
    if categories is not None and len(categories) != len(images):
        raise InputError(f"{len(categories)} categories were given for {len(images)} images")


def batches_of_one_size(images: Sequence[np.ndarray], most: int) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """(height, width) with the indices of at most `most` images of that size, until every image has been named."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault((image.shape[0], image.shape[1]), []).append(index)
    for size, indices in groups.items():
        for start in range(0, len(indices), most):
            yield size, indices[start : start + most]


def check_batch_size(size: int | None) -> int | None:
    """None, which stands for a choice by the machine, or at least 1.

    Raises:
        InputError: less.
    """
    if size is not None and size < 1:
        raise InputError(f"batch size {size}: at least 1 is needed")
    return size
