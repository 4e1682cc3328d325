"""Killing a job at random moments until it is done, again and again, and counting what that has cost."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drilling.jobs import Job, save_often
from drilling.processes import Child, ask, command, start
from drilling.sound import broken_files, leftovers

MOST_STARTS = 60  # of one round; more means that a job does not get on


@dataclass
class Tally:
    """Counts of all rounds of one job. equal: rounds whose result is that of the undisturbed run."""

    job: str
    kills: int = 0
    restarts: int = 0
    rounds: int = 0
    lost: int = 0
    doubled: int = 0
    half_written: int = 0
    left_behind: int = 0
    equal: int = 0
    seconds: float = 0.0
    remarks: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Nothing lost, doubled, taken for whole, or different."""
        return not (self.lost or self.doubled or self.half_written or self.remarks) and self.equal == self.rounds


def drill(job: Job, scratch: Path, kills: int, seed: int, tell: Callable[[str], None] = lambda text: None) -> Tally:
    """Kill `job` `kills` times, in as many rounds as that takes; every round ends with a job that was let through."""
    begun = time.monotonic()
    tally, chance = Tally(job.name), random.Random(f"{seed} {job.name}")
    undisturbed = scratch / job.name / "undisturbed"
    child = _begin(job, undisturbed)
    assert child is not None
    if child.finish() != 0:
        raise RuntimeError(f"{job.name} fails without any kill:\n{child.said()}")
    length = child.used
    wanted = ask(job.outcome, undisturbed, scratch=scratch)
    assert sorted(wanted["rows"]) == sorted(job.expected), f"{job.name}: {wanted['rows']}"
    while tally.kills < kills:
        folder = scratch / job.name / f"round-{tally.rounds}"
        _round(job, folder, tally, kills, chance, length, scratch)
        _compare(job, folder, wanted, tally, scratch)
        if not tally.remarks:
            shutil.rmtree(folder)
        tell(f"{job.name}: {tally.kills} of {kills} kills, {tally.rounds} rounds")
    tally.seconds = time.monotonic() - begun
    return tally


def _begin(job: Job, folder: Path) -> Child | None:
    arguments = job.next_start(folder)
    if arguments is None:
        return None
    return start(command(arguments, save_often), folder.with_name(folder.name + ".txt"))


def _round(
    job: Job, folder: Path, tally: Tally, kills: int, chance: random.Random, length: float, scratch: Path
) -> None:
    """Start and kill until the job gets through."""
    safe: set[str] = set()
    for number in range(MOST_STARTS):
        child = _begin(job, folder)
        if child is None:
            return
        tally.restarts += number > 0
        share = 1.0 if number == 0 else 0.7  # what goes on has less to do
        patience = chance.uniform(0.0, share * length) if tally.kills < kills else None
        status = child.finish() if patience is None else child.work(patience)
        if status is None:
            child.kill()
            tally.kills += 1
            safe = _look(job, folder, safe, tally, scratch)
        elif status == 0:
            return
        else:
            tally.remarks.append(f"start {number + 1} of {folder.name} ended with {status}: {child.said()[-500:]}")
            return
    tally.remarks.append(f"{folder.name} was not done after {MOST_STARTS} starts")


def _look(job: Job, folder: Path, safe: set[str], tally: Tally, scratch: Path) -> set[str]:
    """After a kill: what is on record must stay on record, and nothing half-written may look whole."""
    if not folder.exists():
        return safe
    for broken in ask(broken_files, folder, scratch=scratch):
        tally.half_written += 1
        tally.remarks.append(f"half-written after a kill in {folder.name}: {broken}")
    recorded = set(ask(job.recorded, folder, scratch=scratch))
    for name in sorted(safe - recorded):
        tally.lost += 1
        tally.remarks.append(f"{name} was on record in {folder.name} and is not any more")
    return recorded


def _compare(job: Job, folder: Path, wanted: dict[str, Any], tally: Tally, scratch: Path) -> None:
    """What the round came to against the undisturbed run."""
    tally.rounds += 1
    try:
        found = ask(job.outcome, folder, scratch=scratch)
    except RuntimeError as error:
        tally.remarks.append(str(error)[-800:])
        return
    counts = Counter(found["rows"])
    tally.lost += len(set(job.expected) - set(counts))
    tally.doubled += sum(count - 1 for count in counts.values())
    tally.left_behind += len(ask(leftovers, folder, scratch=scratch))
    tally.half_written += len(ask(broken_files, folder, scratch=scratch))
    different = [key for key, value in wanted["facts"].items() if found["facts"].get(key) != value]
    tally.equal += not different
    if different:
        tally.remarks.append(f"{folder.name} differs from the undisturbed run in {', '.join(different)[:200]}")
