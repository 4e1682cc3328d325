"""What thousands of images cost in memory, and whether shards and engines give the very rows of a single process.

    python benchmarks/scale.py memory
    python benchmarks/scale.py equal --images 5000

`memory` judges and evaluates 100 to 10,000 small pictures, each time in a process of its own, and prints the highest
resident set that the system saw of it, with the growth per image from the first to the last.

`equal` renders pictures and judges them in one process, in four shards whose processes (and whose merging) are killed
at random moments and resumed, and, where Ray is installed, with two actors of which one is killed. It compares the
rows of each with those of the single process: lost, doubled and differing ones, and the maps pixel by pixel. The exit
status is 1 if there is any. Batches are composed differently, which may change the last bits of a sum: scores count as
equal up to 1e-5, map values up to 2 of 65,535 levels, and the largest difference is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = (100, 300, 1000, 3000, 10_000)
SCORE_TOLERANCE, LEVEL_TOLERANCE = 1e-5, 2
FIELDS = ("score", "global_score", "local_score", "peak")
HEADCLIP = (sys.executable, "-m", "headclip")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where pictures and runs go; kept, and used again")
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--image-size", type=int, default=64, help="side at which pictures enter the model")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures")
    commands = parser.add_subparsers(dest="command", required=True)
    memory = commands.add_parser("memory")
    memory.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    memory.add_argument("--what", nargs="+", default=["predict", "evaluate"], choices=["predict", "evaluate"])
    memory.add_argument("--bootstrap", type=int, default=100)
    equal = commands.add_parser("equal")
    equal.add_argument("--images", type=int, default=5000)
    equal.add_argument("--shards", type=int, default=4)
    equal.add_argument("--together", type=int, default=2, help="shards that run at a time")
    equal.add_argument("--kills", type=int, default=2, help="for each shard, and for the merging")
    equal.add_argument("--seed", type=int, default=0)
    equal.add_argument("--skip", nargs="*", default=[], choices=["ray", "evaluate"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headclip-scale-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        sys.exit(measure_memory(options, folder) if options.command == "memory" else compare_ways(options, folder))


# --- memory


def measure_memory(options: argparse.Namespace, folder: Path) -> int:
    data = folder / "noise"
    write_noise(data, max(options.counts), options.size)
    print(f"{options.size} px pictures, {options.backbone} at {options.image_size} px; highest resident set in MiB\n")
    print("| images | " + " | ".join(options.what) + " |\n| ---: |" + " ---: |" * len(options.what))
    peaks: dict[str, list[float]] = {what: [] for what in options.what}
    for count in options.counts:
        subset = folder / f"noise-{count}"
        link_subset(data, subset, count)
        for what in options.what:
            out = folder / f"{what}-{count}"
            shutil.rmtree(out, ignore_errors=True)
            peaks[what].append(peak_of(command_of(what, subset, out, options)))
            shutil.rmtree(out, ignore_errors=True)
        print(f"| {count:,} | " + " | ".join(f"{peaks[what][-1]:,.0f}" for what in options.what) + " |", flush=True)
    print()
    for what, values in peaks.items():
        images = options.counts[-1] - options.counts[0]
        growth = 1024 * (values[-1] - values[0]) / max(images, 1)
        print(f"{what}: {values[-1] / values[0]:.2f} times the first, {growth:,.2f} KiB for each further image")
    return 0


def command_of(what: str, data: Path, out: Path, options: argparse.Namespace) -> list[str]:
    model = ["--backbone", options.backbone, "--image-size", str(options.image_size), "--device", "cpu", "--quiet"]
    if what == "predict":
        return [*HEADCLIP, "predict", f"{data}/**/test/**/*.png", "--out", str(out), *model]  # without the masks
    spec = ["--data", f"folder={data}", "--bootstrap", str(options.bootstrap), "--no-figures"]
    return [*HEADCLIP, "evaluate", *spec, "--out", str(out), *model]


def peak_of(command: Sequence[str]) -> float:
    """The highest resident set of a process, in MiB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_maxrss / 1024


