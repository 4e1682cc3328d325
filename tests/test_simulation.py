"""The simulation of benchmarks/simulate.py counts what it should, where that can be worked out by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
if not (FOLDER / "simulation.py").is_file():
    pytest.skip("the benchmarks are not part of this copy", allow_module_level=True)
sys.path.insert(0, str(FOLDER))

from simulation import Costs, Plan, Task, World, simulate  # noqa: E402

COSTS = Costs(
    start=2.0,
    image=0.1,
    image_spread=0.0,
    rendering=0.0,
    listing=0.0,
    checking=0.001,
    merging=0.003,
    recording=0.0,
    batch=4,
)
QUIET = World(workers=4, kills_per_hour=0.0, pause=0.0, slow_share=0.0, slow_factor=1.0, spread=0.0)


def test_nothing_happens():
    tasks = [Task(100, 400) for _ in range(4)]
    found = simulate(Plan("p", "shards", 1, 4), 400, COSTS, QUIET, tasks=tasks)
    assert found.makespan == pytest.approx(2.0 + 10.0)
    assert found.useful == pytest.approx(40.0)
    assert found.starting == pytest.approx(8.0)
    assert (found.kills, found.lost, found.images_again, found.given_up) == (0, 0.0, 0, 0)
    assert found.merging == pytest.approx(400 * 0.003)


def test_each_shard_lists_every_image_of_its_run():
    costs = replace(COSTS, listing=0.01)
    one = simulate(Plan("p", "shards", 1, 8), 800, costs, QUIET)
    many = simulate(Plan("p", "shards", 8, 1), 800, costs, QUIET)
    assert one.starting - many.starting == pytest.approx(8 * 800 * 0.01 - 800 * 0.01)


def test_a_known_kill_of_a_shard_keeps_its_journal():
    """Killed 5 seconds into judging: 50 images begun, 12 whole batches, of which the last is not written yet."""
    task = Task(100, 100, kills_after=[7.0])
    world = replace(QUIET, workers=1, pause=3.0)
    found = simulate(Plan("p", "shards"), 100, COSTS, world, tasks=[task])
    assert task.kept == [44]
    assert found.kills == 1
    assert found.lost == pytest.approx(0.6)
    assert found.makespan == pytest.approx(7.0 + 3.0 + 2.0 + 44 * 0.001 + 56 * 0.1)


def test_of_a_chunk_nothing_is_kept_and_the_model_is_loaded_once():
    tasks = [Task(10, 30, kills_after=[1.5] if n == 1 else []) for n in range(3)]
    found = simulate(Plan("p", "chunks", chunk=10, retries=2), 30, COSTS, replace(QUIET, workers=1), tasks=tasks)
    # A start and a chunk; one that is killed after 1.5 seconds would end before, so that it is not killed.
    assert found.kills == 0
    assert found.makespan == pytest.approx(2.0 + 3.0)
    tasks = [Task(10, 30, kills_after=[0.5] if n == 1 else []) for n in range(3)]
    found = simulate(Plan("p", "chunks", chunk=10, retries=2), 30, COSTS, replace(QUIET, workers=1), tasks=tasks)
    assert found.kills == 1
    assert found.lost == pytest.approx(0.5)
    assert found.makespan == pytest.approx(3.0 + 0.5 + 2.0 + 2.0)


@pytest.mark.parametrize(("kind", "shards"), [("shards", 1), ("shards", 16), ("chunks", 1)])
def test_every_image_is_judged_and_time_adds_up(kind, shards):
    world = World(workers=8, kills_per_hour=20.0, pause=5.0, slow_share=0.2, slow_factor=3.0, spread=0.1)
    plan = Plan("p", kind, 4, shards, chunk=50)
    found = simulate(plan, 40_000, COSTS, world, seed=1)
    assert found.images == 40_000
    assert found.given_up == 0
    assert found.kills > 0
    # Machines are slower than the measured one on average, so that useful seconds are at least those of the images.
    assert found.useful > 0.9 * 40_000 * COSTS.image
    spent = found.useful + found.starting + found.lost
    assert spent <= world.workers * found.makespan
    assert simulate(plan, 40_000, COSTS, world, seed=1) == found
    assert simulate(plan, 40_000, COSTS, world, seed=2) != found


def test_a_task_that_kills_every_worker_is_given_up():
    task = Task(10, 10, kills_after=[0.1] * 9)
    found = simulate(Plan("p", "chunks", retries=2), 10, COSTS, replace(QUIET, workers=1), tasks=[task])
    assert (found.kills, found.given_up) == (3, 1)
