"""Small disks to fill and to shut: a tmpfs where that may be mounted, else a limit for the size of files."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 32 << 20


class SmallDisk:
    """A disk of SIZE bytes at `folder`."""

    name, words, shut_words = "full disk", "No space left on device", "ead-only"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, left: int) -> None:
        """Leave that many bytes."""
        status = os.statvfs(self.folder)
        self._ballast.write_bytes(b"0" * max(0, status.f_bavail * status.f_frsize - left))

    def limit(self, left: int) -> Callable[[], None]:
        """What a job has to do before it starts so that it meets the fault."""
        return lambda: None

    def empty(self) -> None:
        """Make room."""
        self._ballast.unlink(missing_ok=True)

    def shut(self) -> bool:
        """Make it read-only; whether that could be done."""
        return _mounted("remount,ro", self.folder)

    def open(self) -> None:
        """Let it be written again."""
        _mounted("remount,rw", self.folder)


class LimitedFiles(SmallDisk):
    """Without the right to mount: no file may grow beyond a limit, and folders are shut by their mode."""

    name, words, shut_words = "files limited", "File too large", "ermission"

    def fill(self, left: int) -> None:
        pass

    def limit(self, left: int) -> Callable[[], None]:
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (left, left))

    def shut(self) -> bool:
        if os.geteuid() == 0:  # whom modes do not hold back
            return False
        self.folder.chmod(0o555)
        return True

    def open(self) -> None:
        self.folder.chmod(0o755)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """A small disk at `folder`, taken away at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _mounted(f"size={SIZE}", folder):
        yield LimitedFiles(folder)
        shutil.rmtree(folder)
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mounted(options: str, folder: Path) -> bool:
    """Mount a tmpfs with these options; False where one may not, or there is none."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    call = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    return subprocess.run(call, capture_output=True, check=False).returncode == 0
