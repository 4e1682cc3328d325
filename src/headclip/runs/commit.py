"""Changing several files of a run folder at once: after a kill there are the old ones or the new ones, never a mixture.
After a power failure too, masks excepted, which are not forced to disk one by one.

New files are first written to `.tmp/`, which counts for nothing. One rename to `.ready/` decides; from then on the
new state holds, and whoever opens the folder next puts the files in place if the one who decided could not.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from headclip.forcing import force_names
from headclip.locks import try_lock
from headclip.runs.files import JOURNAL, RUN_JSON, TEMPORARY, RunFolderError

READY = ".ready"
STAGED = "staged"
_PATIENCE = 10.0  # seconds to wait for another process that is moving files


def staging_folder(folder: Path) -> Path:
    """An empty folder for new files; only who holds the journal may use it."""
    staged = folder / TEMPORARY / STAGED
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    return staged


def commit(folder: Path) -> None:
    """Let what was staged take the place of what there is; folders are replaced whole. Needs the journal's lock."""
    force_names(folder / TEMPORARY / STAGED)
    (folder / TEMPORARY / STAGED).replace(folder / READY)
    force_names(folder)
    _put_in_place(folder)


def settle(folder: Path) -> None:
    """Finish a change that was decided but not carried out. Cheap where there is none.

    Raises:
        RunFolderError: the folder cannot be written, or another process keeps it in that state.
    """
    ready = folder / READY
    deadline = time.monotonic() + _PATIENCE
    while os.path.isdir(ready):  # noqa: PTH112 - unlike the method, it never raises
        try:
            with (folder / JOURNAL).open("ab") as journal:
                if try_lock(journal):
                    _put_in_place(folder)
                    return
        except OSError as error:
            raise RunFolderError(
                f"{folder} was left in the middle of a change that cannot be finished: {error.strerror}; "
                "make the folder writable and open it again"
            ) from error
        if time.monotonic() > deadline:
            raise RunFolderError(f"another headclip is changing {folder}; wait for it or stop it")
        time.sleep(0.02)


def _put_in_place(folder: Path) -> None:
    """Move every entry of the ready folder; what a kill interrupts is done the next time. run.json comes last."""
    ready = folder / READY
    try:
        entries = sorted(ready.iterdir(), key=lambda entry: (entry.name == RUN_JSON, entry.name))
    except FileNotFoundError:  # another process was quicker
        return
    for entry in entries:
        target = folder / entry.name
        if entry.is_dir() and target.is_dir():
            shutil.rmtree(target)
        entry.replace(target)
    force_names(folder)
    ready.rmdir()
