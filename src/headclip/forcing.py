"""Forcing to disk what has been written: without it a power failure leaves empty files under their final names."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_LOST = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT})


def force_file(path: Path) -> None:
    """Force the content of a closed file to disk, before it is renamed to where it counts.

    Raises:
        OSError: it did not get there.
    """
    handle = os.open(path, os.O_RDWR)  # Windows forces nothing that is open for reading alone
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def force_names(folder: Path) -> None:
    """Force to disk which files a folder holds, after one of them was renamed. Where no folder can be forced, as on
    Windows and on some network shares, nothing happens.

    Raises:
        OSError: the disk is full or faulty.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in _LOST:
            raise
    finally:
        os.close(handle)
