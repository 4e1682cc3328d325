"""Fault drills: kill every long job at random moments and count what is lost; then fill disks, take inputs away...

    python scripts/drills.py                      # 200 kills in all, and every fault
    python scripts/drills.py --kills 20 --jobs predict,train --no-faults

Jobs are tiny, so that a kill costs a second or less. Exit status 1 where a row was lost or doubled, a half-written
file was taken for whole, a result differs from that of an undisturbed run, or a fault was met without a clear message.
Needs fork (Linux, macOS). The full-disk drills mount a small tmpfs and need root for that; without it they limit the
size of files instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "src"))

from drilling import faults, jobs, kills, processes

NAMES = ("predict", "evaluate", "calibrate", "train", "pretrain")
COLUMNS = ("kills", "restarts", "rounds", "lost", "doubled", "half_written", "left_behind", "equal")
HEADINGS = ("job", "kills", "restarts", "runs", "rows lost", "rows doubled", "half-written", "left behind", "equal")


def main() -> int:
    """Run the drills that the command line asks for; 0 where all went well."""
    options = _options()
    chosen = options.jobs.split(",")
    if unknown := set(chosen) - set(NAMES):
        sys.stderr.write(f"error: no such job: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}\n")
        return 2
    processes.warm_up()
    begun = time.monotonic()
    with nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory(prefix="headclip-drills-") as name:
        scratch = Path(name)
        scratch.mkdir(parents=True, exist_ok=True)
        inputs = scratch / "inputs"
        if not (inputs / "recipe.json").exists():
            processes.ask(jobs.prepare, inputs, scratch=scratch)
        known = jobs.make_jobs(inputs)
        tallies = []
        for number, job in enumerate(chosen):
            share = options.kills // len(chosen) + (number < options.kills % len(chosen))
            if share:
                tallies.append(kills.drill(known[job], scratch, share, options.seed, _tell))
        met = faults.run_all({name: known[name] for name in chosen}, inputs, scratch, _tell) if options.faults else []
    _print_kills(tallies)
    _print_faults(met)
    sys.stdout.write(f"\n{time.monotonic() - begun:.0f} s\n")
    if options.json is not None:
        content = {"kills": [asdict(tally) for tally in tallies], "faults": [asdict(fault) for fault in met]}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0 if all(tally.sound for tally in tallies) and all(fault.met for fault in met) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="in all, shared evenly by the jobs [200]")
    parser.add_argument("--jobs", default=",".join(NAMES), help="which, with commas between them [all]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--faults", action=argparse.BooleanOptionalAction, default=True, help="other mishaps as well")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here and leave everything for a look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts here too")
    return parser.parse_args()


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")


def _print_kills(tallies: list[kills.Tally]) -> None:
    if not tallies:
        return
    rows = [[tally.job, *(getattr(tally, name) for name in COLUMNS)] for tally in tallies]
    rows.append(["all", *(sum(getattr(tally, name) for tally in tallies) for name in COLUMNS)])
    _print_table([HEADINGS, *[[str(cell) for cell in row] for row in rows]])
    for tally in tallies:
        for remark in tally.remarks:
            sys.stdout.write(f"{tally.job}: {remark}\n")


def _print_faults(met: list[faults.Fault]) -> None:
    if not met:
        return
    sys.stdout.write("\n")
    _print_table([("fault", "job", "met", "what was seen"), *[fault.cells() for fault in met]])
    sys.stdout.write(f"{sum(fault.met for fault in met)} of {len(met)} faults met\n")


def _print_table(rows: list) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


if __name__ == "__main__":
    sys.exit(main())
