"""Which images others are compared with: some of a run, or of a folder of normal ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.discover import ImageFile
from headclip.errors import ImageError, InputError

MOST_REFERENCES = 64
"""Of a folder of normal images: more take longer, and hardly say more."""


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
    for name in known or in_chance_order(by_name):
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


def pick_references(
    images: Sequence[ImageFile], most: int = MOST_REFERENCES, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[list[Path], dict[str, str]]:
    """Up to `most` readable images of a folder of normal ones, by name; the same for the same names.

    Returns:
        Their files, and the name of each one that was tried and cannot be read -> why.
    """
    by_name = {image.name: image for image in images}
    found: list[str] = []
    broken: dict[str, str] = {}
    for name in in_chance_order(by_name):
        if len(found) == most:
            break
        try:
            by_name[name].decode(max_pixels)
        except ImageError as error:
            broken[name] = str(error)
        else:
            found.append(name)
    return [by_name[name].path for name in sorted(found)], broken


def in_chance_order(names: Iterable[str], seed: int | None = None) -> list[str]:
    """Names in an order that nothing can follow but their hashes, and the seed if there is one."""
    salt = b"" if seed is None else f"{seed}/".encode()
    return sorted(names, key=lambda name: hashlib.sha256(salt + name.encode("utf-8", "surrogateescape")).digest())