def write_noise(folder: Path, count: int, size: int) -> None:
    """`count` pictures of grey noise, every second with a bright square and its mask, as MVTec folders."""
    generator = np.random.default_rng(0)
    for index in range(count):
        pixels = generator.integers(60, 160, (size, size, 3), dtype=np.uint8)
        path = folder / f"part/test/good/{index:05}.png"
        if index % 2:
            path = folder / f"part/test/bright/{index:05}.png"
            mask = np.zeros((size, size), np.uint8)
            row, column = generator.integers(0, size - size // 4, 2)
            mask[row : row + size // 4, column : column + size // 4] = 255
            pixels[mask > 0] += 60
            _save(mask, folder / f"part/ground_truth/bright/{index:05}_mask.png")
        _save(pixels, path)


def _save(pixels: np.ndarray, path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=1)


def link_subset(source: Path, target: Path, count: int) -> None:
    """The first `count` pictures, with their masks, as links."""
    shutil.rmtree(target, ignore_errors=True)
    for path in source.rglob("*.png"):
        if int(path.stem.split("_")[0]) < count:
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)


# --- equality


@dataclass(frozen=True)
class Difference:
    """Of one run's rows from those of another."""

    rows: int
    lost: int
    doubled: int
    differing: int
    exact: int
    score: float
    levels: int

    @property
    def none(self) -> bool:
        return not (self.lost or self.doubled or self.differing)


def compare_ways(options: argparse.Namespace, folder: Path) -> int:
    rng = random.Random(options.seed)
    data = folder / "rendered"
    run([*HEADCLIP, "data", "synth", "--out", str(data), "--count", str(options.images), "--size", str(options.size)])
    break_some(data)
    one = folder / "one"
    shutil.rmtree(one, ignore_errors=True)
    started = time.monotonic()
    run(command_of("predict", data, one, options))
    print(f"one process: {len(rows_of(one)):,} rows in {time.monotonic() - started:,.0f} s", flush=True)
    ways = {"shards": merged_shards}
    if "ray" not in options.skip and has_ray():
        ways["ray"] = two_actors
    good = True
    for name, judge in ways.items():
        started, out = time.monotonic(), folder / name
        shutil.rmtree(out, ignore_errors=True)
        kills = judge(data, out, options, rng)
        found = compare(one, out)
        good &= found.none
        print(
            f"{name}: {found.rows:,} rows in {time.monotonic() - started:,.0f} s after {kills} kills; {found.lost} "
            f"lost, {found.doubled} doubled, {found.differing} differing; {found.exact:,} equal to the last bit; "
            f"largest difference {found.score:.1e} in a score, {found.levels} of 65,535 levels in a map",
            flush=True,
        )
    if "evaluate" not in options.skip:
        good &= compare_evaluations(data, folder, options, rng)
    print("equal" if good else "NOT EQUAL")
    return 0 if good else 1


def break_some(data: Path) -> None:
    """A picture in a thousand is damaged, so that failed rows are compared too."""
    for index, path in enumerate(sorted(data.rglob("test/**/*.png"))):
        if index % 1000 == 7:
            path.write_bytes(path.read_bytes()[:200])


def merged_shards(data: Path, out: Path, options: argparse.Namespace, rng: random.Random) -> int:
    command = [*command_of("predict", data, out, options), "--resume"]
    return killed_shards(command, out, "progress.jsonl", options, rng)


def killed_shards(command: list[str], out: Path, journal: str, options: argparse.Namespace, rng: random.Random) -> int:
    """Run every shard, a few at a time, killing each at random moments; then merge, killing that too."""
    kills = 0
    waiting = [(index, options.kills) for index in range(1, options.shards + 1)]
    running: list[tuple[subprocess.Popen[bytes], int, int, int | None]] = []
    share = options.images // options.shards
    while waiting or running:
        while waiting and len(running) < options.together:
            index, left = waiting.pop(0)
            place = out / f"shards/{index}-of-{options.shards}"
            target = None
            if left:  # what the journal will hold by then: anything from nothing to all, and a moment later
                held = lines_of(place, journal)
                target = rng.randint(held, max(held, share))  # shards are not all of one size
            process = start([*command, "--shard", f"{index}/{options.shards}"])
            running.append((process, index, left, target))
        time.sleep(0.02)
        for item in list(running):
            process, index, left, target = item
            place = out / f"shards/{index}-of-{options.shards}"
            if target is not None and process.poll() is None and lines_of(place, journal) >= target:
                time.sleep(rng.random() * 0.5)
                kills += kill(process)
            if process.poll() is None:
                continue
            running.remove(item)
            if process.returncode not in (0, -signal.SIGKILL):
                raise SystemExit(f"shard {index} ended with {process.returncode}")
            if process.returncode or left > 1:
                waiting.append((index, max(0, left - 1)))
    merge = [*HEADCLIP, "merge", str(out), "--quiet"]
    for _ in range(options.kills):
        process = start(merge)
        time.sleep(1.0 + rng.random() * (2.0 + share / 200))
        kills += kill(process)
    run(merge)
    return kills


def lines_of(place: Path, journal: str) -> int:
    """Judged images on record so far, wherever the journal lies below a shard's folder."""
    try:
        return sum(path.read_bytes().count(b"\n") for path in place.rglob(journal))
    except OSError:
        return 0


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")


def kill(process: subprocess.Popen[bytes]) -> int:
    """SIGKILL; 0 if it had ended before."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    return int(process.wait() == -signal.SIGKILL)


def has_ray() -> bool:
    """Whether Ray is installed and the command knows the engine."""
    try:
        import ray  # noqa: F401
    except ImportError:
        print("ray: not installed, left out")
        return False
    text = subprocess.run([*HEADCLIP, "predict", "--help"], capture_output=True, text=True).stdout
    return "--engine" in text


def two_actors(data: Path, out: Path, options: argparse.Namespace, rng: random.Random) -> int:
    """Ray with two actors, one of which is killed when a part of the work is done."""
    engine = ["--engine", "ray", "--actors", "2", "--cpus-per-actor", "0.5"]
    process = start([*command_of("predict", data, out, options), *engine])
    target, kills = rng.randint(options.images // 10, options.images // 2), 0
    while process.poll() is None:
        time.sleep(0.1)
        if not kills and lines_of(out, "progress.jsonl") >= target:
            kills = kill_an_actor(process.pid, rng)
    if process.returncode:
        raise SystemExit(f"ray ended with {process.returncode}")
    return kills


def kill_an_actor(driver: int, rng: random.Random) -> int:
    """SIGKILL to one of the actors that a driver has started; 0 if there is none."""
    parents: dict[int, int] = {}
    actors = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if command.startswith(b"ray::") and not command.startswith((b"ray::IDLE", b"ray::_")):
            actors.append(int(entry.name))
    own = [pid for pid in actors if descends(pid, driver, parents) and b"MapWorker" in _command(pid)]
    own = own or [pid for pid in actors if descends(pid, driver, parents)]
    if not own:
        return 0
    os.kill(rng.choice(own), signal.SIGKILL)
    return 1


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents and pid != ancestor:
        pid = parents[pid]
    return pid == ancestor


def rows_of(folder: Path) -> list[dict[str, object]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, object]] = pq.read_table(folder / "results.parquet").to_pylist()
    return rows


def compare(one: Path, other: Path) -> Difference:
    """Row by row, and map by map."""
    known = {str(row["path"]): row for row in rows_of(one)}
    rows = rows_of(other)
    names = Counter(str(row["path"]) for row in rows)
    names.update(name for name in csv_names(other) if name not in names)
    lost = len(known.keys() - names.keys())
    doubled = sum(count - 1 for count in names.values()) + len(names.keys() - known.keys())
    differing = exact = levels = 0
    score = 0.0
    for row in rows:
        reference = known.get(str(row["path"]))
        if reference is None:
            continue
        far, apart = _difference(reference, row), _levels_apart(one, other, reference)
        same = all(row[key] == reference[key] for key in row if key not in (*FIELDS, "seconds"))
        differing += not same or far > SCORE_TOLERANCE or apart > LEVEL_TOLERANCE
        exact += same and far == 0.0 and apart == 0
        score, levels = max(score, far), max(levels, apart)
    order = [str(row["path"]) for row in rows] == list(known)
    differing += 0 if order else 1
    return Difference(len(rows), lost, doubled, differing, exact, score, levels)


def csv_names(folder: Path) -> list[str]:
    import csv

    with (folder / "results.csv").open(encoding="utf-8", newline="") as handle:
        return [line["path"] for line in csv.DictReader(handle)]


def _difference(reference: dict[str, object], row: dict[str, object]) -> float:
    far = 0.0
    for key in FIELDS:
        first, second = reference[key], row[key]
        if first is None or second is None:
            far = max(far, 0.0 if first is second else 1.0)
        elif key != "peak":  # told by the map
            far = max(far, abs(float(str(first)) - float(str(second))))
    return far


def _levels_apart(one: Path, other: Path, row: dict[str, object]) -> int:
    if row["map"] is None:
        return 0
    first, second = (np.asarray(Image.open(folder / str(row["map"]))).astype(np.int64) for folder in (one, other))
    return int(np.abs(first - second).max()) if first.shape == second.shape else 65535


def compare_evaluations(data: Path, folder: Path, options: argparse.Namespace, rng: random.Random) -> bool:
    """Figures of one process and of killed, merged shards."""
    chosen = argparse.Namespace(**vars(options), bootstrap=100)
    one, out = folder / "evaluation-one", folder / "evaluation-shards"
    for place in (one, out):
        shutil.rmtree(place, ignore_errors=True)
    run(command_of("evaluate", data, one, chosen))
    kills = killed_shards([*command_of("evaluate", data, out, chosen), "--resume"], out, "progress.jsonl", options, rng)
    first, second = (json.loads((place / "results.json").read_text())["results"] for place in (one, out))
    scores = [(place / "scores.csv").read_text().splitlines() for place in (one, out)]
    lost = len(set(map(_name, scores[0])) - set(map(_name, scores[1])))
    doubled = len(scores[1]) - len(set(map(_name, scores[1])))
    pairs = [
        (a["mean"][protocol][metric], b["mean"][protocol].get(metric, 0.0))
        for a, b in zip(first, second, strict=True)
        for protocol in a["mean"]
        for metric in a["mean"][protocol]
    ]
    far = max(abs(a - b) for a, b in pairs)
    print(
        f"evaluation: {len(scores[1]) - 1:,} rows after {kills} kills; {lost} lost, {doubled} doubled; {len(pairs)} "
        f"figures, largest difference {far:.1e}",
        flush=True,
    )
    return not lost and not doubled and far < SCORE_TOLERANCE


def _name(line: str) -> str:
    return ",".join(line.split(",")[:3])


if __name__ == "__main__":
    main()
