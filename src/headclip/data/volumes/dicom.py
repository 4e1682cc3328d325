"""Pixels of DICOM files: rescaled, windowed, upright in grey, and nothing of the header's text.

Only the elements listed here are ever read, so no identifier gets into memory, let alone into a result. Errors never
quote the file: pydicom's messages may hold values.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headclip.data.decode import check_size
from headclip.data.volumes.quiet import plain_errors, quietly
from headclip.data.volumes.window import Window, percentile_window, sampled
from headclip.errors import ImageError, InputError

EXTENSIONS = frozenset({".dcm", ".dicom", ".ima"})
BURNED_IN = (
    "the file says that identifiers may be burned into its pixels (BurnedInAnnotation YES), and previews would show "
    "them; blank them, or allow it with --keep-names"
)
_DEFLATED = "1.2.840.10008.1.2.1.99"
_JPEG = "pip install pylibjpeg pylibjpeg-libjpeg"
_J2K = "pip install pylibjpeg pylibjpeg-openjpeg"
_DECODERS = {  # what unpacks which transfer syntax, DICOM PS3.6 table A-1
    "1.2.840.10008.1.2.4.50": ("JPEG", _JPEG),
    "1.2.840.10008.1.2.4.51": ("JPEG of 12 bits", _JPEG),
    "1.2.840.10008.1.2.4.57": ("lossless JPEG", _JPEG),
    "1.2.840.10008.1.2.4.70": ("lossless JPEG", _JPEG),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", "pip install pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", "pip install pyjpegls"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000", _J2K),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", _J2K),
    "1.2.840.10008.1.2.4.201": ("high-throughput JPEG 2000", _J2K),
    "1.2.840.10008.1.2.4.202": ("high-throughput JPEG 2000", _J2K),
    "1.2.840.10008.1.2.4.203": ("high-throughput JPEG 2000", _J2K),
}
_TAGS = (
    *("SOPInstanceUID", "SeriesInstanceUID", "InstanceNumber", "BurnedInAnnotation"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices", "SliceThickness"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor"),
    *("BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_lock = threading.RLock()


@dataclass(frozen=True)
class DicomSource:
    """Slices of a series or frames of one file. frames: (file, frame) in order, the file by its place in paths."""

    paths: tuple[Path, ...]
    frames: tuple[tuple[int, int], ...]
    window: Window | None = None
    keep_names: bool = False

    def read(self, index: int, max_pixels: int) -> NDArray[np.uint8]:
        """(H, W, 3) of a slice: the window given, else the file's, else percentiles of the volume.

        Raises:
            ImageError: the pixels are missing, damaged, compressed in a way that nothing here unpacks, or too many.
            InputError: pydicom is not installed.
        """
        file, frame = self.frames[index]
        pydicom = require_pydicom()
        with _lock, plain_dicom_errors(), quietly("pydicom"):
            header = read_header(pydicom, self.paths[file])
            if header.get("BurnedInAnnotation") == "YES" and not self.keep_names:
                raise ImageError(BURNED_IN)
            check_size((int(header.Columns), int(header.Rows)), max_pixels)
            stored = _stored(pydicom, header, self.paths[file], frame)
            if stored.ndim == 3:  # (H, W, 3)
                return _eight_bits(stored, int(header.BitsStored))
            if header.get("PhotometricInterpretation") == "PALETTE COLOR":
                return _palette(pydicom, stored, header)
            grey = self._grey(pydicom, stored, header, frame)
            if header.get("PhotometricInterpretation") == "MONOCHROME1":
                grey = np.uint8(255) - grey
        return np.repeat(grey[..., None], 3, axis=2)

    def _grey(self, pydicom: Any, stored: NDArray[Any], header: Any, frame: int) -> NDArray[np.uint8]:
        values = _rescaled(pydicom, stored, header, frame)
        if self.window is None and not frame_value(header, frame, "FrameVOILUTSequence", "WindowCenter"):
            if header.get("VOILUTSequence"):
                bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
                return _eight_bits(pydicom.pixels.apply_voi(values.astype(np.int64), header), bits)
            if int(header.BitsStored) <= 8 and stored.dtype.kind == "u" and values is stored:
                return _eight_bits(stored, int(header.BitsStored))
        window = self.window or _stated_window(header, frame) or _window_of(self)
        return window.apply(values)


def require_pydicom() -> Any:
    """The package pydicom.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pydicom
        import pydicom.pixels
    except ImportError:
        raise InputError(
            "DICOM files need the package pydicom: pip install 'headclip[dicom]' "
            "(or name the images alone, by a quoted glob)"
        ) from None
    return pydicom


def read_header(pydicom: Any, path: Path) -> Any:
    """The listed elements of a file that has pixels.

    Raises:
        ImageError: it is no DICOM image. Anything of pydicom's: it is damaged.
    """
    status = path.stat()
    return _header(pydicom.__version__, path, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=16)
