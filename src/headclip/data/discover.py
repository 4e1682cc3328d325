"""From files, folders and globs to an ordered list of images with names that are unique in a run."""

from __future__ import annotations

import glob
import itertools
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headclip.data.decode import DEFAULT_MAX_PIXELS, decode
from headclip.data.formats import AVIF_ENDINGS, EXTENSIONS, HEIC_ENDINGS, KINDS
from headclip.data.run_folder import is_run_folder, refuse_run
from headclip.errors import InputError
from headclip.files import cannot_use, content_hash, expanded

_OTHER = frozenset(
    {*HEIC_ENDINGS, *AVIF_ENDINGS, ".gif", ".jp2", ".jxl", ".psd", ".svg", ".pdf", ".raw", ".dng", ".cr2", ".nef"}
    | {".arw", ".mp4", ".mov", ".avi", ".mkv", ".zip", ".npy", ".mat", ".h5", ".nii", ".gz", ".dcm"}
)
Unlisted = dict[Path, str]
"""Subfolders that could not be looked into, and why."""
_VOLUMES = frozenset({".nii", ".gz", ".dcm"})  # which `headclip predict` takes apart


@dataclass(frozen=True)
class ImageFile:
    """One image: where it is, and its name in the run, relative to the root, with `/` on every system."""

    path: Path
    name: str

    def decode(self, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
        """(H, W, 3) uint8; see `headclip.data.decode.decode`."""
        return decode(self.path, max_pixels=max_pixels)

    def state(self) -> tuple[int, int]:
        """Size in bytes and time in ns of the file.

        Raises:
            OSError: it is not there.
        """
        status = self.path.stat()
        return status.st_size, status.st_mtime_ns

    def content(self, hash_of: Callable[[Path], str | None] = content_hash) -> str | None:
        """What stands for the content: SHA-256 (hex) of the file; None where it cannot be read."""
        return hash_of(self.path)


@dataclass(frozen=True)
class ImageSet:
    """The images of a run, in order; `root / name` is each one's path.

    passed_over: pictures, films and archives in the folders that were searched, which nothing here reads: "2 .heic,
        1 .mov", or "".
    """

    root: Path
    files: tuple[ImageFile, ...]
    passed_over: str = field(default="", kw_only=True, compare=False)

    @property
    def shown_root(self) -> str:
        """The root as run.json and pages hold it; `stored_path` leads back."""
        return printable(str(self.root))

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[ImageFile]:
        return iter(self.files)


def is_image_name(path: Path) -> bool:
    """Whether the extension is one of a readable format."""
    return path.suffix.lower() in EXTENSIONS


def discover(
    inputs: Sequence[str | Path],
    *,
    skip_folder: Callable[[Path], bool] | None = None,
    wanted: Callable[[Path], bool] = is_image_name,
) -> ImageSet:
    """Find the images that `inputs` name.

    A folder is searched with all its subfolders for files with an image extension; hidden files and folders, runs of
    ours, and, with a warning, subfolders that cannot be listed are left out. A glob may match files and folders, `**`
    any depth. A file named directly is always taken, so that a wrong one is reported rather than ignored. Nothing is
    taken twice. Names are relative to the input, or, with several inputs, to the folder that holds them all, so they
    cannot collide.

    Args:
        inputs: files, folders and globs, in the order wanted; within each the order is natural (2 before 10).
        skip_folder: subfolders for which this is true are not entered either.
        wanted: which files of a folder or a glob are taken.

    Raises:
        InputError: nothing is given; an input is empty, does not exist, cannot be listed, is a run or holds no image.
    """
    if not inputs:
        raise InputError("no input given; name an image, a folder or a quoted glob")
    bases: list[Path] = []
    found: dict[str, None] = {}  # ordered and without repetition
    others: Counter[str] = Counter()
    unlisted: Unlisted = {}
    for entry in inputs:
        if str(entry) == "":
            raise InputError("an input is empty; name an image, a folder or a quoted glob (. is the current folder)")
        base, paths, left = _expand(str(entry), skip_folder, wanted, unlisted)
        bases.append(base)
        found.update(dict.fromkeys(str(path) for path in paths))
        others += left
    root = _common_root(bases)
    files = tuple(ImageFile(Path(path), _name(Path(path), root)) for path in found)
    unread = Counter({kind: count for kind, count in others.items() if kind not in _VOLUMES})
    if unlisted:
        warnings.warn(f"passed over, for they cannot be looked into: {told(unlisted)}", stacklevel=2)
    return ImageSet(root, files, passed_over=_listed(unread))


def find_images(
    folder: Path,
    *,
    skip_folder: Callable[[Path], bool] | None = None,
    wanted: Callable[[Path], bool] = is_image_name,
    unlisted: Unlisted | None = None,
) -> list[Path]:
    """Every image file under `folder`, by extension, in natural order; links are followed, loops are not.

    Runs of ours among the subfolders are left out: their maps and overlays are no images of anything.

    unlisted: takes the subfolders that cannot be listed, such as lost+found; without it they are an error too.

    Raises:
        InputError: a folder cannot be listed.
    """
    paths: list[Path] = []
    pending = [(folder, frozenset({os.path.realpath(folder)}))]
    while pending:
        current, ancestors = pending.pop()
        try:
            entries = _entries(current)
        except InputError as error:
            _pass_over(current, error, None if current == folder else unlisted)
            continue
        for entry in entries:
            path = Path(entry.path)
            try:
                if not _is_folder(entry):
                    paths += [path] if wanted(path) else []
                    continue
                real = os.path.realpath(path)
                if real not in ancestors and not is_run_folder(path) and not (skip_folder and skip_folder(path)):
                    pending.append((path, ancestors | {real}))
            except InputError as error:
                _pass_over(path, error, unlisted)
    return sorted(paths, key=natural_key)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot list the folder {folder}: {error.strerror}") from error


def _pass_over(folder: Path, error: InputError, unlisted: Unlisted | None) -> None:
    """Note a subfolder that cannot be looked into; without a place for notes that is an error."""
    if unlisted is None:
        raise error
    cause = error.__cause__
    unlisted[folder] = (cause.strerror if isinstance(cause, OSError) else None) or str(error)


def told(unlisted: Unlisted) -> str:
    """The subfolders that were passed over, the first few by name: "/data/lost+found (Permission denied)"."""
    shown = [f"{printable(str(folder))} ({reason})" for folder, reason in itertools.islice(unlisted.items(), 3)]
    return ", ".join(shown) + (f" and {len(unlisted) - 3:,} more" if len(unlisted) > 3 else "")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether to look into it. A link that leads nowhere is a file: if it is wanted, its row says what is the matter.

    Raises:
        InputError: a link leads where we may not look, and could be a folder of images.
    """
    try:
        return entry.is_dir()
    except PermissionError as error:
        if is_image_name(Path(entry.name)):
            return False
        raise cannot_use(entry.path, error) from error
    except OSError:
        return False


def natural_key(path: str | Path) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key by which `a2` comes before `a10`, folder by folder; equal names differ by case at last.

    >>> sorted(["a10.png", "a2.png", "A3.png"], key=natural_key)
    ['a2.png', 'A3.png', 'a10.png']
    """
    text = str(path)
    parts = re.split(r"([0-9]+)", text.replace(os.sep, "\0").casefold())
    # The pattern's group makes every second part a number.
    return [(1, int(part), "") if index % 2 else (0, 0, part) for index, part in enumerate(parts)], text


def printable(text: str) -> str:
    """A file name as tables and pages can hold it: bytes that are no UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def stored_path(text: str | Path) -> Path:
    """The path that `printable` text stands for: as it is written, or with its escapes taken for bytes, where only
    that exists."""
    written = str(text)
    if "\\udc" not in written or os.path.lexists(written):
        return Path(written)
    again = re.sub(r"\\udc([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), written)
    return Path(again if os.path.lexists(again) else written)


def _expand(
    entry: str, skip_folder: Callable[[Path], bool] | None, wanted: Callable[[Path], bool], unlisted: Unlisted
) -> tuple[Path, list[Path], Counter[str]]:
    """The folder to which one input's names are relative, its images (absolute paths), and in a folder how many files
    there are of each of _OTHER; other endings may be parts of a patient's name."""
    path = _absolute(expanded(entry))
    others: Counter[str] = Counter()

    def is_taken(file: Path) -> bool:
        if wanted(file):
            return True
        if (kind := file.suffix.lower()) in _OTHER:
            others[kind] += 1
        return False

    if os.path.isdir(path):  # noqa: PTH112 - unlike the method, it never raises
        refuse_run(path)
        paths = find_images(path, skip_folder=skip_folder, wanted=is_taken, unlisted=unlisted)
        if not paths:
            instead = f"; it holds {_listed(others)}" if others else ""
            instead += f"; could not look into {told(unlisted)}" if unlisted else ""
            raise InputError(f"the folder {entry} holds no image; looked for {KINDS}, subfolders included{instead}")
        return path, paths, others
    if os.path.lexists(path):
        return path.parent, [path], others
    if glob.has_magic(entry):
        return *_expand_glob(entry, skip_folder, wanted, unlisted), others
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{entry} does not exist; check the path") from None
    except OSError as error:
        raise cannot_use(entry, error) from error
    raise InputError(f"{entry} has just appeared; repeat the command")


def _listed(kinds: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(4))


def _expand_glob(
    entry: str, skip_folder: Callable[[Path], bool] | None, wanted: Callable[[Path], bool], unlisted: Unlisted
) -> tuple[Path, list[Path]]:
    pattern = expanded(entry)
    base = _absolute(Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts)))
    matches = [_absolute(match) for match in glob.glob(str(pattern), recursive=True)]  # noqa: PTH207 - any root
    if not matches:
        raise InputError(f"nothing matches {entry}; check the pattern")
    refuse_run(base)
    skipped = cache(lambda folder: is_run_folder(folder) or bool(skip_folder and skip_folder(folder)))
    paths: set[Path] = set()
    for match in matches:
        below = [parent for parent in (match, *match.parents) if parent != base and parent.is_relative_to(base)]
        try:
            if any(map(skipped, below)):
                continue
            if os.path.isdir(match):  # noqa: PTH112 - as above
                paths.update(find_images(match, skip_folder=skip_folder, wanted=wanted, unlisted=unlisted))
            elif wanted(match):
                paths.add(match)
        except InputError as error:  # of a folder that the pattern happens to match
            _pass_over(match, error, unlisted)
    if not paths:
        raise InputError(f"{entry} matches {len(matches)} name(s), but no image; looked for {KINDS}")
    return base, sorted(paths, key=natural_key)


def _absolute(path: str | Path) -> Path:
    """Not resolve(): a link keeps the name under which the user gave it."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _common_root(bases: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath(bases))
    except ValueError:  # several drives
        return Path(bases[0].anchor)


def _name(path: Path, root: Path) -> str:
    if path.is_relative_to(root):
        return printable(path.relative_to(root).as_posix())
    return printable(path.as_posix().replace(":", ""))  # another drive: D:/x becomes D/x
