"""Files that are one image each, for those who do not take volumes apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headclip.data.decode import DEFAULT_MAX_PIXELS, decode
from headclip.data.discover import ImageFile
from headclip.data.volumes.tiff import refuse_stack


class LoneImage(ImageFile):
    """A file that is one image; a stack is a row that says so, where its first page would stand for the others."""

    def decode(self, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
        """As `decode_lone`."""
        return decode_lone(self.path, max_pixels)


def decode_lone(source: Path | bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
    """The pixels, (H, W, 3), of a file or its content.

    Raises:
        ImageError: as `decode`, and for a TIFF of several pages.
    """
    pixels = decode(source, max_pixels=max_pixels)
    refuse_stack(source)
    return pixels