def _header(version: str, path: Path, state: tuple[int, int]) -> Any:
    """Of enhanced files with hundreds of frames, parsing it takes longer than a frame."""
    import pydicom

    with path.open("rb") as handle:
        if not has_dicom_mark(handle.read(132)):
            raise ImageError("not a DICOM file (no DICM mark after 128 bytes)")
    syntax = str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", ""))
    if syntax == _DEFLATED:  # would be unpacked as a whole, whatever its size
        raise ImageError("the DICOM file is deflated as a whole; unpack it first (dcmconv +te)")
    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    if "Rows" not in header or "Columns" not in header:
        raise ImageError("the DICOM file holds no image (no pixel data)")
    return header


def has_dicom_mark(head: bytes) -> bool:
    """Whether the first 132 bytes of a file are those of DICOM."""
    return head[128:132] == b"DICM"


def frame_value(header: Any, frame: int, group: str, name: str) -> Any:
    """An element of a frame: its own, that of all frames, or that of a file with one frame; None where absent."""
    for sequence, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        groups = header.get(sequence) or []
        inner = groups[place].get(group) if place < len(groups) else None
        if inner and inner[0].get(name) is not None:
            return inner[0].get(name)
    value = header.get(name)
    return None if value is None or value == "" else value


def frame_count(header: Any) -> int:
    """The frames that the file states; at least 1."""
    return max(1, int(header.get("NumberOfFrames") or 1))


def _stored(pydicom: Any, header: Any, path: Path, frame: int) -> NDArray[Any]:
    """(H, W) or (H, W, 3) as stored, colours as RGB."""
    syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    try:
        return np.asarray(pydicom.pixels.pixel_array(path, index=frame))
    except (AttributeError, KeyError):
        raise ImageError("the DICOM file holds no image (no pixel data)") from None
    except (RuntimeError, NotImplementedError):
        if syntax not in _DECODERS:
            raise ImageError("the pixels are compressed in a way that pydicom does not know") from None
        kind, remedy = _DECODERS[syntax]
        raise ImageError(f"the pixels are damaged, or compressed as {kind} without a decoder: {remedy}") from None


def _rescaled(pydicom: Any, stored: NDArray[Any], header: Any, frame: int) -> NDArray[Any]:
    """Stored values in the units of the scanner (PS3.3 C.11.1), such as Hounsfield units."""
    if header.get("ModalityLUTSequence"):
        return np.asarray(pydicom.pixels.apply_modality_lut(stored, header))
    slope = frame_value(header, frame, "PixelValueTransformationSequence", "RescaleSlope")
    intercept = frame_value(header, frame, "PixelValueTransformationSequence", "RescaleIntercept")
    if slope is None or intercept is None or (float(slope), float(intercept)) == (1.0, 0.0):
        return stored
    return stored.astype(np.float64) * float(slope) + float(intercept)


def _stated_window(header: Any, frame: int) -> Window | None:
    """The first of the windows that the file states."""
    centre = _first(frame_value(header, frame, "FrameVOILUTSequence", "WindowCenter"))
    width = _first(frame_value(header, frame, "FrameVOILUTSequence", "WindowWidth"))
    if centre is None or width is None or not (np.isfinite([centre, width]).all() and width > 0):
        return None
    function = str(frame_value(header, frame, "FrameVOILUTSequence", "VOILUTFunction") or "LINEAR").strip().upper()
    known = function if function in ("LINEAR", "LINEAR_EXACT", "SIGMOID") else "LINEAR"
    return Window(centre, width, known)  # type: ignore[arg-type]


def _first(value: Any) -> float | None:
    if value is None or isinstance(value, str | bytes):
        return None
    try:
        return float(value)
    except TypeError:  # several values
        return float(value[0]) if len(value) else None


@lru_cache(maxsize=64)
def _window_of(source: DicomSource) -> Window:
    """Percentiles of the volume, for files that state no window."""
    pydicom = require_pydicom()

    def values() -> Iterator[NDArray[Any]]:
        for index in sampled(len(source.frames)):
            file, frame = source.frames[index]
            try:
                header = read_header(pydicom, source.paths[file])
                yield _rescaled(pydicom, _stored(pydicom, header, source.paths[file], frame), header, frame)
            except Exception:  # that slice becomes a row with its reason; the window does without it
                continue

    window = percentile_window(values())
    if window is None:
        raise ImageError("no slice of the series has readable pixels")
    return window


def _palette(pydicom: Any, stored: NDArray[Any], header: Any) -> NDArray[np.uint8]:
    colours = pydicom.pixels.apply_color_lut(stored, header)[..., :3]
    return _eight_bits(colours, 8 * colours.dtype.itemsize)


def _eight_bits(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Whole numbers of so many bits -> uint8; (H, W) stays (H, W)."""
    scale = 255.0 / ((1 << max(1, bits)) - 1)
    return np.rint(np.clip(values.astype(np.float64) * scale, 0.0, 255.0)).astype(np.uint8)


def plain_dicom_errors() -> AbstractContextManager[None]:
    """Whatever goes wrong with a DICOM file, in words that quote nothing of it."""
    return plain_errors(
        "DICOM",
        "DICOM file",
        (EOFError, struct.error),
        "the DICOM data is cut off: it ends too early",
        "the DICOM data is damaged, cut off or not supported",
    )
