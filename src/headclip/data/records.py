"""One labelled image, and its mask as pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headclip.data.decode import decode
from headclip.data.discover import find_images
from headclip.errors import ImageError

JPEG_MASK_THRESHOLD = 127
"""Where masks are JPEG files: compression leaves specks of low values around every edge."""


class Outline(Protocol):
    """A mask that is described rather than stored as an image, such as the polygons of COCO."""

    def draw(self) -> NDArray[np.bool_]:
        """(H, W) bool, True where anomalous, at the size that the description gives."""
        ...


@dataclass(frozen=True)
class ImageRecord:
    """One image. label: 0 normal, 1 anomalous, None unknown.

    mask is the file of the anomalous pixels, or a folder whose images are united (MVTec LOCO); outline stands
    in its place for described masks. defect names the kind of anomaly where the dataset does.
    """

    path: Path
    label: int | None
    mask: Path | None
    category: str
    defect: str = ""
    outline: Outline | None = None

    @property
    def has_mask(self) -> bool:
        """Whether the anomalous pixels of an anomalous image are known."""
        return self.mask is not None or self.outline is not None


def read_mask(
    path: str | Path, size: tuple[int, int] | None = None, threshold: int = JPEG_MASK_THRESHOLD
) -> NDArray[np.bool_]:
    """Read a mask: True where anomalous.

    Args:
        path: an image file of any kind that `decode` reads, or a folder of such files, which are united;
            transparent pixels count as black.
        size: (height, width) to bring the mask to, by nearest neighbour.
        threshold: 8-bit values above this are anomalous. A mask that has none above it, such as one of 0 and 1 or of
            class numbers, is anomalous wherever it is not 0.

    Returns:
        (H, W) bool.

    Raises:
        ImageError: the mask cannot be read, or the masks of a folder have different sizes.
    """
    path = Path(path)
    if not path.is_dir():
        return resize_mask(_read_one(path, threshold), size)
    united: NDArray[np.bool_] | None = None
    for file in find_images(path):
        part = _read_one(file, threshold)
        if united is not None and united.shape != part.shape:
            raise ImageError(f"the masks in {path} have different sizes; {file} does not fit the others")
        united = part if united is None else united | part
    if united is None:
        raise ImageError(f"the mask folder {path} holds no image")
    return resize_mask(united, size)


def record_mask(
    record: ImageRecord, size: tuple[int, int], threshold: int = JPEG_MASK_THRESHOLD
) -> NDArray[np.bool_] | None:
    """The mask of a record at `size` = (height, width): all False for a normal image, None where unknown.

    Raises:
        ImageError: the mask cannot be read.
    """
    if record.label == 0:
        return np.zeros(size, dtype=np.bool_)
    if record.outline is not None:
        return resize_mask(record.outline.draw(), size)
    return None if record.mask is None else read_mask(record.mask, size, threshold)


def resize_mask(mask: NDArray[np.bool_], size: tuple[int, int] | None) -> NDArray[np.bool_]:
    """Bring a (H, W) mask to `size` = (height, width) by nearest neighbour; None keeps it."""
    if size is None or mask.shape == size:
        return mask
    image = Image.fromarray(mask.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(image) > 0


def _read_one(path: Path, threshold: int) -> NDArray[np.bool_]:
    try:
        values = decode(path, background=0).max(axis=2)  # (H, W)
    except ImageError as error:
        raise ImageError(f"the mask {path} cannot be used: {error}") from error
    return values > (threshold if values.max() > threshold else 0)
