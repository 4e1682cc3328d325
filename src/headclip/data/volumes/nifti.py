"""NIfTI-1 and NIfTI-2 in one file (.nii, .nii.gz): read slice by slice, seen along canonical axes.

The affine says which way the patient lies. A slice is shown as radiologists see it: the patient's right on the left
in axial and coronal slices, the face to the left in sagittal ones, head or face up. The voxels are never resampled.
"""

from __future__ import annotations

import gzip
import tempfile
import threading
import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from headclip.data.decode import check_size
from headclip.data.volumes.model import MAX_SLICES, Grid, VolumeOptions
from headclip.data.volumes.quiet import plain_errors, quietly
from headclip.data.volumes.window import Window, percentile_window, sampled
from headclip.errors import ImageError, InputError

_PLANES = ("sagittal", "coronal", "axial")  # slices along the canonical axes R, A, S
_LONGEST_SIDE = 2**15 - 1  # of NIfTI-1
_CHUNK = 1 << 20
_KEPT_FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z", "xyzt_units"),
)
_lock = threading.RLock()


@dataclass(frozen=True)
class NiftiSource:
    """The slices of one file. offset: of the voxels, bytes; slope, intercept: from stored to real values."""

    path: Path
    state: tuple[int, int]
    grid: Grid
    dtype: str
    offset: int
    slope: float
    intercept: float
    window: Window | None = None

    def read(self, index: int, max_pixels: int) -> NDArray[np.uint8]:
        """(H, W, 3) of a slice; the window given, else percentiles of the volume.

        Raises:
            ImageError: the voxels cannot be read, none of them is a number, or the slice has a refused size.
        """
        height, width = self.grid.slice_shape
        check_size((width, height), max_pixels)
        with _plain_errors():
            values = self.values(index)
            if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).any():
                raise ImageError("no voxel of the slice is a finite number")
            grey = (self.window or _window_of(self)).apply(values)
        return np.repeat(grey[..., None], 3, axis=2)

    def values(self, index: int) -> NDArray[Any]:
        """(H, W) real values of a slice as it is seen."""
        with _lock:
            handle = _opened(self.path, self.state, self.offset, self._bytes)
            voxels = np.memmap(handle, self.dtype, "r", self.offset, self.grid.shape, "F")  # (i, j, k)
            stored = np.array(self.grid.view(voxels, index))  # a copy: the mapping ends here
        if (self.slope, self.intercept) == (1.0, 0.0):
            return stored
        return stored.astype(np.float64) * self.slope + self.intercept

    @property
    def _bytes(self) -> int:
        return int(np.prod(self.grid.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def is_nifti_name(path: Path) -> bool:
    """Whether a file is called .nii or .nii.gz."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def open_nifti(path: Path, state: tuple[int, int], options: VolumeOptions) -> tuple[NiftiSource, tuple[str, ...]]:
    """Read the header, and nothing else; with notes on what it leaves open.

    Raises:
        ImageError: the file is no NIfTI volume, is damaged, has too many dimensions or voxels.
        InputError: nibabel is not installed.
    """
    nibabel = require_nibabel()
    with _plain_errors(), quietly("nibabel"):
        header = _read_header(nibabel, path)
        shape, dtype = _checked_shape(header, options.max_voxels), header.get_data_dtype()
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise ImageError("the voxels are colours or complex numbers; headclip reads plain whole or real numbers")
        offset = int(header.get_data_offset())
        size = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if not _is_gzip(path) and path.stat().st_size < size:
            raise ImageError(f"the header claims {_times(shape)} voxels, {size:,} bytes; the file has fewer")
        slope, intercept = _scaling(header)
        clean, affine, notes = _clean_header(header, shape)
        grid = _grid(nibabel, shape, clean.binaryblock, affine, options)
    count = grid.shape[grid.axis]
    if count > MAX_SLICES:
        raise ImageError(f"{count:,} slices are more than {MAX_SLICES:,}")
    source = NiftiSource(path, state, grid, dtype.str, offset, slope, intercept, options.window)
    return source, notes


def output_header(
    nibabel: Any, shape: tuple[int, ...], zooms: tuple[float, ...], affine: NDArray[np.float64] | None
) -> bytes:
    """A header for 16-bit map values in [0, 1]: no text, no date; affine: voxel indices to mm, R, A, S.

    Of version 2 where a side is longer than version 1 can say.
    """
    header = nibabel.Nifti1Header() if max(shape) <= _LONGEST_SIDE else nibabel.Nifti2Header()
    _describe(header, shape, zooms)
    if affine is not None:
        header.set_sform(affine, code=1)
        header.set_qform(affine, code=1, strip_shears=True)
    header.set_xyzt_units("mm")
    return bytes(header.binaryblock)


def require_nibabel() -> Any:
    """The package nibabel.

    Raises:
        InputError: it is not installed.
    """
    try:
        import nibabel
    except ImportError:
        raise InputError(
            "NIfTI volumes need the package nibabel: pip install 'headclip[nifti]' "
            "(or name the images alone, by a quoted glob)"
        ) from None
    return nibabel


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def _read_header(nibabel: Any, path: Path) -> Any:
    with gzip.open(path) if _is_gzip(path) else path.open("rb") as handle:
        head = handle.read(540)
    if len(head) < 348:
        raise ImageError("the NIfTI header ends too early")
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    kinds = {348: (nibabel.Nifti1Header, head[344:348], b"n+1\0"), 540: (nibabel.Nifti2Header, head[4:8], b"n+2\0")}
    for size, (kind, magic, wanted) in kinds.items():
        if size in sizes and len(head) >= size:
            if magic != wanted:
                raise ImageError("not a NIfTI volume in one file (.nii); pairs of .hdr and .img have to be converted")
            return kind(head[:size], check=False)
    raise ImageError("not a NIfTI volume")


def _checked_shape(header: Any, max_voxels: int) -> tuple[int, int, int]:
    shape = [int(x) for x in header.get_data_shape()]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) > 3:
        raise ImageError(
            f"{_times(shape)} voxels have {len(shape)} dimensions; save each volume of the series as a file of its own "
            "(nibabel.funcs.four_to_three, fslsplit)"
        )
    shape += [1] * (3 - len(shape))
    if min(shape) < 1:
        raise ImageError(f"{_times(shape)} voxels are none")
    count = shape[0] * shape[1] * shape[2]  # Python's numbers: no overflow
    if count > max_voxels:
        raise ImageError(
            f"{_times(shape)} voxels are {count:,}, more than the limit of {max_voxels:,}; raise it with --max-voxels"
        )
    return shape[0], shape[1], shape[2]


def _scaling(header: Any) -> tuple[float, float]:
    """Slope and intercept from stored to real values; a slope of 0 means that there are none."""
    slope, intercept = header.get_slope_inter()
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept or 0.0))


def _clean_header(header: Any, shape: tuple[int, int, int]) -> tuple[Any, Any, tuple[str, ...]]:
    """The header of the anomaly volume: of the file's own fields only those on the place in space."""
    clean = type(header)()
    _describe(clean, shape, header.get_zooms()[:3])
    for name in _KEPT_FIELDS:
        clean[name] = header[name]
    clean["pixdim"][0] = header["pixdim"][0]  # the sign that belongs to the quaternion
    try:
        affine = np.asarray(clean.get_best_affine(), dtype=np.float64)
        sound = bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine[:3, :3])) > 1e-12
    except Exception:
        sound = False
    if not sound:
        clean = type(header)()
        _describe(clean, shape, (1.0, 1.0, 1.0))
        return clean, np.eye(4), ("the file's affine is damaged; its axes are taken as right, anterior, superior",)
    if int(clean["qform_code"]) == 0 and int(clean["sform_code"]) == 0:
        return clean, affine, ("the file does not say which way the patient lies (qform and sform codes 0)",)
    return clean, affine, ()


