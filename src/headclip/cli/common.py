"""What the commands share: choices, errors and consoles. Only the standard library at the top."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

DEBUG_VARIABLE = "HEADCLIP_DEBUG"
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


class Device(StrEnum):
    """Where the model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(StrEnum):
    """In which numbers the model computes."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


def readable_warnings() -> None:
    """Show our own warnings as one line on stderr, and none of the libraries'."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, (DeprecationWarning, FutureWarning)):
            sys.stderr.write(f"note: {message}\n")

    warnings.showwarning = show
    warnings.filterwarnings("ignore", module=r"(PIL|torch|pyarrow)\b")


def debugging() -> bool:
    """Whether the user asked for tracebacks and the log."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


@contextmanager
def readable_errors() -> Iterator[None]:
    """End the process with one line on stderr instead of a traceback, unless HEADCLIP_DEBUG is set."""
    from headclip.errors import HeadclipError

    if debugging():
        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("headclip").setLevel(logging.DEBUG)
        yield
        return
    readable_warnings()
    try:
        yield
    except HeadclipError as error:
        _end(str(error), EXIT_USAGE)
    except MemoryError:
        _end("not enough memory; try a smaller --batch-size or --image-size", EXIT_FAILED)
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        _end(
            f"unexpected {type(error).__name__}: {reason} (this is a fault of headclip; "
            f"{DEBUG_VARIABLE}=1 shows where)",
            EXIT_FAILED,
        )


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """["sigma=2", "taps=[6, 12]"] -> {"sigma": 2, "taps": [6, 12]}; values are JSON, else plain words."""
    import json

    from headclip.errors import InputError

    values: dict[str, Any] = {}
    for item in settings:
        name, sign, text = item.partition("=")
        if not sign or not name:
            raise InputError(f"--set {item}: write NAME=VALUE")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def error_line(message: str) -> None:
    """Write `error: ...` to stderr."""
    sys.stderr.write(f"error: {message}\n")


def output() -> Console:
    """Results, on stdout; file names are never read as markup."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


def progress_output() -> Console:
    """Progress and notes, on stderr."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def _end(message: str, status: int) -> None:
    error_line(message)
    raise SystemExit(status)
