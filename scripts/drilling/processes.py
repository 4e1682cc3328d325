"""Work in processes that start at once: forked from one that has imported everything and computes nothing itself.

A kill then hits the job and not the import of torch, and a drill of 200 kills takes minutes. The parent must stay
without threads, so whatever computes or reads results runs in a child as well.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 900.0  # longer than any job here takes on a busy machine
os.environ.setdefault("OMP_NUM_THREADS", "1")


def warm_up() -> None:
    """Import what the jobs need, once."""
    import torch

    torch.set_num_threads(1)
    import torch._dynamo  # imported by the first optimiser step otherwise
    import torch.utils.data

    import headclip.cli.app
    import headclip.cli.models
    import headclip.clip.weights
    import headclip.evaluation.evaluate
    import headclip.evaluation.runs
    import headclip.inference.detector
    import headclip.inference.predict
    import headclip.judgement.calibrate
    import headclip.training.pretrain
    import headclip.training.sets
    import headclip.training.trainer  # noqa: F401


@dataclass
class Child:
    """A forked process; `output` holds its stdout and stderr."""

    process: int
    output: Path
    started: float
    used: float = 0.0  # seconds of computing

    def wait(self, seconds: float = SECONDS) -> int | None:
        """Its exit status, negative for a signal; None where it still runs after so long."""
        deadline = time.monotonic() + seconds
        while True:
            found, status = os.waitpid(self.process, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                return None
            time.sleep(0.001)

    def work(self, seconds: float) -> int | None:
        """Its exit status, or None as soon as it has computed for so long: on a busy machine the clock on the wall
        would tell little of how far a job is."""
        clock = (~self.process << 3) | 2  # the processor time of another process (Linux)
        while True:
            found, status = os.waitpid(self.process, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            used = time.clock_gettime(clock) if sys.platform == "linux" else time.monotonic() - self.started
            if used > seconds:
                return None
            time.sleep(0.001)

    def kill(self) -> None:
        """SIGKILL, to this process alone: its own children are left to themselves, as they would be."""
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)

    def finish(self) -> int:
        """Its exit status; a child that hangs is killed and is an error of the drill. Sets `used`."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        status = self.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if status is None:
            self.kill()
            raise TimeoutError(f"a job did not end within {SECONDS:.0f} s; its output is {self.output}")
        return status

    def said(self) -> str:
        """What it wrote."""
        return self.output.read_text(encoding="utf-8", errors="replace")


def start(work: Callable[[], int], output: Path) -> Child:
    """Run `work` in a child, which ends with the status it returns."""
    sys.stdout.flush()
    sys.stderr.flush()
    output.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    process = os.fork()
    if process:
        return Child(process, output, started)
    status = 70
    try:
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(target, stream)
        status = work()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def command(arguments: Sequence[str], before: Callable[[], None] = lambda: None) -> Callable[[], int]:
    """`headclip ARGUMENTS` as work for a child, after `before`."""

    def work() -> int:
        from headclip.cli.app import main

        before()
        sys.argv = ["headclip", *arguments]
        main(list(arguments))
        return 0

    return work


def ask(question: Callable[..., Any], *arguments: Any, scratch: Path) -> Any:
    """The JSON-able answer of a function that runs in a child."""
    answer = scratch / "answer.json"
    answer.unlink(missing_ok=True)

    def work() -> int:
        answer.write_text(json.dumps(question(*arguments)), encoding="utf-8")
        return 0

    child = start(work, scratch / "question.txt")
    if child.finish() != 0:
        raise RuntimeError(f"looking at the results failed:\n{child.said()}")
    return json.loads(answer.read_text(encoding="utf-8"))
