"""Which images of a run all others are compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.discover import ImageFile
from headclip.errors import ImageError, InputError


def pick_peers(
    images: Sequence[ImageFile], count: int, known: Sequence[str] = (), *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Up to `count` readable images, one after another: name and pixels, (H, W, 3) uint8.

    For the same names they are the same, in an order that nothing can follow but their hashes. Unreadable ones are
    passed over; the run has a row for each that says why.

    Args:
        known: names of those that a run began with; these are taken again, and no others.

    Raises:
        InputError: fewer than two can be read, or one of `known` has gone or cannot be read.
    """
    by_name = {image.name: image for image in images}
    read = 0
    for name in known or sorted(by_name, key=_digest):
        if not known and read == count:
            break
        try:
            pixels = by_name[name].decode(max_pixels)
        except (ImageError, KeyError) as error:
            if not known:
                continue
            why = error if isinstance(error, ImageError) else "it is not among the inputs any more"
            raise InputError(
                f"{name}, which the images of this run were compared with, cannot be read: {why}; put it back, or "
                "judge all anew with --overwrite"
            ) from error
        read += 1
        yield name, pixels
    if read < 2:
        raise InputError(
            f"--peers compares images with each other, and of {len(by_name):,} only {read} can be read; leave it out"
        )


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
