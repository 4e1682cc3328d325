"""The simulation beside real shards that are killed at known moments."""

from __future__ import annotations

import argparse
import random
import shutil
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from calibration import HEADCLIP, Measured, link, render, shard_command, watch
from simulation import Plan, Task, World, simulate

from headclip.data.discover import discover
from headclip.runs.shards import Shard

SHARDS = 4


@dataclass
class Real:
    """What happened. cpu: CPU seconds by worker; kept: images on record after each kill, by shard."""

    cpu: dict[int, float] = field(default_factory=dict)
    kept: dict[int, list[int]] = field(default_factory=dict)
    wall: float = 0.0


def check(folder: Path, options: argparse.Namespace, measured: Measured) -> int:
    """Run four shards, some killed, and print how far the simulation was off."""
    rng = random.Random(options.seed)
    pictures = render(folder / "rendered", options.images + options.images // 10, options.size)[: options.images]
    data, out = link(pictures, folder / "in"), folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    names = [file.name for file in discover([data])]
    shares = [sum(Shard(index, SHARDS).holds(name) for name in names) for index in range(1, SHARDS + 1)]
    whole = measured.costs.start + measured.costs.image * len(names) / SHARDS
    kills = {1: [0.4 * whole, 0.3 * whole], 2: [], 3: [(0.5 + 0.4 * rng.random()) * whole], 4: [0.5 * whole]}
    tasks = [Task(share, len(names), kills_after=list(kills[index])) for index, share in enumerate(shares, 1)]
    world = World(options.together, 0.0, 0.0, 0.0, 1.0, 0.0)
    said = simulate(Plan("check", "shards", 1, SHARDS), len(names), measured.costs, world, tasks=tasks)
    found = _run(data, out, options, kills)
    merging = watch([*HEADCLIP, "merge", str(out), "--quiet"])[0]
    print(f"{len(names)} pictures in shards of {shares}, {options.together} processes at a time")
    for index, moments in kills.items():
        killed = ", ".join(f"{moment:.1f}" for moment in moments) or "no"
        print(f"shard {index}: killed after {killed} CPU seconds, then on record {found.kept.get(index, [])}, "
              f"predicted {tasks[index - 1].kept}")  # fmt: skip
    for name, guess, real in (
        ("makespan, CPU seconds of the busiest worker", said.makespan, max(found.cpu.values())),
        ("makespan, wall seconds", said.makespan, found.wall),
        ("CPU seconds of all workers", said.useful + said.starting + said.lost, sum(found.cpu.values())),
        ("merging, CPU seconds", measured.merge_start + len(names) * measured.costs.merging, merging.cpu),
    ):
        print(f"{name}: predicted {guess:,.1f}, measured {real:,.1f}, ratio {guess / real:.2f}")
    return 0


def _run(data: Path, out: Path, options: argparse.Namespace, kills: dict[int, list[float]]) -> Real:
    """The shards, so many at a time; one that is killed is taken up by the worker that is free first."""
    real, queue = Real(), deque(range(1, SHARDS + 1))
    moments = {index: list(known) for index, known in kills.items()}
    began = time.monotonic()
    with ThreadPoolExecutor(options.together) as pool:
        free, running = deque(range(options.together)), {}
        while queue or running:
            while queue and free:
                index, worker = queue.popleft(), free.popleft()
                after = moments[index].pop(0) if moments[index] else None
                command = shard_command(data, out, f"{index}/{SHARDS}", options.batch)
                running[pool.submit(watch, command, after)] = index, worker
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                index, worker = running.pop(done)
                used, killed = done.result()
                real.cpu[worker] = real.cpu.get(worker, 0.0) + used.cpu
                free.append(worker)
                if killed:
                    queue.appendleft(index)
                    journal = out / f"shards/{index}-of-{SHARDS}/progress.jsonl"
                    lines = journal.read_bytes().count(b"\n") if journal.is_file() else 0
                    real.kept.setdefault(index, []).append(lines)
    real.wall = time.monotonic() - began
    return real
