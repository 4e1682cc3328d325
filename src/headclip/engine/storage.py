"""Files by URL: local disk, S3, GCS and Azure through pyarrow, anything else through fsspec."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from urllib.parse import unquote, urlsplit, urlunsplit

from headclip.data.discover import ImageFile, ImageSet, natural_key, printable
from headclip.data.formats import EXTENSIONS, KINDS
from headclip.data.run_folder import FORMAT, RUN_JSON, is_no_input
from headclip.engine.azure import open_azure
from headclip.errors import InputError

_ARROW = frozenset({"s3", "gs", "gcs", "abfs", "abfss"})  # pyarrow has these built in
_WHOLE = frozenset({"s3", "gs", "gcs", "abfs", "abfss", "s3a", "az", "adl"})  # an object appears whole or not at all
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # two letters or more: C:/ is a drive
_MAX_BYTES = 2**31  # of one image file; a larger object is no image that could be judged
_TRIES, _PAUSE = 4, 0.5  # seconds before the second attempt, doubled for each one after it
T = TypeVar("T")


def as_url(text: str | Path) -> str | None:
    """The URL of something that is not a local path, else None; `file:` counts as local.

    A URL that has been through `Path` has lost a slash, which is put back.

    >>> as_url(Path("s3://bucket/parts")), as_url("C:/parts"), as_url("file:///parts"), as_url("parts")
    ('s3://bucket/parts', None, None, None)
    """
    match = _SCHEME.match(str(text))
    if match is None or match[1].lower() == "file" or not _is_known(match[1].lower()):
        return None
    return f"{match[1].lower()}://{str(text)[match.end() :].lstrip('/')}"


def local_path(text: str | Path) -> Path:
    """The path of a local path or of a `file:` URL.

    >>> local_path("file:///parts/a%20b").as_posix(), local_path("parts").as_posix()
    ('/parts/a b', 'parts')
    """
    match = re.match(r"file:(?://)?(/.*)", str(text), re.IGNORECASE)
    return Path(unquote(match[1])) if match else Path(text)


def shown(url: str) -> str:
    """A URL without the parts that may hold keys, for run.json and messages.

    >>> shown("s3://KEY:SECRET@bucket/parts?endpoint_override=localhost:5000")
    's3://bucket/parts'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


@dataclass(frozen=True)
class Place:
    """A prefix in a file system. url: as it was given, with whatever opens it; pickled by that alone."""

    url: str

    @property
    def shown(self) -> str:
        """The URL as people may see it."""
        return shown(self.url)

    def read(self, name: str) -> bytes:
        """The content of a file below the prefix.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read, after several attempts; or it is too large for an image.
        """
        system, base = _open(self.url)

        def attempt() -> bytes:
            with system.open_input_file(_join(base, name)) as stream:
                if stream.size() > _MAX_BYTES:
                    raise _RefusedError(f"the file has {stream.size():,} bytes, more than {_MAX_BYTES:,}")
                return cast(bytes, stream.read())

        return _with_patience(attempt)

    def write(self, name: str, content: bytes) -> None:
        """Put a file below the prefix, whole or not at all.

        Raises:
            OSError: it cannot be written, after several attempts.
        """
        system, base = _open(self.url)
        target = _join(base, name)
        whole = urlsplit(self.url).scheme in _WHOLE
        first = target if whole else f"{target}.partial"

        def attempt() -> None:
            if not whole:
                system.create_dir(target.rpartition("/")[0], recursive=True)
            with system.open_output_stream(first) as stream:
                stream.write(content)
            if not whole:
                system.move(first, target)

        _with_patience(attempt)

    def delete(self, name: str) -> None:
        """Remove a file; none is no error."""
        system, base = _open(self.url)
        try:
            system.delete_file(_join(base, name))
        except FileNotFoundError:
            return

    def list(self, below: str = "") -> dict[str, tuple[int, int]]:
        """Size (bytes) and time (ns, 0 if unknown) of every file below `below`, by name relative to the prefix.

        Raises:
            OSError: it cannot be listed.
        """
        from pyarrow.fs import FileSelector, FileType

        system, base = _open(self.url)
        selector = FileSelector(_join(base, below) if below else base, recursive=True, allow_not_found=True)
        infos = _with_patience(lambda: system.get_file_info(selector))
        prefix = f"{base.strip('/')}/"
        return {
            info.path.strip("/").removeprefix(prefix): (info.size or 0, info.mtime_ns or 0)
            for info in infos
            if info.type == FileType.File
        }

    def is_empty(self) -> bool:
        """Whether there is nothing below the prefix."""
        from pyarrow.fs import FileSelector

        system, base = _open(self.url)
        for recursive in (False, True):  # one level does not tell of what lies deeper in Google's store
            selector = FileSelector(base, allow_not_found=True, recursive=recursive)
            if _with_patience(lambda chosen=selector: system.get_file_info(chosen)):  # type: ignore[misc]
                return False
        return True

    def size_and_time(self) -> tuple[int, int] | None:
        """Of the prefix itself where it is a file, else None."""
        from pyarrow.fs import FileType

        system, base = _open(self.url)
        info = _with_patience(lambda: system.get_file_info(base))
        return (info.size or 0, info.mtime_ns or 0) if info.type == FileType.File else None

    def above(self) -> tuple[Place, str]:
        """The prefix one level up, and the name of this one below it."""
        parts = urlsplit(self.url)
        folder, _, name = parts.path.rstrip("/").rpartition("/")
        return Place(urlunsplit(parts._replace(path=folder))), name


