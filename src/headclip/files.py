"""Files that appear whole or not at all, and their fingerprints."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from headclip.errors import InputError, OutputError
from headclip.forcing import force_names

_ADVICE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room in your quota",
    errno.EFBIG: "raise the limit for the size of files",
    errno.EROFS: "choose a place that is not read-only",
    errno.EACCES: "get permission or choose another place",
    errno.EPERM: "get permission or choose another place",
    errno.ELOOP: "mend the link, which leads to itself",
    errno.ENAMETOOLONG: "choose shorter names",
}
_UNUSABLE = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG})
MAX_JSON = 256 << 20  # bytes of a JSON document that is read whole
_STEM_BYTES = 200  # of a target's name in that of its partial file; file systems take 255 for the whole


def _pid_namespace() -> str:
    """Of this process: containers may share a folder and a host's name, and count their processes apart."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - the link leads to no file
    except OSError:
        return ""


_HOST = hashlib.sha256(f"{socket.gethostname()} {_pid_namespace()}".encode()).hexdigest()[:8]  # who counts our PIDs
_swept: set[Path] = set()


def write_atomically(path: Path, content: bytes | str, *, follow: bool = False, private: bool = False) -> None:
    """Write beside the target, force to disk, then rename over it; missing folders are made.

    Args:
        follow, private: as for `whole_file`.

    Raises:
        OutputError: the file cannot be written; there is the old one, or none, and never a part of the new one.
    """
    with whole_file(path, follow=follow, private=private) as handle:
        handle.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole_file(path: Path, *, follow: bool = False, private: bool = False) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` in one step when the block ends without an error; from then on
    it outlasts a power failure.

    What killed processes left of earlier attempts is taken away.

    Args:
        follow: for a path that the user named. The file behind a link is replaced, and the link stays; a pipe or a
            device is written to as it is, for a file in its place would be of no use to whoever reads from it, and
            `/dev/null` would be gone for everybody. Not for a name in a folder that may come from somebody else, where
            a link could lead anywhere: there the new file takes the link's place.
        private: nobody but its owner may read the file, not even while it is being written.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        if follow and _is_special(path):
            with path.open("wb") as handle:
                yield handle
            return
        target = Path(os.path.realpath(path)) if follow and path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        partial = target.with_name(_shortened(target.name) + _partial())
        try:
            with open(partial, "wb", opener=_for_owner if private else None) as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            partial.replace(target)
            force_names(target.parent)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def _for_owner(path: str, flags: int) -> int:
    """Open a new file that only its owner may read."""
    return os.open(path, flags, 0o600)


def _is_special(path: Path) -> bool:
    """Whether there is a pipe or a device at `path`, or behind it, rather than a file, a folder or nothing.

    Raises:
        OSError: that cannot be told, as of a link that leads back to itself.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _shortened(name: str) -> str:
    """The start of a name, so that what is put after it does not make it longer than file systems take."""
    return name.encode("utf-8", "surrogateescape")[:_STEM_BYTES].decode("utf-8", "ignore")


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder below `parent` for what is not finished; gone at the end, or, after a kill, with the next writing."""
    folder = parent / (".work" + _partial())
    _sweep(parent)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _partial() -> str:
    """The end of a name that counts for nothing yet; it says whose it is."""
    return f".{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.partial"


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error to raise where `path` could not be written."""
    if isinstance(error, OutputError):
        return error
    advice = _ADVICE.get(error.errno or 0, "choose another place, or mend that")
    words = f"cannot write {path}: {error.strerror or error}; {advice} and repeat the command"
    return OutputError(f"{words}, with --resume if it has that", error)


def prove_place(path: Path) -> None:
    """Find out whether `whole_file(path, follow=True)` could put a file there.

    For before the minutes of work whose result it is to hold. Nothing is left there, and no folder is made; that it
    can be written in the end is not promised, for disks fill up.

    Raises:
        OutputError: it could not; it says why.
    """
    try:
        if _is_special(path):
            return
        target = Path(os.path.realpath(path))
        parent = next(parent for parent in target.parents if parent.exists())
        with scratch_folder(parent):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_use(path: str | Path, error: OSError) -> InputError:
    """The error to raise where something that a user named cannot be looked at."""
    advice = _ADVICE.get(error.errno or 0, "mend that, or name something else")
    return InputError(f"cannot use {error.filename or path}: {error.strerror or error}; {advice}")


def is_unusable(error: OSError) -> bool:
    """Whether it is a place's fault that it cannot be used: forbidden, a link to itself, or too long a name."""
    return error.errno in _UNUSABLE and error.filename is not None


def expanded(path: str | Path) -> Path:
    """A path with the home folder for a leading `~`; names that merely begin like that, as `~tmp.png`, stay."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - the method raises where there is no such user


def _sweep(folder: Path) -> None:
    """Remove partial files whose writers, processes of this machine, are gone; once a folder and process."""
    if folder in _swept:
        return
    _swept.add(folder)
    with suppress(OSError):
        for litter in folder.glob(f"*.{_HOST}-*.partial"):
            writer = re.search(r"-(\d+)-[0-9a-f]{8}\.partial$", litter.name)
            if writer is not None and not _is_running(int(writer.group(1))):
                shutil.rmtree(litter) if litter.is_dir() else litter.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Whether a process of that number exists here; where that cannot be asked, True."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def parse_json(text: str | bytes) -> Any:
    """`json.loads` of text that somebody else wrote: whatever is wrong with it is a ValueError, its nesting too."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def load_json(path: Path, limit: int = MAX_JSON) -> Any:
    """The JSON of a file of at most `limit` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, not UTF-8 or no JSON.
    """
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"it has {size:,} bytes, more than {limit:,}")
    return parse_json(path.read_text(encoding="utf-8-sig"))


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def content_hash(path: Path) -> str | None:
    """SHA-256 (hex) of a regular file; None where it cannot be read, or would never end, such as a pipe."""
    try:
        return file_hash(path) if stat.S_ISREG(path.stat().st_mode) else None
    except OSError:
        return None


def results_in(out: Path, name: str, mark: str, kind: str) -> dict[str, Any] | None:
    """What the results file `name` of a folder to write to holds; None where the folder is empty or does not exist.

    Args:
        mark: "format" of results of ours. kind: what they are, for the message.

    Raises:
        InputError: `out` is a file, or holds something else.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out needs a folder")
    if not out.exists() or not any(out.iterdir()):
        return None
    try:
        found = load_json(out / name)
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != mark:
        raise InputError(f"{out} is not empty and holds no {kind}; choose an empty or a new folder")
    return found
