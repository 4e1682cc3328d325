"""What is done to files, clocks and folders in the drills."""

from __future__ import annotations

import datetime
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

YEAR = 365 * 86400


# --- clocks


def set_odd_times(folder: Path) -> None:
    """Modification times decades ahead and before 1970."""
    for number, path in enumerate(sorted(folder.rglob("*"))):
        seconds = time.time() + 80 * YEAR if number % 2 else -5 * YEAR
        os.utime(path, (seconds, seconds))


def leaping_clock() -> None:
    """Let `time.time` and `datetime.now` of this process leap back and forth by years at every look."""
    import headclip.evaluation.outputs
    import headclip.judgement.calibration
    import headclip.runs.writer

    chance, now = random.Random(0), time.time

    def leaping() -> float:
        return now() + chance.choice((-30, -1, 1, 30)) * YEAR * chance.random()

    class Leaping(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return datetime.datetime.fromtimestamp(leaping(), tz)

    time.time = leaping
    for module in (headclip.evaluation.outputs, headclip.runs.writer, headclip.judgement.calibration):
        module.datetime = Leaping


# --- inputs that go


def take_away(inputs: Path, what: str) -> None:
    """Let one picture, or the folder with all of them, go as soon as the job has listed its input."""
    import headclip.data.datasets
    import headclip.data.discover
    import headclip.training.sets

    folder = inputs / "normal"
    labelled = inputs / "set" / "test" / "scratch"

    def hide() -> None:
        for place in (folder, labelled):
            target = place if what == "folder" else sorted(place.glob("*[0-9].png"))[1]
            if target.exists():
                target.rename(hidden(target))

    def then_hide(function: Callable[..., Any]) -> Callable[..., Any]:
        def listed(*arguments: Any, **options: Any) -> Any:
            found = function(*arguments, **options)
            hide()
            return found

        return listed

    headclip.data.discover.discover = then_hide(headclip.data.discover.discover)
    headclip.data.datasets.open_spec = then_hide(headclip.data.datasets.open_spec)
    headclip.training.sets.readable = then_hide(headclip.training.sets.readable)


def hidden(path: Path) -> Path:
    return path.with_name(path.name + ".gone")


def put_back(inputs: Path) -> None:
    """Undo `take_away`."""
    for path in sorted(inputs.rglob("*.gone")):
        path.rename(path.with_name(path.name.removesuffix(".gone")))


def swap_first(folder: Path) -> None:
    """Turn the last 64 bytes of pixel data of the first picture round; size and times stay."""
    path = sorted(folder.glob("*[0-9].png"))[0]
    other = path.with_suffix(".other")
    status = path.stat()
    content = path.read_bytes()
    if other.exists():
        path.write_bytes(other.read_bytes())
        other.unlink()
    else:
        other.write_bytes(content)
        path.write_bytes(content[:-12] + b"\0" * 12)  # Pillow does not miss the end marker, and the hash differs
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# --- damage


def flip(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def flip_late(path: Path) -> None:
    """One bit three quarters of the way, where the values are."""
    content = bytearray(path.read_bytes())
    content[3 * len(content) // 4] ^= 16
    path.write_bytes(content)


def cut(path: Path) -> None:
    """The second half is missing."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def clear(path: Path) -> None:
    """Nothing is left."""
    path.write_bytes(b"")


def overwrite(path: Path) -> None:
    """Something else altogether, of the same size."""
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "flipped late": flip_late,
    "cut": cut,
    "empty": clear,
    "random": overwrite,
}


def _every(ending: str, damage: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage_all(folder: Path) -> None:
        files = list(folder.rglob(f"*{ending}"))
        assert files
        for path in files:
            damage(path)

    return damage_all


CACHE_DAMAGES = {
    "flipped": _every(".rows", flip),
    "cut": _every(".rows", cut),
    "empty": _every(".rows", clear),
    "random": _every(".rows", overwrite),
    "index cut": _every(".index", cut),
    "index random": _every(".index", overwrite),
}


def missing_rows(calm: Path, folder: Path) -> int:
    """How many of the kept rows of a sound cache another one does not have, or has damaged."""
    from headclip.training.feature_files import FileRows, read_entry

    missing = 0
    for index in calm.rglob("*.index"):
        entries = [entry for line in index.read_bytes().splitlines() if (entry := read_entry(line)) is not None]
        row_bytes = index.with_suffix(".rows").stat().st_size // len(entries)
        rows = FileRows((folder / index.relative_to(calm)).with_suffix(""), row_bytes)
        missing += sum(not rows.has(key) for key, _, _ in entries)
    return missing