@dataclass(frozen=True)
class RemotePath:
    """Stands for the `Path` of an image that lies in object storage, as far as a run needs one."""

    url: str  # of the prefix, as people may see it
    inner: str  # below the prefix
    size: int
    mtime_ns: int

    def __str__(self) -> str:
        return f"{self.url}/{self.inner}"

    @property
    def parent(self) -> PurePosixPath:
        return PurePosixPath(urlsplit(self.url).path, self.inner).parent

    def resolve(self) -> RemotePath:
        return self

    def stat(self) -> Any:
        """Size and time; no mode, so that nobody opens it as a file of this machine."""
        return SimpleNamespace(st_size=self.size, st_mtime_ns=self.mtime_ns, st_mode=0)


def discover_remote(urls: Sequence[str], skip: Sequence[str] = ()) -> tuple[Place, ImageSet]:
    """Find the images below prefixes, at single objects or by patterns (`s3://bucket/line-*/**/*.png`).

    Names, order and hidden files are as `headclip.data.discover.discover` has them; folders of earlier runs and
    those below `skip` (URLs) are left out.

    Returns:
        The prefix that holds all inputs, and the images; `ImageFile.path` is a `RemotePath`.

    Raises:
        InputError: inputs in different stores, one that cannot be read or is a run, or no image.
    """
    found: list[tuple[Place, dict[str, tuple[int, int]]]] = [_expand(Place(url), skip) for url in urls]
    root = _common([place for place, _ in found])
    names: dict[str, tuple[int, int]] = {}
    for place, files in found:
        inner = urlsplit(place.url).path.rstrip("/").removeprefix(urlsplit(root.url).path.rstrip("/")).strip("/")
        names.update({f"{inner}/{name}" if inner else name: facts for name, facts in files.items()})
    paths = {name: RemotePath(root.shown, name, *facts) for name, facts in names.items()}
    images = tuple(ImageFile(cast(Path, path), printable(name)) for name, path in paths.items())
    return root, ImageSet(cast(Path, root.shown), images)


