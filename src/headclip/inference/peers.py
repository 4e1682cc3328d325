"""Which images of a run all others are compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.discover import ImageFile
from headclip.errors import ImageError, InputError


def pick_peers(
    images: Sequence[ImageFile],
    count: int,
    earlier: Mapping[str, Any] | None = None,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, NDArray[np.uint8]]:
    """Up to `count` readable images, by name, (H, W, 3) uint8 each: the same for the same names, in no other order
    that anything could follow. Unreadable ones are passed over; the run has a row for each that says why.

    Args:
        earlier: run.json of a run that goes on; the `peer_names` among its arguments are taken again.

    Raises:
        InputError: fewer than two can be read, or one of an earlier call has gone or cannot be read.
    """
    by_name = {image.name: image for image in images}
    before = (earlier or {}).get("arguments") or {}
    known = list(before.get("peer_names") or []) if before.get("peers") == count else []
    order = known or sorted(by_name, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    wanted = len(known) or min(count, len(order))
    found: dict[str, NDArray[np.uint8]] = {}
    for name in order:
        if len(found) == wanted:
            break
        try:
            found[name] = by_name[name].decode(max_pixels)
        except (ImageError, KeyError) as error:
            if known:
                why = error if isinstance(error, ImageError) else "it is not among the inputs any more"
                raise InputError(
                    f"{name}, which the images of this run were compared with, cannot be read: {why}; put it back, or "
                    "judge all anew with --overwrite"
                ) from error
            continue
        progress(len(found), wanted)
    if len(found) < 2:
        raise InputError(
            f"--peers compares images with each other, and of {len(by_name):,} only {len(found)} can be read; "
            "leave it out"
        )
    return found
