"""What the commands share: choices, errors and consoles. Only the standard library at the top."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

if TYPE_CHECKING:
    from rich.console import Console

DEBUG_VARIABLE = "HEADCLIP_DEBUG"
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline
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
    int8 = "int8"


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
            sys.stderr.write(f"note: {visible(str(message))}\n")

    warnings.showwarning = show
    warnings.filterwarnings("ignore", module=r"(PIL|torch|pyarrow)\b")


def forgiving_output() -> None:
    """Let what stdout and stderr cannot encode, such as a file name in another script, come out as escapes.

    Else a command that has done all its work would end with an error over its last line.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def visible(text: str) -> str:
    """A text for the terminal: control characters, by which a file's name could give it orders, become escapes.

    >>> visible("a\\x1b[2Jb.png"), visible("two\\nlines")
    ('a\\\\x1b[2Jb.png', 'two\\nlines')
    """
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def debugging() -> bool:
    """Whether the user asked for tracebacks and the log."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


@contextmanager
def readable_errors() -> Iterator[None]:
    """End the process with one line on stderr instead of a traceback, unless HEADCLIP_DEBUG is set."""
    from headclip.errors import HeadclipError

    forgiving_output()
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
    except OSError as error:
        from headclip.files import cannot_use, cannot_write, is_unusable

        if is_unusable(error):
            _end(str(cannot_use(error.filename, error)), EXIT_USAGE)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            _unexpected(error)
        _end(str(cannot_write(Path(error.filename or "the output"), error)), EXIT_USAGE)
    except Exception as error:
        _unexpected(error)


def _unexpected(error: Exception) -> NoReturn:
    reason = " ".join(str(error).split()) or "no reason given"
    _end(
        f"unexpected {type(error).__name__}: {reason} (this is a fault of headclip; {DEBUG_VARIABLE}=1 shows where)",
        EXIT_FAILED,
    )


def parse_settings(settings: list[str], option: str = "--set") -> dict[str, Any]:
    """["sigma=2", "taps=[6, 12]"] -> {"sigma": 2, "taps": [6, 12]}; values are JSON, else plain words.

    option: what they were given by, for the message.

    Raises:
        InputError: one of them is not NAME=VALUE.
    """
    import json

    from headclip.errors import InputError

    values: dict[str, Any] = {}
    for item in settings:
        name, sign, text = item.partition("=")
        if not sign or not name:
            raise InputError(f"{option} {item}: write NAME=VALUE")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def program() -> str:
    """How to call this program from here: its name where a shell finds it, else through Python."""
    if shutil.which("headclip"):
        return "headclip"
    try:
        python = Path(sys.executable).relative_to(Path.cwd()).as_posix()
    except ValueError:
        python = sys.executable
    return f"{shlex.quote(python)} -m headclip"


def command_line() -> str:
    """The command as it was given, without the options that only say how to treat the folder, and which part to do."""
    from headclip.data.discover import printable

    given = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--overwrite")]
    if "--shard" in given:
        at = given.index("--shard")
        del given[at : at + 2]
    given = [argument for argument in given if not argument.startswith("--shard=")]
    return printable(shlex.join(["headclip", *given]))


def resume_line(command: str, words: Sequence[str], options: Mapping[str, Any]) -> str:
    """A command that goes on with what was interrupted, from what it was called with, whoever called it.

    options: by name; a list is repeated, True a switch, None and False are left out.
    """
    given = list(words)
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            given.append(flag)
        elif value is not None and value is not False:
            given += [part for item in (value if isinstance(value, list) else [value]) for part in (flag, str(item))]
    return f"{program()} {shlex.join([command, *given])} --resume"


def counted(number: int, word: str) -> str:
    """A number of things.

    >>> counted(1, "image"), counted(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def error_line(message: str) -> None:
    """Write `error: ...` to stderr."""
    sys.stderr.write(f"error: {visible(message)}\n")


def output() -> Console:
    """Results, on stdout; file names are never read as markup, nor obeyed by the terminal."""
    return _console()


def progress_output() -> Console:
    """Progress and notes, on stderr."""
    return _console(stderr=True)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        """Every text that is printed, and every cell of a table, comes through here."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible(text), **options)

    return Plain(stderr=stderr, markup=False, highlight=False, emoji=False)


def _end(message: str, status: int) -> NoReturn:
    error_line(message)
    raise SystemExit(status)


def print_ok_with_regions(judgement: Mapping[str, Any]) -> None:
    """Say how many images are ok by their score and show a region all the same; `judgement` is that of a run."""
    count = judgement.get("ok_with_regions", 0)
    if count:
        output().print(
            f"{counted(count, 'image')} ok by score {'shows' if count == 1 else 'show'} a region all the same: "
            "the score is of the whole image, regions are of the map; look at both",
            soft_wrap=True,
        )
