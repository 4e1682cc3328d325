"""Inputs to a run's images, with many-page TIFF, NIfTI and DICOM taken apart into slices."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from headclip.data.discover import ImageFile, ImageSet, discover, is_image_name, printable
from headclip.data.volumes import dicom, nifti, tiff
from headclip.data.volumes.model import Grid, Kind, Refused, Slice, Source, Volume, VolumeOptions, VolumeSet
from headclip.data.volumes.names import HIDDEN, content_of, digest, neutral
from headclip.data.volumes.series import Instance, Series, read_instances, sort_series
from headclip.errors import ImageError, InputError

_MAP_OF = {"tiff": "page", "nifti": "slice", "dicom": "slice"}


def is_wanted(path: Path) -> bool:
    """Whether a file of a folder is an image or a volume: by its extension, or by DICOM's mark where it has none."""
    return is_image_name(path) or nifti.is_nifti_name(path) or is_dicom(path)


def is_dicom(path: Path) -> bool:
    """By extension; files without one, or called after a number as scanners do, by their first bytes."""
    suffix = path.suffix.lower()
    if suffix in dicom.EXTENSIONS:
        return True
    if (suffix and not suffix[1:].isdigit()) or path.name.upper() == "DICOMDIR":
        return False
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return False
        with path.open("rb") as handle:
            return dicom.has_dicom_mark(handle.read(132))
    except OSError:
        return False


def discover_volumes(
    inputs: Sequence[str | Path],
    options: VolumeOptions,
    salt: Callable[[], bytes],
) -> ImageSet:
    """As `discover`, for volumes too; a plain `ImageSet` where there is none.

    DICOM and NIfTI get names that say nothing (see `names`), and so does the root, unless `options.keep_names`.
    Files that cannot be read stay in the list and say why when they are decoded.

    Args:
        salt: the run's key; asked for only where it is needed.

    Raises:
        InputError: as `discover`; a package for a format that is met is not installed; a plane for a DICOM series.
    """
    found = discover(inputs, wanted=is_wanted)
    reader = _Reader(found, options, salt)
    for file in found:
        reader.take(file)
    return reader.result()


def open_volume(path: str | Path, options: VolumeOptions) -> Volume:
    """One volume: a TIFF, a NIfTI file, a DICOM file, or a folder with one DICOM series.

    Raises:
        InputError: there is none, or more than one.
        ImageError: it cannot be read.
    """
    options = replace(options, keep_names=True)
    images = discover_volumes([path], options, lambda: b"")
    volumes = images.volumes if isinstance(images, VolumeSet) else ()
    if len(volumes) != 1 or len(volumes[0].slices) != len(images):
        raise InputError(f"{path} holds {len(volumes)} volumes and {len(images)} images or slices; name one volume")
    if volumes[0].reason is not None:
        raise ImageError(f"{path}: {volumes[0].reason}")
    return volumes[0]


