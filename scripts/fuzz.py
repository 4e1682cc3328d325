"""Fuzzing: damaged and random input for everything that reads what others send, for as long as you like.

    python scripts/fuzz.py --seconds 120                     # every target in turns
    python scripts/fuzz.py --seconds 60 --targets decode     # those whose name holds a word

Each target runs in a process of its own. An input has to give a result or a HeadclipError, within SECONDS and without
memory growing by more than MEMORY; what does not is a finding: it is printed, kept in a file, and the exit status is 1.
At the end the number of inputs tried is printed for each target, and how many of them gave a result.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "src"))

from fuzzing.targets import Target, make_targets

SECONDS = 20  # for one input; the processor may be busy
MEMORY = 300 << 20  # bytes that memory may grow by; images here are refused above 4 million pixels
MOST_FINDINGS = 5  # of one target; then it is left alone


@dataclass
class Count:
    """Inputs of one target. results: those that were read; refused: those that gave a HeadclipError."""

    target: str
    inputs: int = 0
    results: int = 0
    refused: int = 0
    memory: int = 0
    findings: list[str] = field(default_factory=list)


def main() -> int:
    """Fuzz what the command line asks for; 0 where nothing was found."""
    options = _options()
    warnings.simplefilter("ignore")
    options.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="headclip-fuzz-") as name:
        targets = _chosen(make_targets(Path(name)), options.targets)
        counts = [_fuzz(target, options.seconds / len(targets), options) for target in targets]
    _print(counts)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(count) for count in counts], indent=2) + "\n", encoding="utf-8")
    return int(any(count.findings for count in counts))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="in all, shared evenly by the targets [60]")
    parser.add_argument("--targets", default="", help="words, with commas between them: targets with one in their name")
    parser.add_argument("--seed", type=int, default=None, help="the same inputs again [another one each time]")
    parser.add_argument("--keep", type=Path, default=Path("scratch/fuzz"), help="folder for inputs that were findings")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts here too")
    return parser.parse_args()


def _chosen(targets: dict[str, Target], words: str) -> list[Target]:
    wanted = [word.strip() for word in words.split(",") if word.strip()]
    chosen = [target for name, target in targets.items() if not wanted or any(word in name for word in wanted)]
    if not chosen:
        raise SystemExit(f"error: no target has {words} in its name; there are {', '.join(targets)}")
    return chosen


def _fuzz(target: Target, seconds: float, options: argparse.Namespace) -> Count:
    """One target for so long, in children; one that hangs or dies is a finding, and the next goes on."""
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    count = Count(target.name)
    deadline, start = time.monotonic() + seconds, 0
    while start == 0 or (time.monotonic() < deadline and len(count.findings) < MOST_FINDINGS):
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            os.close(reading)
            _child(target, (seed, start), deadline, os.fdopen(writing, "w", buffering=1))
        os.close(writing)
        with os.fdopen(reading) as lines:
            start = _follow(lines, process, count, target, (seed, start), options.keep)
    sys.stderr.write(f"{target.name}: {count.inputs} inputs, {len(count.findings)} findings\n")
    return count


def _input(target: Target, seed: int, number: int) -> bytes:
    return target.make(random.Random(f"{seed} {target.name} {number}"))


def _child(target: Target, place: tuple[int, int], deadline: float, out: TextIO) -> None:
    """Try input after input; tell each number before and each outcome after. Never returns."""
    try:
        with open(os.devnull, "w") as silence:  # noqa: PTH123 - libraries in C complain to stderr
            os.dup2(silence.fileno(), 2)
        for content in target.seeds:  # imports, and whether sound files are read at all
            assert target.try_one(content), f"a sound file of {target.name} is refused"
        seed, number = place
        while number == place[1] or time.monotonic() < deadline:
            content = _input(target, seed, number)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            out.write(f"begin {number}\n")
            signal.alarm(SECONDS)  # the default action ends the process
            found = _outcome(target, content)
            signal.alarm(0)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
            if grown > MEMORY:
                found = f"memory grew by {grown >> 20} MiB"
            out.write(f"end {grown} {json.dumps(found)}\n")
            number += 1
    except BaseException:
        out.write(f"broken {json.dumps(traceback.format_exc())}\n")
    finally:
        os._exit(0)


def _outcome(target: Target, content: bytes) -> bool | str:
    """True: read; False: refused; text: what should not have come."""
    try:
        return target.try_one(content)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "headclip" in frame.filename]
        last = ours[-1] if ours else place
        where = f"{Path(last.filename).name}:{last.lineno}"
        return f"{type(error).__name__}: {str(error)[:200]} (at {where})"


def _follow(lines: TextIO, process: int, count: Count, target: Target, place: tuple[int, int], keep: Path) -> int:
    """Count what a child tells; the number of the next input."""
    (seed, number), begun = place, False

    def finding(what: str) -> None:
        if what in [known.partition(" <- ")[0] for known in count.findings]:
            return
        content = _input(target, seed, number)
        path = keep / f"{re.sub('[^A-Za-z0-9]+', '-', target.name)}-{hashlib.sha256(content).hexdigest()[:10]}"
        path.write_bytes(content)
        count.findings.append(f"{what} <- {path}")

    for line in lines:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "begin":
            number, begun = int(rest), True
            count.inputs += 1
        elif word == "end":
            begun = False
            grown, _, outcome = rest.partition(" ")
            count.memory = max(count.memory, int(grown) >> 20)
            found = json.loads(outcome)
            if isinstance(found, str):
                finding(found)
            count.results += found is True
            count.refused += found is False
        else:
            raise RuntimeError(f"{target.name} cannot be fuzzed:\n{json.loads(rest)}")
    _, status = os.waitpid(process, 0)
    if begun:
        code = os.waitstatus_to_exitcode(status)
        finding(f"no end within {SECONDS} s" if code == -signal.SIGALRM else f"the process died with {code}")
    return number + 1


def _print(counts: list[Count]) -> None:
    rows = [("target", "inputs", "read", "refused", "memory MiB", "findings")]
    rows += [
        (c.target, f"{c.inputs:,}", f"{c.results:,}", f"{c.refused:,}", str(c.memory), str(len(c.findings)))
        for c in counts
    ]
    total = [sum(getattr(count, name) for count in counts) for name in ("inputs", "results", "refused")]
    rows.append(("all", *(f"{value:,}" for value in total), "", str(sum(len(count.findings) for count in counts))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(
            cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        sys.stdout.write(line.rstrip() + "\n")
    for count in counts:
        for finding in count.findings:
            sys.stdout.write(f"{count.target}: {finding}\n")


if __name__ == "__main__":
    sys.exit(main())