def _describe(header: Any, shape: tuple[int, ...], zooms: tuple[float, ...]) -> None:
    header.set_data_dtype(np.uint16)
    header.set_data_shape(shape)
    sound = [float(z) if np.isfinite(z) and z > 0 else 1.0 for z in zooms]
    header.set_zooms(sound + [1.0] * (3 - len(sound)))
    header.set_slope_inter(1.0 / 65535.0, 0.0)
    header["vox_offset"] = int(header["sizeof_hdr"]) + 4
    header["magic"] = b"n+1" if int(header["sizeof_hdr"]) == 348 else b"n+2"


def _grid(
    nibabel: Any,
    shape: tuple[int, int, int],
    header: bytes,
    affine: NDArray[np.float64],
    options: VolumeOptions,
) -> Grid:
    """Which axis of the file is which of the patient's, and which way each runs."""
    orientation = nibabel.io_orientation(affine)  # (3, 2): for i, j, k the canonical axis, and 1 or -1
    axis_of = {int(canonical): i for i, (canonical, _) in enumerate(orientation)}
    runs = {i: int(direction) for i, (_, direction) in enumerate(orientation)}
    sides = np.linalg.norm(affine[:3, :3], axis=0)  # mm
    axis = axis_of[_PLANES.index(options.plane)] if options.plane else _acquired(shape, sides, axis_of[2])
    plane = _PLANES[int(orientation[axis][0])]
    # Down and to the right, as canonical axes with the direction in which they run on the screen.
    down, right = {"axial": ((1, -1), (0, -1)), "coronal": ((2, -1), (0, -1)), "sagittal": ((2, -1), (1, -1))}[plane]
    rows, columns = axis_of[down[0]], axis_of[right[0]]
    return Grid(
        shape,
        header,
        axis,
        runs[axis] < 0,
        rows,
        columns,
        runs[rows] != down[1],
        runs[columns] != right[1],
        (float(sides[rows]), float(sides[columns])),
    )


