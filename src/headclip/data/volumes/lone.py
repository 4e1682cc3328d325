"""Files that are one image each, for those who do not take volumes apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.discover import ImageFile
from headclip.data.volumes.tiff import refuse_stack


class LoneImage(ImageFile):
    """A file that is one image; a stack is a row that says so, where its first page would stand for the others."""

    def decode(self, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
        """As of any image file.

        Raises:
            ImageError: also for a TIFF of several pages.
        """
        pixels = super().decode(max_pixels)
        refuse_stack(self.path)
        return pixels
