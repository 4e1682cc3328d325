"""Small volumes for the tests, made with pydicom, nibabel and Pillow; patients in them have names worth hiding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

UID = "1.2.826.0.1.3680043.8.498.7777"
SECRETS = {
    "PatientName": "Quxberry^Zebulon",
    "PatientID": "PID-90210-XK",
    "PatientBirthDate": "19470313",
    "StudyDate": "20190822",
    "AccessionNumber": "ACC55512",
    "InstitutionName": "Saint Wobble Hospital",
    "ReferringPhysicianName": "Dr^Flibbertigibbet",
    "StudyInstanceUID": f"{UID}.1",
    "SeriesInstanceUID": f"{UID}.2",
    "FrameOfReferenceUID": f"{UID}.3",
    "StudyDescription": "HEAD QUXBERRY",
}
TRACES = (
    *("quxberry", "zebulon", "90210", "19470313", "20190822", "acc55512", "wobble", "flibbertigibbet"),
    *("8.498.7777", "1947-03-13", "2019-08-22"),
)


def dicom_dataset(pixels: NDArray[Any], number: int = 1, **elements: Any) -> FileDataset:
    """A CT slice (H, W) or (H, W, 3), or frames (n, H, W), with every identifier of SECRETS."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"{UID}.4.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.InstanceNumber = number
    for name, value in SECRETS.items():
        setattr(dataset, name, value)
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    if pixels.ndim == 3 and not colour:
        dataset.NumberOfFrames = pixels.shape[0]
    rows, columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def slice_place(index: int, gap: float = 5.0) -> dict[str, Any]:
    """Where an axial slice lies: `gap` mm above the one before, pixels of 0.5 mm down and 0.5 mm right."""
    return {
        "ImagePositionPatient": [-10.0, -20.0, gap * index],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.5],
        "SliceThickness": gap,
    }


def write_series(folder: Path, volume: NDArray[np.int16], gap: float = 5.0, **elements: Any) -> Path:
    """(n, H, W) as a CT series in Hounsfield units, in files whose order is the reverse of the slices'."""
    count = len(volume)
    for index, values in enumerate(volume):
        stored = (values.astype(np.int32) + 1024).astype(np.uint16)
        place = slice_place(index, gap)
        extra = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 50, "WindowWidth": 400}
        dataset = dicom_dataset(stored, count - index, **{**place, **extra, **elements})
        save(dataset, folder / f"Quxberry_{count - index:03d}.dcm")
    return folder


def write_nifti(path: Path, voxels: NDArray[Any], affine: NDArray[Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine)
    image.header["descrip"] = b"Quxberry Zebulon 20190822"
    image.header["aux_file"] = b"PID-90210-XK"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Saint Wobble Hospital"))
    nibabel.save(image, path)
    return path


def write_tiff(path: Path, pages: list[NDArray[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.fromarray(page) for page in pages]
    images[0].save(path, save_all=True, append_images=images[1:])
    return path


def head_of(count: int = 8, size: int = 40) -> NDArray[np.int16]:
    """(n, H, W) Hounsfield units: a disc of brain in air, brighter from slice to slice."""
    y, x = np.mgrid[:size, :size]
    disc = (x - size / 2) ** 2 + (y - size / 2) ** 2 < (0.4 * size) ** 2
    return np.stack([np.where(disc, 20 + 10 * index, -1000) for index in range(count)]).astype(np.int16)
