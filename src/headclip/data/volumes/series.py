"""From DICOM files to series: which files belong together, in which order, and where they lie in the patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headclip.data.volumes.dicom import (
    frame_count,
    frame_value,
    plain_dicom_errors,
    read_header,
    require_pydicom,
)
from headclip.data.volumes.model import MAX_SLICES, Grid
from headclip.data.volumes.nifti import output_header
from headclip.data.volumes.quiet import quietly
from headclip.errors import ImageError

_EVEN = 0.01  # gaps that differ by less than this share of the mean are even
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts to the patient's left, back and head

_COPY = "another file is the same slice (SOP Instance UID); this one is left out"

Vector = tuple[float, ...]


@dataclass(frozen=True)
class Instance:
    """One frame of one file, as far as order and place go. uid, series: for grouping in memory, never written."""

    path: Path
    frame: int
    frames: int
    shape: tuple[int, int]
    number: int
    position: Vector | None  # mm, of the centre of the first voxel: left, posterior, superior
    orientation: Vector | None  # directions of a row and of a column
    spacing: tuple[float, float] | None  # mm between rows, between columns
    gap: float | None  # mm between slices, as stated
    uid: str = field(repr=False, default="")
    series: str = field(repr=False, default="")


@dataclass(frozen=True)
class Series:
    """Slices in order; left_out: what is not part of the volume, each with the reason; identity: what it is known by
    in memory, also when slices are added to it."""

    identity: str = field(repr=False)
    slices: tuple[Instance, ...]
    left_out: tuple[tuple[Instance, str], ...]
    grid: Grid
    notes: tuple[str, ...]


def read_instances(path: Path, max_voxels: int) -> list[Instance]:
    """The frames of a file.

    Raises:
        ImageError: it is no DICOM image, is damaged or claims too much; the message quotes nothing of it.
        InputError: pydicom is not installed.
    """
    pydicom = require_pydicom()
    with plain_dicom_errors(), quietly("pydicom"):
        header = read_header(pydicom, path)
        frames = frame_count(header)
        shape = (int(header.Rows), int(header.Columns))
        if frames > MAX_SLICES:
            raise ImageError(f"{frames:,} frames are more than {MAX_SLICES:,}")
        if frames * shape[0] * shape[1] > max_voxels:
            raise ImageError(
                f"{shape[1]:,} x {shape[0]:,} x {frames:,} voxels are more than the limit of {max_voxels:,}; "
                "raise it with --max-voxels"
            )
        return [_instance(header, path, frame, frames, shape) for frame in range(frames)]


def sort_series(instances: Sequence[Instance]) -> list[Series]:
    """Group frames into series, in the order in which they were met; copies of an instance are left out.

    A file with several frames is a series of its own, and so are slices of another orientation.
    """
    groups: dict[tuple[Any, ...], list[Instance]] = {}
    copies: dict[tuple[Any, ...], list[Instance]] = {}
    first: dict[tuple[str, int], tuple[Any, ...]] = {}  # to which series an instance went
    for instance in instances:
        known = first.get((instance.uid, instance.frame)) if instance.uid else None
        if known is not None:
            copies.setdefault(known, []).append(instance)
            continue
        own = instance.uid if instance.frames > 1 else ""
        key = (instance.series, own, None if own else _rounded(instance.orientation))
        first[instance.uid, instance.frame] = key
        groups.setdefault(key, []).append(instance)
    return [_series(group, copies.get(key, [])) for key, group in groups.items()]


def _series(group: list[Instance], copies: list[Instance]) -> Series:
    shape = Counter(instance.shape for instance in group).most_common(1)[0][0]
    same = [instance for instance in group if instance.shape == shape]
    notes = [f"{len(copies)} slice(s) were there twice"] if copies else []
    ordered, places = _in_order(same, notes)
    grid = _grid(ordered, places, shape, notes)
    odd = [instance for instance in group if instance.shape != shape]
    if odd:
        notes.append(f"{len(odd)} slice(s) of another size are not part of the volume")
    left_out = [(one, f"{_size(one.shape)} pixels, where the series has {_size(shape)}") for one in odd]
    identity = repr((group[0].series, group[0].uid if group[0].frames > 1 else "", _rounded(group[0].orientation)))
    return Series(identity, tuple(ordered), (*left_out, *((one, _COPY) for one in copies)), grid, tuple(notes))


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]} x {shape[0]}"


def _in_order(group: list[Instance], notes: list[str]) -> tuple[list[Instance], NDArray[np.float64] | None]:
    """Sorted along the normal, with the distances (mm) along it; None without positions of one orientation."""
    oriented = {_rounded(instance.orientation) for instance in group}
    if None in oriented or len(oriented) > 1 or any(instance.position is None for instance in group):
        multiple = group[0].frames > 1
        notes.append(
            "no positions in the patient are stated: "
            + ("frames are in the file's order" if multiple else "slices are in the order of their numbers")
            + ", and the anomaly volume cannot be laid over others"
        )
        return sorted(group, key=lambda one: (one.number, one.frame)), None
    along = _along(group)
    order = sorted(range(len(group)), key=lambda i: (along[i], group[i].number, group[i].frame))
    return [group[i] for i in order], along[order]


def _along(group: list[Instance]) -> NDArray[np.float64]:
    """(n,) distance of each slice along the normal, mm."""
    directions = np.asarray(group[0].orientation, dtype=np.float64).reshape(2, 3)
    normal = np.cross(directions[0], directions[1])
    return np.asarray([instance.position for instance in group], dtype=np.float64) @ normal


def _grid(group: list[Instance], along: NDArray[np.float64] | None, shape: tuple[int, int], notes: list[str]) -> Grid:
    """Voxels i (to the right), j (down), k (from slice to slice), and the affine from them to the patient."""
    import nibabel

    first, count = group[0], len(group)
    spacing = first.spacing or (1.0, 1.0)
    if first.spacing is None:
        notes.append("no pixel spacing is stated: 1 mm is taken")
    step = abs(first.gap) if first.gap else 1.0
    affine = None
    if along is not None:
        place = np.eye(4)
        directions = np.asarray(first.orientation, dtype=np.float64).reshape(2, 3)
        place[:3, 0] = directions[0] * spacing[1]  # to the right in the slice: the direction of a row
        place[:3, 1] = directions[1] * spacing[0]
        place[:3, 2] = np.cross(directions[0], directions[1]) * step
        if count > 1:
            positions = np.asarray([instance.position for instance in group], dtype=np.float64)  # (n, 3)
            place[:3, 2] = (positions[-1] - positions[0]) / (count - 1)  # of a tilted gantry not the normal
            _check_gaps(along, notes)
        place[:3, 3] = first.position
        affine = _TO_RAS @ place
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            affine = None
            notes.append("the slices do not lie one behind another: the anomaly volume cannot be laid over others")
        else:
            step = float(np.linalg.norm(place[:3, 2]))
    size = (shape[1], shape[0], count)
    with quietly("nibabel"):
        header = output_header(nibabel, size, (spacing[1], spacing[0], step), affine)
    return Grid(size, header, sides=spacing)


def _check_gaps(along: NDArray[np.float64], notes: list[str]) -> None:
    gaps = np.diff(along)
    if (gaps < 1e-6).any():
        notes.append("several slices share one position (times or echoes of one series?)")
    elif np.abs(gaps - gaps.mean()).max() > _EVEN * gaps.mean():
        off = np.abs(along - along[0] - gaps.mean() * np.arange(len(along))).max()
        notes.append(
            f"slices are {gaps.min():.2f} to {gaps.max():.2f} mm apart; NIfTI has one distance, {gaps.mean():.2f} mm, "
            f"so that slices lie up to {off:.2f} mm off"
        )


def _instance(header: Any, path: Path, frame: int, frames: int, shape: tuple[int, int]) -> Instance:
    spacing = _numbers(frame_value(header, frame, "PixelMeasuresSequence", "PixelSpacing"), 2)
    gap = frame_value(header, frame, "PixelMeasuresSequence", "SpacingBetweenSlices")
    gap = gap or frame_value(header, frame, "PixelMeasuresSequence", "SliceThickness")
    sound = spacing is not None and min(spacing) > 0
    orientation = _numbers(frame_value(header, frame, "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    return Instance(
        path,
        frame,
        frames,
        shape,
        int(header.get("InstanceNumber") or 0),
        _numbers(frame_value(header, frame, "PlanePositionSequence", "ImagePositionPatient"), 3),
        orientation if orientation is not None and _is_rotation(orientation) else None,
        (spacing[0], spacing[1]) if spacing is not None and sound else None,
        float(gap) if gap else None,
        str(header.get("SOPInstanceUID", "")),
        str(header.get("SeriesInstanceUID", "")),
    )


def _is_rotation(orientation: Vector) -> bool:
    """Whether the two directions have length 1 and are at right angles, within what rounding does to them."""
    row, column = np.asarray(orientation).reshape(2, 3)
    return bool(abs(row @ row - 1) < 0.01 and abs(column @ column - 1) < 0.01 and abs(row @ column) < 0.01)


def _rounded(orientation: Vector | None) -> Vector | None:
    return None if orientation is None else tuple(round(x, 2) + 0.0 for x in orientation)


def _numbers(value: Any, count: int) -> Vector | None:
    """So many finite numbers, else None."""
    try:
        numbers = tuple(float(x) for x in value)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None