class _Reader:
    """Takes files in order; DICOM files wait for one another and come where the first of them stood."""

    def __init__(self, images: ImageSet, options: VolumeOptions, salt: Callable[[], bytes]) -> None:
        self._images = images
        self._options = options
        self._salt = salt
        self._files: list[ImageFile | None] = []  # None: where the DICOM series go
        self._volumes: list[Volume] = []
        self._instances: list[Instance] = []
        self._broken: list[tuple[ImageFile, str]] = []
        self._names: set[str] = set()
        self._hidden = False

    def take(self, file: ImageFile) -> None:
        """Look at one file."""
        kind: Kind | None = "nifti" if nifti.is_nifti_name(file.path) else "dicom" if is_dicom(file.path) else None
        if kind is not None and not os.path.isfile(file.path):  # noqa: PTH113 - unlike the method, it never raises
            self._add(self._refused(kind, file, "the file does not exist, or is not a regular file", add=False))
        elif kind == "nifti":
            self._add(self._nifti(file))
        elif kind == "dicom":
            self._dicom(file)
        else:
            pages = tiff.tiff_pages(file.path) if file.path.suffix.lower() in tiff.EXTENSIONS else ()
            if len(pages) < 2:
                self._files.append(file)
                return
            source = tiff.TiffSource(file.path, pages, file.state(), self._options.window)
            files = [file.path] * len(pages)
            self._add(self._volume("tiff", file.name, files, source, None, ()))

    def result(self) -> ImageSet:
        """All that was taken."""
        series = sort_series(self._instances)
        if self._options.plane is not None and series:
            raise InputError("--plane cuts NIfTI; a DICOM series is judged as acquired (dcm2niix makes NIfTI of it)")
        waiting: list[ImageFile] = []
        for one in series:
            waiting += self._series(one)
        for file, reason in self._broken:
            waiting += self._refused("dicom", file, reason).slices
        if not self._volumes:
            return self._images
        files: list[ImageFile] = []
        for slot in self._files:
            files += waiting if slot is None else [slot]
        root = self._images.root
        if self._hidden:
            root = Path(HIDDEN) / digest(self._salt(), str(root).encode("utf-8", "surrogateescape"))[:10]
        salt = self._salt() if self._hidden else None
        passed_over = self._images.passed_over
        return VolumeSet(root, tuple(files), tuple(self._volumes), self._options, salt, passed_over=passed_over)

    def _nifti(self, file: ImageFile) -> Volume:
        try:
            state = file.state()
            source, notes = nifti.open_nifti(file.path, state, self._options)
        except (ImageError, OSError) as error:
            reason = str(error) if isinstance(error, ImageError) else f"the file cannot be read: {error.strerror}"
            return self._refused("nifti", file, reason, add=False)
        count = source.grid.shape[source.grid.axis]
        name = file.name if self._options.keep_names else self._neutral(file)
        return self._volume("nifti", name, [file.path] * count, source, source.grid, notes)

    def _dicom(self, file: ImageFile) -> None:
        if None not in self._files:
            self._files.append(None)
        try:
            self._instances += read_instances(file.path, self._options.max_voxels)
        except ImageError as error:
            self._broken.append((file, str(error)))

    def _series(self, series: Series) -> list[ImageFile]:
        """The slices of a series; what is no part of it follows as failures."""
        salt = self._salt()
        first = series.slices[0].path
        parts = [series.identity.encode()] if series.slices[0].series else [content_of(first)]
        name = self._folder_name(first) if self._options.keep_names else neutral(salt, *parts)
        paths = list(dict.fromkeys(instance.path for instance in series.slices))
        place = {path: index for index, path in enumerate(paths)}
        frames = tuple((place[instance.path], instance.frame) for instance in series.slices)
        source = dicom.DicomSource(tuple(paths), frames, self._options.window, self._options.keep_names)
        files = [instance.path for instance in series.slices]
        volume = self._volume("dicom", name, files, source, series.grid, series.notes)
        self._volumes.append(volume)
        odd = [
            Slice(
                instance.path,
                f"{volume.name}/left-out-{number:04d}",
                Refused(reason),
                0,
                mark=self._mark(),
            )
            for number, (instance, reason) in enumerate(series.left_out, start=1)
        ]
        return [*volume.slices, *odd]

    def _add(self, volume: Volume) -> None:
        self._volumes.append(volume)
        self._files += volume.slices

    def _volume(
        self, kind: Kind, name: str, files: Sequence[Path], source: Source, grid: Grid | None, notes: tuple[str, ...]
    ) -> Volume:
        name = self._unique(name)
        mark = None if kind == "tiff" else self._mark()
        sides = (1.0, 1.0) if grid is None else grid.sides
        slices = tuple(
            Slice(path, f"{name}/{_MAP_OF[kind]}-{index + 1:04d}", source, index, sides, mark)
            for index, path in enumerate(files)
        )
        return Volume(name, kind, slices, grid, notes)

    def _refused(self, kind: Kind, file: ImageFile, reason: str, *, add: bool = True) -> Volume:
        """A file that is no volume, as a volume of one slice that says so."""
        name = self._unique(file.name if self._options.keep_names else self._neutral(file))
        broken = Slice(file.path, name, Refused(reason), 0, mark=self._mark())
        volume = Volume(name, kind, (broken,), reason=reason)
        if add:
            self._volumes.append(volume)
        return volume

    def _neutral(self, file: ImageFile) -> str:
        try:
            return neutral(self._salt(), content_of(file.path))
        except ImageError:  # nothing to go by but its place
            return neutral(self._salt(), str(file.path).encode("utf-8", "surrogateescape"))

    def _mark(self) -> bytes | None:
        """The run's key where patients' files are hidden behind it."""
        if self._options.keep_names:
            return None
        self._hidden = True
        return self._salt()

    def _folder_name(self, path: Path) -> str:
        folder = path.parent
        if folder == self._images.root or not folder.is_relative_to(self._images.root):
            return printable(folder.name or "series")
        return printable(folder.relative_to(self._images.root).as_posix())

    def _unique(self, name: str) -> str:
        """Two copies of one volume get two names."""
        chosen, number = name, 1
        while chosen in self._names:
            number += 1
            chosen = f"{name}-{number}"
        self._names.add(chosen)
        return chosen
