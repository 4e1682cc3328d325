"""One mask image for each judged image: white inside regions; and where exports may be written at all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from headclip.data.discover import stored_path
from headclip.errors import InputError
from headclip.files import write_atomically
from headclip.runs.files import MASKS, OWN_NAMES, RunFolderError, mask_file
from headclip.runs.pictures import encode_mask, read_png
from headclip.runs.run import Row, Run


def write_masks(run: Run, rows: Sequence[Row], out: Path, *, overwrite: bool = False) -> int:
    """A PNG for each row below `out`, under the image's own name (`mask_names`); how many there are.

    Raises:
        InputError: as `check_folder`.
        RunFolderError: a mask of the run is missing or damaged.
    """
    names = mask_names(row.path for row in run.ok)
    check_folder(run, out, [out / names[row.path] for row in rows], overwrite=overwrite)
    for row in rows:
        write_atomically(out / names[row.path], encode_mask(read_mask(run, row)))
    return len(rows)


def mask_names(images: Iterable[str]) -> dict[str, str]:
    """A file name for the mask of each image: its own with .png for its extension, or, where that would be another's
    name too (on some system that takes large for small letters), or that of a folder, with .png after it.

    >>> mask_names(["sub/a.jpg", "b.jpg", "b.bmp", "b.jpg.tif"])
    {'sub/a.jpg': 'sub/a.png', 'b.jpg': 'b.jpg.png', 'b.bmp': 'b.bmp.png', 'b.jpg.tif': 'b.jpg.tif.png'}
    """
    long = {name: str(PurePosixPath(mask_file(name)).relative_to(MASKS)) for name in images}
    names = {name: str(PurePosixPath(name).with_suffix(".png")) for name in long}
    while True:
        taken = Counter(name.casefold() for name in names.values())
        taken.update({str(folder).casefold() for name in names.values() for folder in PurePosixPath(name).parents})
        meeting = [name for name in names if taken[names[name].casefold()] > 1 and names[name] != long[name]]
        if not meeting:
            return names
        names |= {name: long[name] for name in meeting}  # which may be what another's short name is


def check_folder(run: Run, out: Path, targets: Iterable[Path], *, overwrite: bool = False) -> None:
    """Whether masks may be written below `out`. They have the images' names, so that the wrong folder loses images.

    Raises:
        InputError: `out` is a file, the folder of the images, or in the run folder; it holds something, and not
            `overwrite`; or a target is an image of the run.
    """
    place = Path(os.path.realpath(out))
    if place.exists() and not place.is_dir():
        raise InputError(f"{out} is a file; masks need a folder")
    if place.is_relative_to(os.path.realpath(run.folder)):
        raise InputError(f"{out} is in the run folder, which has masks of its own; choose a folder outside of it")
    if place == Path(os.path.realpath(stored_path(run.facts["root"]))):
        raise InputError(f"{out} is the folder of the images, which the masks would overwrite; choose another")
    if not overwrite and place.is_dir() and any(place.iterdir()):
        raise InputError(
            f"{out} is not empty; choose an empty or a new folder, or --overwrite, by which masks replace files "
            "of their names there"
        )
    refuse_images(run, targets)


def check_file(run: Run, out: Path) -> None:
    """Whether regions may be written to the file `out`.

    Raises:
        InputError: it is where the run has a file of its own, or an image of the run.
    """
    place, folder = Path(os.path.realpath(out)), os.path.realpath(run.folder)
    if place.is_relative_to(folder) and place.relative_to(folder).parts[:1] in {(name,) for name in OWN_NAMES}:
        raise InputError(f"{out} is the place of a file of the run itself; choose another name")
    refuse_images(run, [out])


def refuse_images(run: Run, targets: Iterable[Path]) -> None:
    """Raise InputError where a target is an image that the run judged, by whatever way it leads there."""
    wanted = {os.path.realpath(target): target for target in targets if target.exists()}
    for row in run.rows if wanted else ():
        image = os.path.realpath(run.image_path(row))
        if image in wanted:
            raise InputError(f"{wanted[image]} is an image that the run judged; choose another --out")


def read_mask(run: Run, row: Row) -> NDArray[np.bool_]:
    """(H, W): the pixels of all regions of an image.

    Raises:
        RunFolderError: the mask is missing or damaged.
    """
    if not row.regions:
        return np.zeros((row.height or 1, row.width or 1), dtype=bool)
    try:
        return read_png(run.mask_path(row)) > 0
    except (OSError, SyntaxError, ValueError) as error:
        raise RunFolderError(
            f"cannot read the mask {run.mask_path(row)}: {error}; `headclip rejudge` makes it again"
        ) from error
