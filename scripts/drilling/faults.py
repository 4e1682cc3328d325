"""Mishaps other than kills: each is arranged, the job is run into it, and then let through.

A fault is met where the job ends with status 2 (or goes on with the image as a failed row) and one line that says what
is wrong and what to do, leaves nothing half-written under a final name, and comes to the undisturbed result once the
fault is mended.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from drilling import disks, tricks
from drilling.jobs import Job, make_jobs, save_often
from drilling.processes import ask, command, start
from drilling.sound import broken_files

Tell = Callable[[str], None]
ATTEMPTS = 40  # to kill a job in its middle
ROOM = (0, 12, 48)  # KiB that a full disk has left, so that the jobs fail at different places


@dataclass(frozen=True)
class Fault:
    """One mishap and how it went. seen: the message, or what was wrong with what happened."""

    name: str
    job: str
    met: bool
    seen: str

    def cells(self) -> tuple[str, str, str, str]:
        """A row of the table."""
        return self.name, self.job, "yes" if self.met else "NO", self.seen[:150]


class Drill:
    """The undisturbed result of one job, and runs of it into trouble."""

    def __init__(self, job: Job, inputs: Path, scratch: Path) -> None:
        self.job, self.inputs, self.scratch = job, inputs, scratch / "faults" / job.name
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.calm = self.scratch / "undisturbed"
        if not self.calm.exists():
            status, said = self.run(self.calm)
            if status != 0:
                raise RuntimeError(f"{job.name} fails without any fault:\n{said}")
        self.wanted = self.ask(job.outcome, self.calm)

    def ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        return ask(question, *arguments, scratch=self.scratch)

    def run(
        self, folder: Path, before: Callable[[], None] = lambda: None, kill_after: float | None = None
    ) -> tuple[int, str]:
        """Begin, or go on with, the job in `folder`; its status and what it said. None is left to do: status 0."""
        arguments = self.job.next_start(folder)
        if arguments is None:
            return 0, ""

        def prepared() -> None:
            save_often()
            before()

        child = start(command(arguments, prepared), self.scratch / f"{folder.name}.txt")
        if kill_after is not None:
            ended = child.work(kill_after)
            if ended is None:
                child.kill()
            return -9 if ended is None else ended, child.said()
        return child.finish(), child.said()

    def half_way(self, folder: Path) -> None:
        """Kill the job somewhere in the middle, so that there is something to go on from.

        How much of its time a job computes before it saves anything differs from run to run, so shares are drawn
        until one hits.
        """
        draw = random.Random(0)
        for _ in range(ATTEMPTS):
            status, _ = self.run(folder, kill_after=draw.uniform(0.3, 0.95) * self.used)
            if status == -9 and self.begun(folder):
                return
            shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError(f"{self.job.name} was never killed while there was something to go on from")

    @property
    def used(self) -> float:
        if not hasattr(self, "_used"):
            probe = self.scratch / "probe"
            arguments = self.job.next_start(probe)
            assert arguments is not None
            child = start(command(arguments, save_often), self.scratch / "probe.txt")
            child.finish()
            self._used = child.used
            shutil.rmtree(probe, ignore_errors=True)
        return self._used

    def begun(self, folder: Path) -> bool:
        """Whether the next start of the job would go on with something."""
        return "--resume" in (self.job.next_start(folder) or [])

    def settled(self, folder: Path) -> str:
        """ "" where the job, run to its end, comes to the undisturbed result; else what is different."""
        for _ in range(3):
            status, said = self.run(folder)
            if status == 0:
                break
        else:
            return f"goes on failing: {last_line(said)}"
        return self.difference(folder)

    def difference(self, folder: Path) -> str:
        found = self.ask(self.job.outcome, folder)
        if sorted(found["rows"]) != sorted(self.job.expected):
            return f"{len(found['rows'])} rows instead of {len(self.job.expected)}"
        wrong = [key for key, value in self.wanted["facts"].items() if found["facts"].get(key) != value]
        return f"differs in {', '.join(wrong)}" if wrong else ""

    def judge(
        self, name: str, folder: Path, ended: tuple[int, str], mend: Callable[[], None], words: str, look: bool = True
    ) -> Fault:
        """After a job ran into a fault with status and message: mend it, let the job through, compare.

        look: for half-written files; not where a file was damaged on purpose.
        """
        status, said = ended
        message = last_line(said)
        problems = []
        if status != 0 and (status != 2 or words not in said or "unexpected" in said or "Traceback" in said):
            problems.append(f"status {status}: {message}")
        problems += self.ask(broken_files, folder)[:1] if look and folder.exists() else []
        mend()
        if wrong := self.settled(folder):
            problems.append(wrong)
        return Fault(name, self.job.name, not problems, "; ".join(problems) or message or "nothing went wrong")


def run_all(jobs: Mapping[str, Job], inputs: Path, scratch: Path, tell: Tell = lambda text: None) -> list[Fault]:
    """Every fault for every job that can meet it."""
    met: list[Fault] = []
    for job in jobs.values():
        drill = Drill(job, inputs, scratch)
        for fault in (*EVERY, *SPECIAL.get(job.name, ())):
            met += fault(drill)
            tell(f"{job.name}: {fault.__name__.replace('_', ' ')}: {'met' if met[-1].met else met[-1].seen}")
    return met


def _changed(drill: Drill, **changes: Any) -> Drill:
    """The same drill, with its undisturbed result, on other inputs."""
    other = Drill.__new__(Drill)
    other.__dict__ |= drill.__dict__ | changes
    return other


def _features_elsewhere(drill: Drill) -> Drill:
    """Training does without kept features where little room is left, and then rounds less; here it shall keep them."""
    return _changed(drill, job=make_jobs(drill.inputs, drill.scratch / "features")[drill.job.name])


def full_disk(drill: Drill) -> list[Fault]:
    """There is room for a part of the output only."""
    found, drill = [], _features_elsewhere(drill)
    with disks.small_disk(drill.scratch / "disk") as disk:
        for room in ROOM:
            folder = disk.folder / f"left-{room}"
            if drill.job.name == "calibrate":  # its checkpoint is there before
                drill.job.next_start(folder)
            disk.fill(room * 1024)
            ended = drill.run(folder, disk.limit(room * 1024))
            words = "make room" if ended[0] and "make room" in ended[1] else disk.words
            found.append(drill.judge(f"{disk.name}, {room} KiB left", folder, ended, disk.empty, words))
            shutil.rmtree(folder, ignore_errors=True)
    return found


def read_only(drill: Drill) -> list[Fault]:
    """The place for the results cannot be written."""
    drill = _features_elsewhere(drill)
    with disks.small_disk(drill.scratch / "shut") as disk:
        folder = disk.folder / "job"
        if drill.job.name == "calibrate":
            drill.job.next_start(folder)
        if not disk.shut():
            return []
        ended = drill.run(folder)
        if ended[0] == 0:
            return [Fault("read-only output", drill.job.name, False, "it was written all the same")]
        return [drill.judge("read-only output", folder, ended, disk.open, disk.shut_words)]


def clock_jumps(drill: Drill) -> list[Fault]:
    """The clock on the wall leaps by years at every look, and the inputs are from the future and the past."""
    copy = drill.scratch / "odd times"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(drill.inputs, copy)
    tricks.set_odd_times(copy)
    moved = _changed(drill, job=make_jobs(copy)[drill.job.name], inputs=copy)
    folder = drill.scratch / "clock"
    moved.run(folder, tricks.leaping_clock, kill_after=0.6 * drill.used)
    ended = moved.run(folder, tricks.leaping_clock)
    fault = moved.judge("clock jumps", folder, ended, lambda: None, "")
    shutil.rmtree(folder, ignore_errors=True)
    return [fault]


def vanishing_input(drill: Drill) -> list[Fault]:
    """A file, then the whole folder, is taken away after it was listed and before it is read."""
    found = []
    for what in ("file", "folder"):
        copy = drill.scratch / f"vanishing {what}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(drill.inputs, copy)
        moved = _changed(drill, job=make_jobs(copy)[drill.job.name], inputs=copy)
        folder = drill.scratch / f"vanished-{what}"
        ended = moved.run(folder, partial(tricks.take_away, copy, what))
        fault = moved.judge(f"vanishing {what}", folder, _failed_rows(ended), partial(tricks.put_back, copy), "not")
        found.append(fault)
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _failed_rows(ended: tuple[int, str]) -> tuple[int, str]:
    """Status 1 says that no image at all could be judged, which is a clear end as well."""
    status, said = ended
    return (2, said) if status == 1 and "could be judged" in said else (status, said)


def corrupt_checkpoint(drill: Drill) -> list[Fault]:
    """What the job starts from is damaged."""
    found = []
    for name, damage in tricks.DAMAGES.items():
        copy = drill.scratch / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(drill.inputs, copy)
        moved = _changed(drill, job=make_jobs(copy)[drill.job.name], inputs=copy)
        target = copy / "tiny.safetensors"
        damage(target)
        folder = drill.scratch / "corrupt"
        ended = moved.run(folder)
        if ended[0] == 0:
            fault = Fault(f"checkpoint {name}", drill.job.name, False, "it was used all the same")
        else:
            mend = partial(shutil.copy, drill.inputs / "tiny.safetensors", target)
            fault = moved.judge(f"checkpoint {name}", folder, ended, mend, str(target))
        found.append(fault)
        shutil.rmtree(folder, ignore_errors=True)
    return found


def corrupt_state(drill: Drill) -> list[Fault]:
    """What a killed training would go on from is damaged."""
    found = []
    for name, damage in tricks.DAMAGES.items():
        folder = drill.scratch / "state"
        drill.half_way(folder)
        (state,) = [path for path in folder.rglob("*") if path.suffix in (".state", ".pt")]
        damage(state)
        ended = drill.run(folder)
        if ended[0] == 0:
            fault = Fault(f"state {name}", drill.job.name, False, "it was gone on from all the same")
        else:
            fault = drill.judge(f"state {name}", folder, ended, state.unlink, "start anew without --resume", False)
        found.append(fault)
        shutil.rmtree(folder, ignore_errors=True)
    return found


def corrupt_cache(drill: Drill) -> list[Fault]:
    """Kept features are damaged; they must be found out by their hashes and computed anew."""
    found = []
    for name, damage in tricks.CACHE_DAMAGES.items():
        folder = drill.scratch / "cache"
        folder.mkdir()
        shutil.copytree(drill.calm / "features", folder / "features")
        damage(folder / "features")
        ended = drill.run(folder)
        wrong = _other_losses(drill, folder) if ended[0] == 0 else f"status {ended[0]}: {last_line(ended[1])}"
        missing = drill.ask(tricks.missing_rows, drill.calm / "features", folder / "features")
        wrong = wrong or (f"{missing} entries are still damaged" if missing else "")
        found.append(Fault(f"kept features {name}", drill.job.name, not wrong, wrong or "detected and rebuilt"))
        shutil.rmtree(folder)
    return found


def _other_losses(drill: Drill, folder: Path) -> str:
    """ "" where the losses are the undisturbed ones to three digits: some features were computed in other batches, and
    half precision rounds them differently."""
    found = drill.ask(drill.job.outcome, folder)["facts"]["losses"]
    for epoch, wanted in drill.wanted["facts"]["losses"].items():
        if any(abs(one - other) > 1e-3 * abs(other) for one, other in zip(found[epoch], wanted, strict=True)):
            return f"losses of epoch {epoch}: {found[epoch]} instead of {wanted}"
    return ""


def corrupt_results(drill: Drill) -> list[Fault]:
    """Files that a killed run had finished are damaged before it goes on."""
    found = []
    for name, damage in tricks.DAMAGES.items():
        folder = drill.scratch / "results"
        drill.half_way(folder)
        kept = sorted(path for path in folder.rglob("*") if path.parts[-2:-1] and path.suffix in (".png", ".counts"))
        if not kept:
            continue
        damage(kept[0])
        damage(kept[-1])
        wrong = drill.settled(folder)
        found.append(Fault(f"kept result {name}", drill.job.name, not wrong, wrong or "made again"))
        shutil.rmtree(folder, ignore_errors=True)
    return found


def swapped_input(drill: Drill) -> list[Fault]:
    """Between a kill and the resumption a file gets another content, with the size and the time of the old one."""
    copy = drill.scratch / "swapped"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(drill.inputs, copy)
    moved = _changed(drill, job=make_jobs(copy)[drill.job.name], inputs=copy)
    tricks.swap_first(copy / "normal")
    folder = drill.scratch / "swap"
    moved.half_way(folder)
    tricks.swap_first(copy / "normal")  # back again: the undisturbed result is due
    wrong = moved.settled(folder)
    return [Fault("input replaced, same size and time", drill.job.name, not wrong, wrong or "judged again")]


EVERY = (full_disk, read_only, clock_jumps)
SPECIAL: dict[str, tuple[Callable[[Drill], list[Fault]], ...]] = {
    "predict": (vanishing_input, corrupt_checkpoint, corrupt_results, swapped_input),
    "evaluate": (vanishing_input, corrupt_checkpoint, corrupt_results),
    "calibrate": (vanishing_input,),
    "train": (vanishing_input, corrupt_state, corrupt_cache),
    "pretrain": (corrupt_state,),
}


def last_line(said: str) -> str:
    """The last line that is not empty."""
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else ""
