"""What a volume is to the rest of headclip: an ordered row of slices, each an image that can be decoded alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headclip.data.decode import DEFAULT_MAX_PIXELS, check_size
from headclip.data.discover import ImageFile, ImageSet
from headclip.data.volumes.names import digest
from headclip.data.volumes.window import Window
from headclip.errors import ImageError, InputError
from headclip.files import content_hash

Kind = Literal["tiff", "dicom", "nifti"]
Plane = Literal["axial", "coronal", "sagittal"]

DEFAULT_MAX_VOXELS = 1_000_000_000
DEFAULT_TOP_SHARE = 0.1
MAX_SLICES = 100_000
MAX_STRETCH = 16.0  # thicker voxels than this are left as they are
_SQUARE = 0.02  # voxels whose sides differ by less are taken for square


@dataclass(frozen=True)
class VolumeOptions:
    """How volumes are read and scored.

    window: centre and width in the units of the file after rescaling; None takes what the file states, else
    percentiles of the volume. plane: how NIfTI is cut; None: as acquired. keep_names: use the files' own names.
    max_voxels: larger volumes are refused. top_share: share of the slices, the highest scores first, whose mean
    score is the volume's.
    """

    window: Window | None = None
    plane: Plane | None = None
    keep_names: bool = False
    max_voxels: int = DEFAULT_MAX_VOXELS
    top_share: float = DEFAULT_TOP_SHARE

    def __post_init__(self) -> None:
        if not 0.0 < self.top_share <= 1.0:
            raise InputError(f"a top share of {self.top_share} is none; give more than 0 and at most 1")


@dataclass(frozen=True)
class Grid:
    """The voxels of a volume, and how its slices lie in them.

    shape: voxels along the file's axes i, j, k; header: 348 or 540 bytes of a NIfTI header for 16-bit values with
    this shape and the volume's place in space, without any text; axis: the one along which slices follow one
    another; flipped: the first slice has the last index; rows, columns: the axes that run down and to the right in
    a slice, with flip_rows and flip_columns where they run against the file; sides: of a voxel down a slice and to
    the right, mm.
    """

    shape: tuple[int, int, int]
    header: bytes
    axis: int = 2
    flipped: bool = False
    rows: int = 1
    columns: int = 0
    flip_rows: bool = False
    flip_columns: bool = False
    sides: tuple[float, float] = (1.0, 1.0)

    def voxel_index(self, slice_index: int) -> int:
        """Index along `axis` of a slice, both from 0."""
        return self.shape[self.axis] - 1 - slice_index if self.flipped else slice_index

    @property
    def slice_shape(self) -> tuple[int, int]:
        """(H, W) voxels of a slice as it is seen."""
        return self.shape[self.rows], self.shape[self.columns]

    def view(self, volume: NDArray[np.generic], slice_index: int) -> NDArray[np.generic]:
        """The slice of a volume (i, j, k) as it is seen, (H, W): a view, to read from or to write to."""
        first, _ = (axis for axis in range(3) if axis != self.axis)
        cut: list[slice | int] = [slice(None)] * 3
        cut[self.axis] = self.voxel_index(slice_index)
        seen = volume[tuple(cut)]  # the two remaining axes, in the file's order
        if first != self.rows:
            seen = seen.T
        return seen[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


class Source(Protocol):
    """A volume that can be read slice by slice. Plain data: it can be sent to another process."""

    def read(self, index: int, max_pixels: int) -> NDArray[np.uint8]:
        """(H, W, 3) of the slice `index`, from 0, one pixel a voxel.

        Raises:
            ImageError: the slice cannot be read; the message holds nothing of the file's own text.
        """
        ...


@dataclass(frozen=True)
class Slice(ImageFile):
    """One slice as an image of a run. mark: hides the file's time, which may be that of an examination."""

    source: Source
    index: int
    sides: tuple[float, float] = (1.0, 1.0)
    mark: bytes | None = None

    def decode(self, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
        """(H, W, 3) with square pixels: slices of voxels that are longer one way are stretched that way."""
        pixels = self.source.read(self.index, max_pixels)
        size = stretched(pixels.shape[:2], self.sides)
        check_size((size[1], size[0]), max_pixels)
        if size == pixels.shape[:2]:
            return pixels
        return np.array(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR))

    def state(self) -> tuple[int, int]:
        """As an image's; the time under a mark."""
        size, mtime = super().state()
        return (size, mtime) if self.mark is None else (size, int(digest(self.mark, str(mtime).encode())[:12], 16))

    def content(self, hash_of: Callable[[Path], str | None] = content_hash) -> str | None:
        """A hash of the file and the slice; under a mark it does not tell which file that was."""
        try:
            whole = _hash_of_file(self.path, super().state())
        except OSError:
            return None
        return None if whole is None else digest(self.mark or b"", whole.encode(), str(self.index).encode())


@dataclass(frozen=True)
class Refused:
    """The source of what cannot be read at all."""

    reason: str

    def read(self, index: int, max_pixels: int) -> NDArray[np.uint8]:
        """Never returns.

        Raises:
            ImageError: always, with the reason.
        """
        raise ImageError(self.reason)


@dataclass(frozen=True)
class Volume:
    """One volume of a run. slices: in order; grid: None for pages of a TIFF; notes: what a reader should know."""

    name: str
    kind: Kind
    slices: tuple[Slice, ...]
    grid: Grid | None = None
    notes: tuple[str, ...] = ()
    reason: str | None = None  # why there is nothing to read


@dataclass(frozen=True)
class VolumeSet(ImageSet):
    """The images of a run that has volumes among them; `files` are all images and slices, in order."""

    volumes: tuple[Volume, ...] = ()
    options: VolumeOptions = field(default_factory=VolumeOptions)
    salt: bytes | None = field(default=None, repr=False)  # the run's key where names and root are neutral; see `names`

    @property
    def hidden(self) -> bool:
        """Whether names and root say nothing about the files."""
        return self.salt is not None

    def sources(self) -> list[tuple[str, Path]]:
        """The name of every row with the file it stands for: the one table that tells who is who."""
        return [(file.name, file.path) for file in self.files]

    def facts(self) -> dict[str, Any]:
        """What results depend on, for run.json."""
        window = self.options.window
        return {"window": None if window is None else [window.centre, window.width], "plane": self.options.plane}


@lru_cache(maxsize=64)
def _hash_of_file(path: Path, state: tuple[int, int]) -> str | None:
    """One pass over a file, however many slices ask for it."""
    return content_hash(path)


def stretched(shape: tuple[int, ...], sides: tuple[float, float]) -> tuple[int, int]:
    """(H, W) at which voxels of these sides (down, right) look square; never smaller than the slice.

    >>> stretched((100, 200), (5.0, 1.0))
    (500, 200)
    """
    down, right = sides
    ratio = down / right if down > 0 and right > 0 else 1.0
    if not 1 + _SQUARE < max(ratio, 1 / ratio) <= MAX_STRETCH:
        return shape[0], shape[1]
    return (round(shape[0] * ratio), shape[1]) if ratio > 1 else (shape[0], round(shape[1] / ratio))