def _expand(place: Place, skip: Sequence[str]) -> tuple[Place, dict[str, tuple[int, int]]]:
    """The prefix to which one input's names are relative, and its images in natural order."""
    base, pattern = _split_pattern(place)
    try:
        single = None if pattern else base.size_and_time()
        if single is not None:
            folder, name = base.above()
            return folder, {name: single}
        files = base.list()
    except OSError as error:
        raise InputError(f"cannot list {base.shown}: {_reason(error)}; check the address and the credentials") from None
    runs = tuple(name.removesuffix(RUN_JSON) for name in files if _is_run(base, name))
    if "" in runs:
        raise is_no_input(base.shown)
    left_out = tuple(f"{url.rstrip('/')}/" for url in map(shown, skip))
    chosen = [
        name
        for name in files
        if PurePosixPath(name).suffix.lower() in EXTENSIONS
        and not any(part.startswith(".") for part in name.split("/"))
        and not name.startswith(runs)
        and not f"{base.shown}/{name}".startswith(left_out)
        and (pattern is None or pattern.fullmatch(name))
    ]
    if not chosen:
        raise InputError(f"{place.shown} holds no image; looked for {KINDS} below it")
    return base, {name: files[name] for name in sorted(chosen, key=natural_key)}


def _is_run(base: Place, name: str) -> bool:
    """Whether a file is the run.json of a run of ours."""
    if PurePosixPath(name).name != RUN_JSON:
        return False
    try:
        return f'"{FORMAT}"'.encode() in base.read(name)[:4096]
    except OSError:
        return False


def _split_pattern(place: Place) -> tuple[Place, re.Pattern[str] | None]:
    """The prefix before the first part with a wildcard, and the pattern of names below it."""
    parts = urlsplit(place.url)
    kept = parts.path.split("/")
    first = next((i for i, part in enumerate(kept) if "*" in part), None)
    if first is None:
        return place, None
    pattern = re.escape("/".join(kept[first:]))
    pattern = pattern.replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    return Place(urlunsplit(parts._replace(path="/".join(kept[:first])))), re.compile(pattern)


def _common(places: Sequence[Place]) -> Place:
    """The prefix above all of them."""
    parts = [urlsplit(place.url) for place in places]
    if len({(part.scheme, part.netloc, part.query) for part in parts}) > 1:
        raise InputError("inputs lie in different stores or buckets; judge them one by one")
    split = [part.path.strip("/").split("/") for part in parts]
    shared = 0
    while all(len(names) > shared for names in split) and len({names[shared] for names in split}) == 1:
        shared += 1
    path = "/".join(split[0][:shared])
    return Place(urlunsplit(parts[0]._replace(path=f"/{path}" if path else "")))


@lru_cache(maxsize=64)
def _open(url: str) -> tuple[Any, str]:
    """The file system (pyarrow's interface) and the path in it.

    Raises:
        InputError: no such store, or what opens it is not installed.
    """
    from pyarrow import fs

    scheme = urlsplit(url).scheme
    try:
        if scheme in ("abfs", "abfss"):
            return open_azure(url)
        if scheme in _ARROW:
            system, path = fs.FileSystem.from_uri(url)
            return system, path.rstrip("/")
        import fsspec

        inner, path = fsspec.core.url_to_fs(url)
        return fs.PyFileSystem(fs.FSSpecHandler(inner)), str(path).rstrip("/")
    except (ImportError, NotImplementedError) as error:
        raise InputError(
            f"{shown(url)} cannot be opened here: {error}; install what fsspec needs for {scheme}"
        ) from None
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise InputError(f"{shown(url)} cannot be opened: {_reason(error)}; check the address") from None


@lru_cache(maxsize=64)
def _is_known(scheme: str) -> bool:
    """A folder may be called `part:`, so only what can be opened counts as a URL."""
    if scheme in _ARROW:
        return True
    try:
        from fsspec.registry import known_implementations, registry
    except ImportError:
        return False
    return scheme in known_implementations or scheme in registry


class _RefusedError(OSError):
    """Another attempt would end in the same way."""


def _with_patience(attempt: Callable[[], T]) -> T:
    """Try again after what may pass: networks stumble, and stores ask callers to slow down."""
    for number in range(_TRIES):
        try:
            return attempt()
        except (FileNotFoundError, PermissionError, IsADirectoryError, _RefusedError):
            raise
        except OSError:
            if number == _TRIES - 1:
                raise
            time.sleep(_PAUSE * 2**number)
    raise AssertionError("the last attempt returns or raises")


def _join(base: str, name: str) -> str:
    return f"{base}/{name}" if base else name


def _reason(error: BaseException) -> str:
    """One line of what pyarrow or fsspec say."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
