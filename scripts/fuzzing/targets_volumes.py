"""Volumes: NIfTI, DICOM, TIFF of many pages. Each is found, opened and read slice by slice, and put back together."""

from __future__ import annotations

import gzip
import io
import itertools
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzzing.mutate import INTEGERS, damage_bytes, damage_tiff
from fuzzing.targets import MAX_PIXELS, Target, fresh
from fuzzing.targets_runs import Brightness

MAX_VOXELS = 4_000_000
_MOST_SLICES = 6  # read of one volume


def make(folder: Path) -> list[Target]:
    """The targets; those of formats whose package is not installed are left out."""
    fresh(folder)
    targets = [Target("volume TIFF", tiff_seeds(), (damage_bytes, damage_pages, damage_pages), _read(folder, "a.tif"))]
    try:
        import nibabel
    except ImportError:
        return targets
    plain = nifti_seeds(nibabel)
    packed = [gzip.compress(content, 1, mtime=0) for content in plain]
    targets += [
        Target("volume NIfTI", plain, (damage_bytes, damage_nifti, damage_nifti), _read(folder, "a.nii")),
        Target("volume NIfTI.gz", packed, (damage_bytes, damage_packed, damage_packed), _read(folder, "a.nii.gz")),
    ]
    try:
        import pydicom
    except ImportError:
        return targets
    damages = (damage_bytes, damage_dicom, damage_dicom)
    return [*targets, Target("volume DICOM", dicom_seeds(pydicom), damages, _read(folder, "a.dcm", beside=True))]


def _read(folder: Path, name: str, beside: bool = False) -> Callable[[bytes], None]:
    """Judge the file as `headclip predict` would. beside: a sound file of the same series lies beside it."""
    from headclip.data.volumes.find import discover_volumes
    from headclip.data.volumes.model import VolumeOptions, VolumeSet
    from headclip.inference.volumes_predict import predict_volume

    place = fresh(folder / name.replace(".", "-"))
    options, numbers = VolumeOptions(max_voxels=MAX_VOXELS), itertools.count(1)

    def read(content: bytes) -> None:
        number = next(numbers)  # a name of its own: what is kept open of a file is known by its name, size and time
        (place / f"{number - 1}-{name}").unlink(missing_ok=True)
        file = place / f"{number}-{name}"
        file.write_bytes(content)
        images = discover_volumes([place], options, lambda: b"s" * 32)
        if isinstance(images, VolumeSet):
            for volume in images.volumes:
                assert volume.reason is None or volume.reason.strip(), "refused without a word"
        for one in images.files[:_MOST_SLICES]:
            pixels = _decoded(one)
            assert pixels is None or (pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3)
        if len(images) <= _MOST_SLICES:
            predict_volume(Brightness(), file, options, max_pixels=MAX_PIXELS)

    if beside:
        import pydicom

        (place / "b.dcm").write_bytes(dicom_seeds(pydicom)[1])
    return read


def _decoded(file: Any) -> Any:
    from headclip.errors import HeadclipError

    try:
        return file.decode(MAX_PIXELS)
    except HeadclipError as error:
        if not str(error).strip():
            raise AssertionError("refused without a word") from error
        return None


# --- sound files


def tiff_seeds() -> list[bytes]:
    """Pages of 8 and 16 bits and floats, packed and not, with a reduced copy."""
    rng = np.random.default_rng(0)
    deep = [Image.fromarray(rng.integers(0, 65535, (12, 16), dtype=np.uint16)) for _ in range(3)]
    floats = [Image.fromarray(rng.random((12, 16)).astype(np.float32)) for _ in range(2)]
    colour = [Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)) for _ in range(3)]
    kinds: list[tuple[list[Image.Image], dict[str, Any]]] = [
        (deep, {}), (deep, {"compression": "tiff_adobe_deflate"}), (floats, {}), (colour, {}),
        (colour, {"compression": "tiff_lzw"}), (colour, {"big_tiff": True}),
    ]  # fmt: skip
    found = []
    for pages, options in kinds:
        buffer = io.BytesIO()
        pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:], **options)
        found.append(buffer.getvalue())
    return found


