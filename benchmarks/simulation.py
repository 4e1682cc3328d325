"""A discrete-event simulation of many workers that judge many images, are killed, and go on; see simulate.py.

One worker is one core. A plan cuts the images into tasks, and every free worker takes the next one. Two kinds:

- `shards`: a task is a process of `headclip predict --shard i/n --resume`, or of a whole run where n is 1. It lists all
  images of its run when it starts, keeps what its journal holds when it is killed, and goes on as another process,
  which lists again and hashes what has been judged.
- `chunks`: a worker is an actor of Ray. It loads the model once, then takes chunk after chunk; of a chunk that it
  does not bring to its end nothing is kept. One machine keeps the record, and takes its time for each row.

Time is in seconds, and a worker's pace is 1 / slowness of the machine on which costs were measured.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Costs:
    """CPU seconds, as measured by `simulate.py calibrate`.

    start: from nothing to a loaded model; image, image_spread: mean and standard deviation of an image, with its
    files; rendering: of its overlay and its place in the report; listing: of one image in the list of all; checking:
    of one image that a resumed process finds judged; merging: of one row, rendering included; recording: of one row
    on the machine that keeps the record of Ray's actors. batch: images a pass.
    """

    start: float
    image: float
    image_spread: float
    rendering: float
    listing: float
    checking: float
    merging: float
    recording: float
    batch: int = 8


@dataclass(frozen=True)
class World:
    """What befalls workers.

    kills_per_hour: of one worker, at random moments; pause: until another takes its place, seconds; slow_share,
    slow_factor: of machines, and how many times slower those are; spread: of the others' pace (sigma of a log-normal).
    """

    workers: int = 64
    kills_per_hour: float = 0.02
    pause: float = 60.0
    slow_share: float = 0.05
    slow_factor: float = 3.0
    spread: float = 0.1


@dataclass(frozen=True)
class Plan:
    """How images are divided. runs: equal parts of the images, each an independent run; shards, chunk: of each run;
    retries: of a task, before it is given up."""

    name: str
    kind: Literal["shards", "chunks"]
    runs: int = 1
    shards: int = 1
    chunk: int = 64
    retries: int = 100

    @property
    def alone(self) -> bool:
        """Whether a task is a whole run, with overlays and report."""
        return self.kind == "shards" and self.shards == 1

    @property
    def merged(self) -> bool:
        """Whether the tasks of a run have to be joined in the end."""
        return self.kind == "shards" and self.shards > 1


@dataclass
class Task:
    """A piece of a plan that one worker does.

    listed: images of the run that it belongs to, which it has to list; kills_after: known moments of kills, in CPU
    seconds of the process; kept: images on record after each kill.
    """

    images: int
    listed: int
    done: int = 0
    attempts: int = 0
    kills_after: list[float] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)


@dataclass
class Outcome:
    """What came of it, in worker seconds where nothing else is said.

    makespan: until the last image is judged; first_idle: until a worker found nothing to do; useful: for images whose
    rows count; starting: models, lists, checks of what was done; lost: for images whose rows do not count; waiting:
    for a replacement; merging: seconds after that, each run on one machine; recording: of the machine that keeps the
    record.
    """

    workers: int
    images: int = 0
    makespan: float = 0.0
    first_idle: float = 0.0
    useful: float = 0.0
    starting: float = 0.0
    lost: float = 0.0
    waiting: float = 0.0
    merging: float = 0.0
    recording: float = 0.0
    kills: int = 0
    images_again: int = 0
    given_up: int = 0

    def share(self, seconds: float) -> float:
        """Of all that the workers had, from the first moment to the last image."""
        return seconds / (self.workers * self.makespan) if self.makespan else 0.0

    @property
    def tail(self) -> float:
        """Share of the makespan in which at least one worker had nothing to do any more."""
        return 1.0 - self.first_idle / self.makespan if self.makespan else 0.0


def make_tasks(plan: Plan, images: int, rng: random.Random) -> list[Task]:
    """The tasks of a plan, in the order in which workers take them.

    Shards get their images by a hash, so that their sizes are those of a random division.
    """
    tasks: list[Task] = []
    for run in range(plan.runs):
        size = images // plan.runs + (run < images % plan.runs)
        if plan.kind == "chunks":
            tasks += [Task(min(plan.chunk, size - first), size) for first in range(0, size, plan.chunk)]
            continue
        left = size
        for shard in range(plan.shards, 1, -1):
            share = round(rng.gauss(left / shard, math.sqrt(left / shard * (1 - 1 / shard))))
            share = min(left, max(0, share))
            tasks.append(Task(share, size))
            left -= share
        tasks.append(Task(left, size))
    return tasks


def simulate(
    plan: Plan,
    images: int,
    costs: Costs,
    world: World,
    seed: int = 0,
    tasks: list[Task] | None = None,
) -> Outcome:
    """One course of events.

    Args:
        tasks: instead of the plan's own, for example of known sizes and with known kills.
    """
    return _Simulation(plan, images, costs, world, seed, tasks).run()


@dataclass
class _Worker:
    """slowness: of its machine; dies_at: moment at which it will be killed; ready: whether it holds the model."""

    slowness: float
    dies_at: float
    ready: bool = False


class _Simulation:
    def __init__(
        self, plan: Plan, images: int, costs: Costs, world: World, seed: int, tasks: list[Task] | None
    ) -> None:
        self._rng = random.Random(seed)
        self._plan, self._costs, self._world = plan, costs, world
        self._queue = deque(make_tasks(plan, images, self._rng) if tasks is None else tasks)
        self._left = len(self._queue)
        self._outcome = Outcome(world.workers, sum(task.images for task in self._queue))
        self._events: list[tuple[float, int, int, Callable[[float], None]]] = []
        self._count = 0
        self._idle: list[int] = []
        self._recorded = 0.0  # when the keeper of the record will be done with what has come
        self._workers = [self._hire(0.0) for _ in range(world.workers)]

    def run(self) -> Outcome:
        begin = self._listed_first()
        self._outcome.starting += begin * self._world.workers
        for number in range(self._world.workers):
            self._take(number, begin)
        while self._events and self._left:
            moment, _, _, happen = heapq.heappop(self._events)
            happen(moment)
        outcome = self._outcome
        outcome.makespan = max(outcome.makespan, self._recorded)
        outcome.first_idle = min(outcome.first_idle or outcome.makespan, outcome.makespan)
        if self._plan.merged:  # every run on a machine of its own
            outcome.merging = outcome.images * self._costs.merging / min(self._plan.runs, self._world.workers)
        return outcome

    def _listed_first(self) -> float:
        """Seconds until the one machine that keeps the record knows all images; shards list for themselves."""
        if self._plan.kind != "chunks" or not self._queue:
            return 0.0
        return self._queue[0].listed * self._costs.listing

    def _hire(self, now: float) -> _Worker:
        """A worker on a machine of its own."""
        world, rng = self._world, self._rng
        slowness = rng.lognormvariate(0.0, world.spread) if world.spread else 1.0
        if rng.random() < world.slow_share:
            slowness *= world.slow_factor
        life = rng.expovariate(world.kills_per_hour / 3600) if world.kills_per_hour else math.inf
        return _Worker(slowness, now + life)

    def _at(self, moment: float, number: int, happen: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (moment, self._count, number, happen))

    def _take(self, number: int, now: float) -> None:
        """Let a free worker begin the next task."""
        outcome = self._outcome
        if not self._queue:
            outcome.first_idle = outcome.first_idle or now
            self._idle.append(number)
            return
        if self._workers[number].dies_at < now:  # while it had nothing to do
            self._workers[number] = self._hire(now)
        worker = self._workers[number]
        task = self._queue.popleft()
        task.attempts += 1
        before = self._preparing(task, worker) * worker.slowness
        left = task.images - task.done
        each = self._costs.image + (self._costs.rendering if self._plan.alone else 0.0)
        work = max(0.0, left * each + self._rng.gauss(0, self._costs.image_spread) * math.sqrt(left))
        work *= worker.slowness
        end, dies = now + before + work, worker.dies_at
        if task.kills_after:
            dies = min(dies, now + task.kills_after.pop(0) * worker.slowness)
        if dies < end:
            self._at(dies, number, lambda moment: self._killed(number, task, now, before, work, moment))
        else:
            self._at(end, number, lambda moment: self._finished(number, task, before, work, moment))

    def _preparing(self, task: Task, worker: _Worker) -> float:
        costs = self._costs
        if self._plan.kind == "chunks":
            return 0.0 if worker.ready else costs.start
        return costs.start + task.listed * costs.listing + task.done * costs.checking

    def _finished(self, number: int, task: Task, before: float, work: float, now: float) -> None:
        outcome = self._outcome
        outcome.starting += before
        outcome.useful += work
        self._workers[number].ready = True
        self._left -= 1
        outcome.makespan = max(outcome.makespan, now)
        if self._plan.kind == "chunks":
            cost = task.images * self._costs.recording
            outcome.recording += cost
            self._recorded = max(self._recorded, now) + cost
        self._take(number, now)

    def _killed(self, number: int, task: Task, began: float, before: float, work: float, now: float) -> None:
        outcome, spent = self._outcome, now - began
        outcome.kills += 1
        outcome.starting += min(before, spent)
        judging = max(0.0, spent - before)
        kept, begun = self._kept(task, judging / work if work else 0.0)
        worth = judging * kept / begun if begun else 0.0
        outcome.useful += worth
        outcome.lost += judging - worth
        outcome.images_again += math.ceil(begun) - kept
        task.done += kept
        task.kept.append(task.done)
        if task.attempts > self._plan.retries:
            outcome.given_up += 1
            self._left -= 1
        else:
            self._queue.appendleft(task)
            if self._idle:
                self._take(self._idle.pop(), now)
        outcome.waiting += self._world.pause
        self._workers[number] = self._hire(now + self._world.pause)
        self._at(now + self._world.pause, number, lambda moment: self._take(number, moment))

    def _kept(self, task: Task, share: float) -> tuple[int, float]:
        """Of the images that were begun, those that are on record: a batch is written while the next is judged."""
        begun = share * (task.images - task.done)
        if self._plan.kind == "chunks":
            return 0, begun
        batches = int(begun / self._costs.batch) - 1
        return max(0, batches) * self._costs.batch, begun
