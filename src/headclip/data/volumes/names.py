"""Names that say nothing: patients' data leave no identifier in a run folder, unless the user asks for names.

A volume is named after a keyed hash of what only its files hold, so a resumed run finds it again, and nobody can tell
from the results which patient, file or folder it was. The key is a run's own and lies in the hidden file `.salt` of
the run folder; whoever has it and the original files can match them, whoever deletes it cuts the link (and can no
longer resume).
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from headclip.csv_text import CsvText
from headclip.errors import ImageError, InputError
from headclip.files import write_atomically

SALT = ".salt"
HIDDEN = "hidden"
_EDGE = 65_536  # bytes of a file's beginning and end that stand for it
_DIGITS = 10


def digest(salt: bytes, *parts: bytes) -> str:
    """A keyed hash (HMAC-SHA-256, hex) of some parts; where one ends and the next begins counts."""
    code = hmac.new(salt, digestmod=hashlib.sha256)
    for part in parts:
        code.update(len(part).to_bytes(8, "little") + part)
    return code.hexdigest()


def neutral(salt: bytes, *parts: bytes) -> str:
    """The name of a volume."""
    return f"volume-{digest(salt, *parts)[:_DIGITS]}"


def content_of(path: Path) -> bytes:
    """What stands for a file: its size, its first and its last bytes.

    Raises:
        ImageError: it cannot be read; the message does not name it.
    """
    if not path.is_file():  # opening a pipe would wait for ever
        raise ImageError("the file does not exist, or is not a regular file")
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            handle.seek(0)
            head = handle.read(_EDGE)
            handle.seek(max(0, size - _EDGE))
            return size.to_bytes(8, "little") + head + handle.read(_EDGE)
    except OSError as error:
        raise ImageError(f"the file cannot be read: {error.strerror}") from None


def run_salt(folder: Path, *, keep: bool) -> bytes:
    """The key of the run in `folder`, to resume it; without `keep`, or where there is none, a new one.

    Raises:
        InputError: the file is there but is no key, or cannot be read.
    """
    path = folder / SALT
    try:
        if not (keep and path.exists()):
            return secrets.token_bytes(32)
        salt = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        salt = b""
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if len(salt) != 32:
        raise InputError(f"{path} is damaged; start the run anew with --overwrite")
    return salt


def keep_salt(folder: Path, salt: bytes) -> None:
    """Put the key into the run folder, for its owner's eyes.

    Raises:
        InputError: it cannot be written.
    """
    path = folder / SALT
    try:
        write_atomically(path, salt.hex() + "\n", private=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another --out") from None


def write_key(path: Path, rows: Iterable[tuple[str, Path]], run: Path) -> None:
    """Who is who, as CSV with the columns path (in the results) and file; only its owner may read it.

    Raises:
        InputError: it would lie in the run folder, which is what it must be kept apart from, or cannot be written.
    """
    if path.resolve().is_relative_to(run.resolve()):
        raise InputError("the file of --key must lie outside the run folder, so that the results can be given away")
    buffer = CsvText()
    writer = csv.writer(buffer)
    writer.writerow(("path", "file"))
    writer.writerows((name, str(source)) for name, source in rows)
    try:
        content = buffer.getvalue().encode("utf-8", "backslashreplace")
        write_atomically(path, content, follow=True, private=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
