"""Readers of volumes say nothing of their own: messages and logs of packages may quote a patient's header."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from headclip.data.decode import warnings_lock
from headclip.errors import ImageError, InputError

_lock = threading.RLock()


@contextmanager
def quietly(logger: str) -> Iterator[None]:
    """No warnings and no log of a package: they may quote what stands in a file."""
    log = logging.getLogger(logger)
    level = log.level
    with _lock, warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            log.setLevel(level)


@contextmanager
def plain_errors(kind: str, thing: str, cut: tuple[type[Exception], ...], ended: str, damaged: str) -> Iterator[None]:
    """Whatever goes wrong while a file is read, in words that quote nothing of it.

    kind: of file, "DICOM"; thing: what may not fit into memory; cut: exceptions of a file that ends too early, and
    ended, what is said of it; damaged: what is said of all others, before the name of the exception.

    Raises:
        ImageError: in place of all but ImageError and InputError, which pass.
    """
    try:
        yield
    except (ImageError, InputError):
        raise
    except MemoryError:
        raise ImageError(f"not enough memory to read the {thing}") from None
    except FileNotFoundError:
        raise ImageError("the file does not exist") from None
    except PermissionError:
        raise ImageError("no permission to read the file") from None
    except cut:
        raise ImageError(ended) from None
    except OSError as error:
        raise ImageError(f"the {kind} file cannot be read: {error.strerror or type(error).__name__}") from None
    except Exception as error:
        raise ImageError(f"{damaged} ({type(error).__name__})") from None
