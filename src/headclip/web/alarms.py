"""A command of the operator's that runs for every alarm: a message, a lamp, a move to another folder."""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from headclip.errors import InputError
from headclip.judgement.verdicts import Verdict
from headclip.runs.run import Row

TIMEOUT = 60.0  # seconds for one command
MOST_WAITING = 1000
NAMES = ("image", "name", "run", "score", "verdict", "regions")
_SHELLS = ("sh", "bash", "dash", "zsh", "env")
_log = logging.getLogger(__name__)


def read_command(command: str) -> list[str]:
    """A program and its arguments, from one line with quotes.

    Raises:
        InputError: none, quotes that do not close, a program that is not there, or what only a shell would fill in.
    """
    try:
        parts = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--on-alarm {command}: {error}") from error
    if not parts:
        raise InputError("--on-alarm is empty; give a command")
    if shutil.which(parts[0]) is None:
        raise InputError(f"--on-alarm: there is no program {parts[0]}; give its path, or one that is on PATH")
    if "$HEADCLIP_" in command and Path(parts[0]).name not in _SHELLS:
        raise InputError("--on-alarm: no shell fills in variables there; write {image}, or sh -c '...' around it")
    return parts


def _filled(part: str, facts: Mapping[str, str]) -> str:
    """An argument with what stands for facts replaced, all in one go: a file may be called {score}."""
    return re.sub(r"\{(\w+)\}", lambda found: facts.get(found[1], found[0]), part)


def is_alarm(row: Row) -> bool:
    """Whether thresholds are known and the image is not "ok"."""
    return row.verdict is not None and row.verdict != Verdict.ok.value


class Alarms:
    """Runs a command for each image that is handed in, one at a time, in a thread of its own.

    The command is a program with its arguments, in which {image}, {name}, {run}, {score}, {verdict} and {regions} stand
    for what was found; it has the same as variables of its environment (HEADCLIP_IMAGE and so on) and as one line of
    JSON on its input. There is no shell between, so that nothing in a file's name is ever a command. What it does is
    its own business: a status other than 0, or longer than `timeout` seconds, is a line in the log.
    """

    def __init__(self, command: str, run: Path, *, timeout: float = TIMEOUT) -> None:
        """Raises InputError where the command cannot be what is meant (`read_command`)."""
        self.command = read_command(command)
        self._run_folder = run.absolute()
        self._timeout = timeout
        self._waiting: queue.Queue[dict[str, object] | None] = queue.Queue(MOST_WAITING)
        self._given_up = False  # what waits then is left out; the command that runs goes on
        self._thread = threading.Thread(target=self._work, name="headclip-alarms", daemon=True)
        self._thread.start()

    def raised(self, image: Path, row: Row) -> None:
        """Run the command for an image before long; with too many waiting, this one is left out."""
        map_file = None if row.map is None else str(self._run_folder / row.map)
        facts: dict[str, object] = {"image": str(image), "name": row.path, "run": str(self._run_folder)}
        facts |= {"score": row.score, "verdict": row.verdict, "regions": row.regions, "map": map_file}
        try:
            self._waiting.put_nowait(facts)
        except queue.Full:
            _log.error("--on-alarm: %d alarms wait for the command already; left out: %s", MOST_WAITING, row.path)

    def close(self, grace: float = TIMEOUT) -> None:
        """End when every alarm has been told of; after `grace` seconds, those that still wait are left out."""
        end = time.monotonic() + grace
        with suppress(queue.Full):
            self._waiting.put(None, timeout=grace)
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            self._given_up = True
            left = sum(facts is not None for facts in list(self._waiting.queue))
            _log.error("--on-alarm: the server stops; alarms that were not told of: %d", left)

    def _work(self) -> None:
        while (facts := self._waiting.get()) is not None and not self._given_up:
            try:
                said = self._tell(facts)
            except (OSError, ValueError) as error:  # a program that is gone, a name with a null in it
                said = str(error)
            if said:
                _log.warning("--on-alarm: the command for %s %s", facts["name"], said)

    def _tell(self, facts: dict[str, object]) -> str:
        """Run the command for one image; what was the matter with it, or ""."""
        said = {name: "" if facts[name] is None else str(facts[name]) for name in NAMES}
        line = json.dumps(facts, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        process = subprocess.Popen(
            [_filled(part, said) for part in self.command],
            stdin=subprocess.PIPE,
            env=os.environ | {f"HEADCLIP_{name.upper()}": value for name, value in said.items()},
            start_new_session=True,  # Ctrl-C stops the server, not a message on its way
        )
        try:
            process.communicate(line, timeout=self._timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"took longer than {self._timeout:g} s and was ended"
        return f"ended with status {process.returncode}" if process.returncode else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command with all that it has started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
