"""100 million images on 64 workers, on paper: how long, how busy, what kills and stragglers cost, what breaks first.

    python benchmarks/simulate.py calibrate                # what things cost here, into benchmarks/simulate.json
    python benchmarks/simulate.py run                      # plans compared, from that file
    python benchmarks/simulate.py run --image-seconds 8.2  # a larger model
    python benchmarks/simulate.py check                    # the simulation beside real processes that are killed

`simulation.py` says what is simulated; docs/scaling.md says what that leaves out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from calibration import Measured, calibrate
from reality import check
from simulation import Costs, Outcome, Plan, World, simulate

KEPT = Path(__file__).with_suffix(".json")
MOST_BLOCKS = 20_000  # into which headclip divides the chunks of one run for Ray Data
BATCHES = 8  # of a chunk


def main() -> int:
    options = _options()
    if options.command == "run":
        return compare(options)
    with tempfile.TemporaryDirectory(prefix="headclip-simulate-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.command == "check":
            return check(folder, options, Measured.load(options.costs))
        measured = calibrate(folder, options, lambda line: print(line, flush=True))
    measured.save(options.costs)
    print(f"written: {options.costs}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--costs", type=Path, default=KEPT, metavar="FILE", help="what was measured [%(default)s]")
    parser.add_argument("--folder", type=Path, help="where pictures and runs go [a temporary one]")
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("calibrate")
    measure.add_argument("--rounds", type=int, default=3)
    measure.add_argument("--few", type=int, default=32, help="pictures of the short run")
    measure.add_argument("--many", type=int, default=192, help="pictures of the long one")
    measure.add_argument("--list-counts", type=int, nargs="+", default=[10_000, 100_000])
    measure.add_argument("--merge-counts", type=int, nargs="+", default=[1000, 10_000])
    measure.add_argument("--row-counts", type=int, nargs="+", default=[2000, 20_000], help="of rows without files")
    real = commands.add_parser("check")
    real.add_argument("--images", type=int, default=480)
    real.add_argument("--together", type=int, default=2, help="processes at a time")
    real.add_argument("--seed", type=int, default=0, help="of the moments of kills")
    for command in (measure, real):
        command.add_argument("--size", type=int, default=224, help="side of the pictures")
        command.add_argument("--batch", type=int, default=8)
    run = commands.add_parser("run")
    run.add_argument("--images", type=int, default=100_000_000)
    run.add_argument("--image-seconds", type=float, help="CPU seconds an image, instead of those measured")
    run.add_argument("--image-list-seconds", type=float, help="seconds to list an image, such as of an object store")
    run.add_argument("--runs", type=int, default=1000, help="parts of the plan by prefixes")
    run.add_argument("--seeds", type=int, default=5)
    world = World()
    run.add_argument("--workers", type=int, default=world.workers)
    run.add_argument("--kills-per-hour", type=float, default=world.kills_per_hour, help="of each worker")
    run.add_argument("--pause", type=float, default=world.pause, help="seconds until it is replaced")
    run.add_argument("--slow-share", type=float, default=world.slow_share, help="of machines")
    run.add_argument("--slow-factor", type=float, default=world.slow_factor)
    run.add_argument("--spread", type=float, default=world.spread, help="sigma of the pace of all")
    return parser.parse_args()


def plans(options: argparse.Namespace, costs: Costs) -> list[Plan]:
    """One run in as many shards as workers, in many more, by Ray; and many runs."""
    chunk = costs.batch * BATCHES
    return [
        Plan(f"1 run, {options.workers} shards", "shards", 1, options.workers),
        Plan(f"1 run, {16 * options.workers} shards", "shards", 1, 16 * options.workers),
        Plan("1 run, Ray", "chunks", 1, chunk=max(chunk, options.images // MOST_BLOCKS), retries=2),
        Plan(f"{options.runs} runs, unsharded", "shards", options.runs, 1),
        Plan(f"{options.runs // 10} runs, 64 shards each", "shards", options.runs // 10, 64),
    ]


def compare(options: argparse.Namespace) -> int:
    """Print what becomes of each plan."""
    measured = Measured.load(options.costs)
    costs = measured.costs
    if options.image_seconds:
        spread = costs.image_spread * options.image_seconds / costs.image
        costs = replace(costs, image=options.image_seconds, image_spread=spread)
    if options.image_list_seconds is not None:
        costs = replace(costs, listing=options.image_list_seconds)
    names = ("workers", "kills_per_hour", "pause", "slow_share", "slow_factor", "spread")
    world = World(**{name: getattr(options, name) for name in names})
    print(f"{options.images:,} images, {1000 * costs.image:,.1f} CPU ms each; {world}\n")
    head = ("plan", "days (lowest-highest)", "useful", "starts and lists", "lost to kills", "waiting", "idle", "tail",
            "merging, days", "kills", "judged again", "given up")  # fmt: skip
    print(_heading(head))
    for plan in plans(options, costs):
        found = [simulate(plan, options.images, costs, world, seed) for seed in range(options.seeds)]
        print(_line(plan, found, costs), flush=True)
    print("\n" + _heading(("plan", "a worker holds, GiB", "merging or record, GiB", "lists, GB", "results, TB")))
    for plan in plans(options, costs):
        print(_sizes(plan, options.images, measured))
    return 0


def _heading(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n|{' --- |' * len(cells)}"


def _line(plan: Plan, found: Sequence[Outcome], costs: Costs) -> str:
    def mean(value: str) -> float:
        return statistics.mean(one.share(getattr(one, value)) for one in found)

    days = [one.makespan / 86_400 for one in found]
    parts = [mean(name) for name in ("useful", "starting", "lost", "waiting")]
    idle = max(0.0, 1 - sum(parts))
    shares = [*parts, idle, statistics.mean(one.tail for one in found)]
    merging = f"{statistics.mean(one.merging for one in found) / 86_400:.2f}" if plan.merged else ""
    counts = [round(statistics.mean(getattr(one, name) for one in found)) for name in
              ("kills", "images_again", "given_up")]  # fmt: skip
    cells = [
        plan.name,
        f"{statistics.mean(days):.2f} ({min(days):.2f}-{max(days):.2f})",
        *(f"{100 * share:.2f} %" for share in shares),
        merging,
        *(f"{count:,}" for count in counts),
    ]
    return "| " + " | ".join(cells) + " |"


def _sizes(plan: Plan, images: int, measured: Measured) -> str:
    """Memory, from what was measured for each further image; a worker's own hundreds of MiB come on top."""
    each, kind = images / plan.runs, "rows" if measured.tables["rows"] else "merging"
    listing, merging = (measured.memory[name] * each / 2**20 for name in ("listing", kind))
    holds = listing if plan.kind == "shards" else 0.0
    central = 0.0 if plan.alone else merging
    lists = measured.tables["listing"][-1]["disk"] * images / 1e9 if plan.merged else 0.0
    results = sum(measured.disk.values()) * images / 1e12
    return f"| {plan.name} | {holds:,.2f} | {central:,.2f} | {lists:,.1f} | {results:,.1f} |"


if __name__ == "__main__":
    sys.exit(main())