def nifti_seeds(nibabel: Any) -> list[bytes]:
    """Of both versions, several types, an oblique affine, a slope."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(-1000, 1000, (12, 9, 8))
    oblique = np.array([[0, -2.0, 0.1, 5], [1.5, 0, 0, 2], [0, 0.2, 4, -9], [0, 0, 0, 1]])
    images = [
        nibabel.Nifti1Image(voxels.astype(np.int16), np.eye(4)),
        nibabel.Nifti1Image(voxels.astype(np.float32), oblique),
        nibabel.Nifti1Image(np.abs(voxels).astype(np.uint8), None),
        nibabel.Nifti2Image(voxels.astype(np.float64), oblique),
    ]
    images[0].header.set_slope_inter(2.0, -3.0)
    return [image.to_bytes() for image in images]


def dicom_seeds(pydicom: Any) -> list[bytes]:
    """One slice in several forms, the next slice of its series, and frames in one file."""
    from pydicom.dataset import FileDataset, FileMetaDataset

    rng = np.random.default_rng(0)

    def one(pixels: Any, **elements: Any) -> bytes:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{elements.get('InstanceNumber', 1)}"
        meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        known = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        bits = 8 * pixels.dtype.itemsize
        plain = {
            "SOPClassUID": meta.MediaStorageSOPClassUID, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "SeriesInstanceUID": "1.2.3", "InstanceNumber": 1, "Rows": 10, "Columns": 12, "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1,
            "PixelRepresentation": 0, "PixelSpacing": [0.5, 0.7], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [0, 0, 0], "SliceThickness": 3, "PixelData": pixels.tobytes(),
        }  # fmt: skip
        for name, value in (plain | elements).items():
            setattr(known, name, value)
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, known, enforce_file_format=True)
        return buffer.getvalue()

    grey = rng.integers(0, 4000, (10, 12), dtype=np.uint16)
    window = {"WindowCenter": [40, 300], "WindowWidth": [80, 1500], "RescaleSlope": 1, "RescaleIntercept": -1024}
    colour = rng.integers(0, 255, (10, 12, 3), dtype=np.uint8)
    place = {"InstanceNumber": 2, "ImagePositionPatient": [0, 0, 3]}
    return [
        one(grey, **window),
        one(grey, **window, **place),
        one(grey, PhotometricInterpretation="MONOCHROME1"),
        one(colour, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0),
        one(rng.integers(0, 255, (3, 10, 12), dtype=np.uint8), NumberOfFrames=3),
    ]


# --- damage along their structure


def damage_pages(content: bytes, chance: random.Random) -> bytes:
    """The directory of the first page, or the chain from one page to the next: loops, and places that are not there."""
    if chance.random() < 0.6 or content[:4] != b"II*\0":
        return damage_tiff(content, chance)
    data, links = bytearray(content), []
    place = 4
    while len(links) < 20:
        links.append(place)
        (directory,) = struct.unpack_from("<I", data, place)
        if not directory:
            break
        (count,) = struct.unpack_from("<H", data, directory)
        place = directory + 2 + 12 * count
    targets = [0, 4, 8, len(data), *(struct.unpack_from("<I", data, link)[0] for link in links), *INTEGERS]
    struct.pack_into("<I", data, chance.choice(links), chance.choice(targets) & 0xFFFFFFFF)
    return bytes(data)


_NIFTI_FIELDS = {  # offset and code of fields of version 1 (348 bytes) and 2 (540 bytes)
    348: ((40, "h", 8), (70, "h", 2), (76, "f", 8), (108, "f", 3), (123, "b", 1), (252, "h", 2), (256, "f", 18)),
    540: ((12, "h", 2), (16, "q", 8), (104, "d", 8), (168, "q", 1), (176, "d", 2), (344, "i", 2), (352, "d", 18)),
}


def damage_nifti(content: bytes, chance: random.Random) -> bytes:
    """Dimensions, types, offsets, scales and affines."""
    data = bytearray(content)
    fields = _NIFTI_FIELDS.get(int.from_bytes(content[:4], "little"))
    if fields is None or len(data) < 540:
        return damage_bytes(content, chance)
    for _ in range(chance.choice((1, 1, 2, 4))):
        offset, code, count = chance.choice(fields)
        size = struct.calcsize("<" + code)
        place = offset + size * chance.randrange(count)
        if code in "fd":
            value: Any = chance.choice((0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -0.0, 348.0, 1e9))
            struct.pack_into("<" + code, data, place, value)
        else:
            whole = chance.choice((*INTEGERS, -1, 3, 4, 5, 16, 64, 512, 2**15 - 1, 2**62))
            data[place : place + size] = (whole % 256**size).to_bytes(size, "little")
    return bytes(data)


def damage_packed(content: bytes, chance: random.Random) -> bytes:
    """Damage inside a gzip file whose check sums are right; or far more data than the header claims."""
    inner = damage_nifti(gzip.decompress(content), chance)
    if chance.random() < 0.1:
        inner += bytes(chance.choice((1 << 10, 16 << 20)))
    return gzip.compress(inner, 1, mtime=0)


_TAGS = (
    (0x28, 0x02), (0x28, 0x04), (0x28, 0x06), (0x28, 0x08), (0x28, 0x10), (0x28, 0x11), (0x28, 0x30), (0x28, 0x100),
    (0x28, 0x101), (0x28, 0x102), (0x28, 0x103), (0x28, 0x1050), (0x28, 0x1051), (0x28, 0x1052), (0x28, 0x1053),
    (0x20, 0x13), (0x20, 0x32), (0x20, 0x37), (0x18, 0x50), (0x08, 0x18), (0x7FE0, 0x10), (0x02, 0x10),
)  # fmt: skip
_WORDS = (
    b"", b"0", b"-1", b"99999999", b"nan", b"inf", b"1e400", b"a\\b", b"1\\2\\3\\4\\5\\6", b"\\", b"PALETTE COLOR",
    b"YBR_FULL_422", b"RGB", b"MONOCHROME1", b"\xff\xfe", b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.5", b"\0\0", b"\xff\xff", b"\0\x80",
)  # fmt: skip


def damage_dicom(content: bytes, chance: random.Random) -> bytes:
    """The value, the kind or the length of an element that matters."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 3))):
        place = data.find(struct.pack("<HH", *chance.choice(_TAGS)), 132)
        if place < 0 or place + 12 > len(data):
            continue
        long = bytes(data[place + 4 : place + 6]) in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        head, code = (12, "<I") if long else (8, "<H")
        (size,) = struct.unpack_from(code, data, place + head - struct.calcsize(code))
        what = chance.randrange(4)
        if what == 0:
            data[place + 4 : place + 6] = chance.choice((b"US", b"DS", b"IS", b"CS", b"SQ", b"UN", b"OW", b"FD", b"??"))
        elif what == 1:
            value = chance.choice(INTEGERS) & (0xFFFFFFFF if long else 0xFFFF)
            struct.pack_into(code, data, place + head - struct.calcsize(code), value)
        elif what == 2:
            word = chance.choice(_WORDS)
            word += b" " * (len(word) % 2)
            struct.pack_into(code, data, place + head - struct.calcsize(code), len(word))
            data[place + head : place + head + size] = word
        else:
            del data[place : place + head + size]
    return bytes(data)
