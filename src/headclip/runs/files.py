"""Names of the files in a run folder, and how they are written: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from headclip.data.run_folder import RUN_JSON as RUN_JSON
from headclip.errors import HeadclipError
from headclip.files import scratch_folder
from headclip.forcing import force_file, force_names

JOURNAL = "progress.jsonl"
CSV_TABLE = "results.csv"
PARQUET_TABLE = "results.parquet"
REPORT = "report.html"
REGIONS = "regions.jsonl"
LABELS = "labels.csv"
MARKS = "marks.sqlite"
SHARDS = "shards"
MAPS, OVERLAYS, PREVIEWS, MASKS, TEMPORARY = "maps", "overlays", "previews", "masks", ".tmp"
VOLUMES, SLICES = "volumes", "slices"  # names of tables; the anomaly volumes lie in a folder of the first
OWN_NAMES = frozenset(
    {RUN_JSON, JOURNAL, CSV_TABLE, PARQUET_TABLE, REPORT, REGIONS, LABELS, MARKS, SHARDS}
    | {MAPS, OVERLAYS, PREVIEWS, MASKS, TEMPORARY}
    | {VOLUMES, *(f"{name}.{end}" for name in (VOLUMES, SLICES) for end in ("csv", "parquet"))}
)
"""What a run folder may hold of the run's own."""
_NAME_BYTES = 255  # longest file name of the common file systems
_PROOF_BYTES = 65_536  # as many as run.json and the first lines of a journal may need
_counter = itertools.count()
_process = secrets.token_hex(4)  # process ids repeat on machines that share a disk


class RunFolderError(HeadclipError):
    """A run folder cannot be used or written."""


class RunFileNameError(RunFolderError):
    """One file of a run cannot be written because of its name; the others can."""


def map_file(name: str) -> str:
    """Where the map of the image `name` lies below the run folder.

    The image's extension stays in the name, so that `a.png` and `a.jpg` do not meet.

    >>> map_file("shelf/a.jpg")
    'maps/shelf/a.jpg.png'
    """
    return _placed(MAPS, name, ".png")


def overlay_file(name: str) -> str:
    """Where the overlay of the image `name` lies below the run folder."""
    return _placed(OVERLAYS, name, ".jpg")


def preview_file(name: str) -> str:
    """Where the reduced copy of the image `name` lies below the run folder."""
    return _placed(PREVIEWS, name, ".jpg")


def mask_file(name: str) -> str:
    """Where the mask of the regions of the image `name` lies below the run folder, if it has any."""
    return _placed(MASKS, name, ".png")


def volume_file(name: str, extension: str) -> str:
    """Where the anomaly volume of the volume `name` lies below the run folder."""
    return _placed("volumes", name, f".anomaly{extension}")


def write_atomic(folder: Path, name: str, content: bytes, *, force: bool = False) -> None:
    """Put `content` at `folder / name`. Even after a kill, there is the old file, the new one, or none.

    force: the same after a power failure; it takes milliseconds, too many for each map.

    Raises:
        RunFolderError: the file cannot be written; a full disk says so.
    """
    place_file(folder, name, lambda temporary: temporary.write_bytes(content), force=force)


def write_pieces(folder: Path, name: str, pieces: Iterable[str]) -> None:
    """`write_atomic`, with `force`, for text that is made on the way."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            handle.writelines(pieces)

    place_file(folder, name, write, force=True)


def take_file(source: Path, folder: Path, name: str) -> None:
    """Let `folder / name` have the content of another finished file: a link where the file system can, else a copy.

    The files of a run are only ever replaced, never changed in place, so that a link is as good as a copy.

    Raises:
        RunFolderError: the source is missing, or the file cannot be written.
    """
    if not source.is_file():
        raise RunFolderError(f"{source} is missing; --resume of the run it belongs to makes it again")
    with contextlib.suppress(OSError):
        if (folder / name).samefile(source):
            return
    place_file(folder, name, lambda temporary: _link_or_copy(source, temporary))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


def place_file(folder: Path, name: str, write: Callable[[Path], object], *, force: bool = False) -> None:
    """Put a file at `folder / name` by letting `write` write it under another name first. force: as `write_atomic`.

    Raises:
        RunFolderError: it cannot be written.
    """
    target = folder / name
    temporary = folder / TEMPORARY / f"{os.getpid()}-{_process}-{next(_counter)}"
    try:
        for parent in (temporary.parent, target.parent):
            if not parent.is_dir():  # asking is several times cheaper than making what is there
                parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        if force:
            force_file(temporary)
        temporary.replace(target)
        if force:
            force_names(target.parent)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise RunFileNameError(f"another image's files stand where {name} should be written") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise RunFileNameError(f"the path of {name} is too long for the run folder") from error
        raise RunFolderError(f"cannot write {target}: {error.strerror}; mend that and go on with --resume") from error


def prove_writable(folder: Path) -> None:
    """Write something into a run folder and take it away again, before what is there is given up for new results.

    Raises:
        RunFolderError: that cannot be done, there or in a folder of its pictures; nothing has changed.
    """
    for place in (folder, *(folder / name for name in (MAPS, OVERLAYS, PREVIEWS, MASKS))):
        if not place.is_dir():
            continue
        try:
            with scratch_folder(place) as scratch:
                (scratch / "proof").write_bytes(bytes(_PROOF_BYTES))
        except OSError as error:
            raise RunFolderError(
                f"cannot write to {place}: {error.strerror}; the run in it is untouched; mend that, or choose another "
                "--out"
            ) from error


def _placed(folder: str, name: str, extension: str) -> str:
    path = PurePosixPath(name)
    last = path.name
    if len(last.encode()) + len(extension) > _NAME_BYTES:
        digest = hashlib.sha256(last.encode()).hexdigest()[:16]
        last = last.encode()[: _NAME_BYTES - 32].decode(errors="ignore") + "~" + digest
    return str(PurePosixPath(folder) / path.parent / (last + extension))