def _acquired(shape: tuple[int, int, int], sides: NDArray[np.float64], axial: int) -> int:
    """The axis along which slices were most likely taken: the only one of length 1, else the coarsest, else axial."""
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0]
    coarsest = int(np.argmax(sides))
    return coarsest if sides[coarsest] > 1.05 * sides[axial] else axial


@lru_cache(maxsize=2)
def _opened(path: Path, state: tuple[int, int], offset: int, size: int) -> IO[bytes]:
    """The file, or its unpacked content in a nameless temporary file; never more than the header claims."""
    if not _is_gzip(path):
        return path.open("rb")
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - stays open for the next slices
    left = offset + size
    with gzip.open(path) as packed:
        while left > 0 and (chunk := packed.read(min(_CHUNK, left))):
            unpacked.write(chunk)
            left -= len(chunk)
    if left:
        raise ImageError("the voxels end too early: the file is cut off")
    unpacked.flush()
    return unpacked


@lru_cache(maxsize=64)
def _window_of(source: NiftiSource) -> Window:
    count = source.grid.shape[source.grid.axis]
    window = percentile_window(source.values(index) for index in sampled(count))
    if window is None:
        raise ImageError("no voxel of the volume is a finite number")
    return window


def _times(shape: list[int] | tuple[int, ...]) -> str:
    return " x ".join(f"{x:,}" for x in shape)


def _plain_errors() -> AbstractContextManager[None]:
    """Whatever goes wrong in words that quote nothing."""
    return plain_errors(
        "NIfTI",
        "volume",
        (EOFError, gzip.BadGzipFile, zlib.error),
        "the compressed NIfTI data is damaged or cut off",
        "the NIfTI data is damaged or not supported",
    )
