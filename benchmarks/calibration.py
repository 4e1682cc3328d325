"""What an image, a row and a start cost here, measured with processes of headclip; for simulate.py."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from simulation import Costs

HEADCLIP = (sys.executable, "-m", "headclip")
_SELF = (sys.executable, str(Path(__file__)))
_FOLDER_SIZE = 1000  # files in one folder
_ROWS = 20_000  # for what recording costs


@dataclass(frozen=True)
class Usage:
    """Of one process: cpu and wall seconds, and its highest resident set in MiB."""

    cpu: float
    wall: float
    peak: float


@dataclass(frozen=True)
class Measured:
    """costs: for the simulation. spreads: lowest and highest of the rounds, by the name of the cost.

    memory: KiB for each further image of a process that lists, of one that merges, and of one that merges rows without
    files. disk: bytes for each image, by kind. tables: what was measured by count.
    """

    costs: Costs
    spreads: dict[str, tuple[float, float]]
    memory: dict[str, float]
    disk: dict[str, float]
    tables: dict[str, list[dict[str, float]]]
    about: dict[str, Any]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @property
    def merge_start(self) -> float:
        """CPU seconds of merging before the first row."""
        first = self.tables["merging"][0]
        return first["cpu"] - first["count"] * self.costs.merging

    @classmethod
    def load(cls, path: Path) -> Measured:
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(**values | {"costs": Costs(**values["costs"])})


def watch(command: Sequence[str], kill_after: float | None = None, failing: bool = False) -> tuple[Usage, bool]:
    """Run a process to its end, or send SIGKILL when it has had so many CPU seconds; whether that happened.

    failing: it may say that no image could be judged, by its exit status 1.
    """
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while kill_after is not None and process.returncode is None:
        if _cpu_so_far(process.pid) >= kill_after:
            process.kill()
            break
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(0.01)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, -9, int(failing)) or (process.returncode == -9 and kill_after is None):
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    found = Usage(usage.ru_utime + usage.ru_stime, time.monotonic() - began, usage.ru_maxrss / 1024)
    return found, process.returncode == -9


def _cpu_so_far(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def shard_command(data: Path, out: Path, shard: str, batch: int) -> list[str]:
    """Judges a shard, or the whole for "", with the embedded model as it comes."""
    division = ["--shard", shard] if shard else []
    options = ["--device", "cpu", "--batch-size", str(batch), "--quiet", "--resume"]
    return [*HEADCLIP, "predict", str(data), "--out", str(out), *division, *options]


def render(folder: Path, count: int, size: int) -> list[Path]:
    """Rendered pictures, without their masks."""
    watch([*HEADCLIP, "data", "synth", "--out", str(folder), "--count", str(count), "--size", str(size)])
    return sorted(folder.rglob("test/**/*.png"))[:count]


def link(pictures: Sequence[Path], folder: Path) -> Path:
    """A folder with nothing but these pictures."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        os.link(picture, folder / f"{number:06}.png")
    return folder


def calibrate(folder: Path, options: Any, say: Callable[[str], None]) -> Measured:
    """Measure everything; `options` are those of simulate.py."""
    few, many = options.few, options.many
    pictures = render(folder / "rendered", many + many // 10, options.size)  # some have no test split
    if len(pictures) < many:
        raise SystemExit(f"{len(pictures)} pictures where {many} are needed")
    small, large = link(pictures[:few], folder / "few"), link(pictures[:many], folder / "many")
    rounds: dict[str, list[float]] = {}
    for number in range(options.rounds):
        found = _round(folder, small, large, (few, many), options.batch)
        for name, value in found.items():
            rounds.setdefault(name, []).append(value)
        say(f"round {number + 1}: " + ", ".join(f"{name} {1000 * value:,.2f} ms" for name, value in found.items()))
    spread = _image_spread(folder / "many-out/shards/1-of-1", options.batch)
    disk = _disk(folder / "whole-out", many)
    listing = [_list(folder, count, say) for count in options.list_counts]
    merging = [_merge(folder, count, say) for count in options.merge_counts]
    rows = [_merge_rows(folder, count, say) for count in options.row_counts]
    recording = _recording(folder / "recording")
    costs = Costs(
        image_spread=spread,
        listing=_slope(listing, "cpu"),
        merging=_slope(merging, "cpu"),
        recording=recording,
        batch=options.batch,
        **{name: statistics.median(values) for name, values in rounds.items()},
    )
    tables = {"listing": listing, "merging": merging, "rows": rows}
    memory = {name: 1024 * _slope(table, "peak") for name, table in tables.items()}
    spreads = {name: (min(values), max(values)) for name, values in rounds.items()}
    about = {"processor": _processor(), "python": platform.python_version(), "size": options.size, "pictures": many}
    return Measured(costs, spreads, memory, disk, tables, about)


def _round(folder: Path, small: Path, large: Path, counts: tuple[int, int], batch: int) -> dict[str, float]:
    """Seconds: a start, an image, its rendering, the check of one that was judged."""
    used = {}
    for name, data in (("few", small), ("many", large)):
        out = folder / f"{name}-out"
        shutil.rmtree(out, ignore_errors=True)
        used[name] = watch(shard_command(data, out, "1/1", batch))[0].cpu
        used[f"{name} again"] = watch(shard_command(data, out, "1/1", batch))[0].cpu
    whole = folder / "whole-out"
    shutil.rmtree(whole, ignore_errors=True)
    used["whole"] = watch(shard_command(large, whole, "", batch))[0].cpu
    more = counts[1] - counts[0]
    image = (used["many"] - used["few"]) / more
    return {
        "start": used["few"] - counts[0] * image,
        "image": image,
        "rendering": max(0.0, used["whole"] - used["many"]) / counts[1],
        "checking": max(0.0, used["many again"] - used["few again"]) / more,
    }


def _image_spread(run: Path, batch: int) -> float:
    """Standard deviation of an image's seconds: that of batches, which share theirs evenly, times their root."""
    import pyarrow.parquet as pq

    seconds = [value for value in pq.read_table(run / "results.parquet")["seconds"].to_pylist() if value]
    return statistics.stdev(seconds[::batch]) * batch**0.5


def _disk(run: Path, count: int) -> dict[str, float]:
    """Bytes for each image below the folders of a run, and in its tables."""
    found = {name: sum(path.stat().st_size for path in (run / name).rglob("*") if path.is_file()) / count
             for name in ("maps", "previews", "overlays")}  # fmt: skip
    tables = ("progress.jsonl", "results.parquet", "results.csv", "report.html")
    return found | {name: (run / name).stat().st_size / count for name in tables}


def _slope(table: Sequence[dict[str, float]], name: str) -> float:
    """For each further image, from the first count to the last."""
    return (table[-1][name] - table[0][name]) / (table[-1]["count"] - table[0]["count"])


def _list(folder: Path, count: int, say: Callable[[str], None]) -> dict[str, float]:
    """What a shard's process does before its first image, with files that are empty."""
    place = folder / f"list-{count}"
    for number in range(count):
        if number % _FOLDER_SIZE == 0:
            (place / f"part {number // _FOLDER_SIZE:05}").mkdir(parents=True, exist_ok=True)
        (place / f"part {number // _FOLDER_SIZE:05}/image {number:08}.png").touch()
    used = watch([*_SELF, "list", str(place), str(folder / "listing")])[0]
    size = sum(path.stat().st_size for path in (folder / "listing").iterdir())
    shutil.rmtree(place)
    shutil.rmtree(folder / "listing")
    say(f"list of {count:,}: {used.cpu:,.1f} s, {used.peak:,.0f} MiB, {size / count:,.1f} bytes an image on disk")
    return {"count": count, "cpu": used.cpu, "peak": used.peak, "disk": size / count}


def _merge(folder: Path, count: int, say: Callable[[str], None]) -> dict[str, float]:
    """Merging of four shards whose maps have 8 x 8 pixels."""
    out = folder / f"merge-{count}"
    shutil.rmtree(out, ignore_errors=True)
    watch([*_SELF, "make", str(count), str(out)])
    used = watch([*HEADCLIP, "merge", str(out / "run"), "--quiet"])[0]
    report = (out / "run/report.html").stat().st_size / count
    shutil.rmtree(out)
    say(f"merge of {count:,} rows: {used.cpu:,.1f} s, {used.wall:,.0f} s of wall time, {used.peak:,.0f} MiB")
    return {"count": count, "cpu": used.cpu, "wall": used.wall, "peak": used.peak, "report": report}


def _merge_rows(folder: Path, count: int, say: Callable[[str], None]) -> dict[str, float]:
    """Merging of rows that have no files: what the rows themselves cost."""
    out = folder / f"rows-{count}"
    shutil.rmtree(out, ignore_errors=True)
    watch([*_SELF, "rows", str(count), str(out)])
    used = watch([*HEADCLIP, "merge", str(out / "run"), "--quiet"], failing=True)[0]
    shutil.rmtree(out)
    say(f"merge of {count:,} rows without files: {used.cpu:,.1f} s, {used.peak:,.0f} MiB")
    return {"count": count, "cpu": used.cpu, "wall": used.wall, "peak": used.peak}


def _recording(folder: Path) -> float:
    """CPU seconds for one row on the machine that keeps the record: its line in the journal."""
    from headclip.data.discover import ImageFile, ImageSet
    from headclip.runs.run import Entry, Row
    from headclip.runs.writer import RunWriter

    shutil.rmtree(folder, ignore_errors=True)
    names = [f"part {n // _FOLDER_SIZE:05}/image {n:08}.png" for n in range(_ROWS)]
    images = ImageSet(folder, tuple(ImageFile(folder / name, name) for name in names))
    rows = [Entry(Row(name, "ok", None, 0.5, 224, 224, 0.5, 0.5, f"maps/{name}.png", 0.1, 0.5), 1, 1, "0" * 64)
            for name in names]  # fmt: skip
    with RunWriter(folder, images, {"method": "none"}) as writer:
        began = time.process_time()
        for first in range(0, _ROWS, 64):
            writer.append(rows[first : first + 64])
        return (time.process_time() - began) / _ROWS


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


# --- what runs in processes of its own


class _Brightness:
    """A detector without a model: the map is the brightness."""

    batch_size = 256

    def describe(self) -> dict[str, Any]:
        return {"backbone": "none", "backbone_hash": "0" * 64, "method": "brightness", "image_size": 8}

    def predict_arrays(self, images: list[Any], /) -> list[Any]:
        from types import SimpleNamespace

        maps = [image.astype(np.float32).mean(axis=2) / np.float32(255.0) for image in images]
        facts = ("score", "global_score", "local_score")
        return [SimpleNamespace(**dict.fromkeys(facts, float(m.mean())), anomaly_map=m) for m in maps]


def _do_list(images: str, out: str) -> None:
    from headclip.data.discover import discover
    from headclip.runs.shards import Shard, keep_listing

    found = discover([images])
    share = Shard(1, 64).of(found)
    keep_listing(Path(out), [file.name for file in found])
    assert len(share) <= len(found)


def _do_make(count: str, folder: str) -> None:
    """Four finished shards of tiny pictures."""
    from headclip.inference.predict import predict_run
    from headclip.runs.shards import Shard

    place = Path(folder)
    rng = np.random.default_rng(0)
    for number in range(int(count)):
        path = place / f"in/part {number // _FOLDER_SIZE:05}/image {number:08}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
    for index in range(1, 5):
        predict_run(_Brightness(), [place / "in"], place / "run", shard=Shard(index, 4), refresh_seconds=1e9)


def _do_rows(count: str, folder: str) -> None:
    """Two finished shards of images that failed: rows without files, so that many are soon made."""
    from headclip.data.discover import ImageFile, ImageSet
    from headclip.runs.run import Entry, Row
    from headclip.runs.shards import Shard, keep_listing
    from headclip.runs.writer import RunWriter

    place = Path(folder)
    names = [f"part {n // _FOLDER_SIZE:05}/image {n:08}.png" for n in range(int(count))]
    every = ImageSet(place / "in", tuple(ImageFile(place / "in" / name, name) for name in names))
    digest = keep_listing(place / "run/shards", names)
    for index in (1, 2):
        shard = Shard(index, 2)
        facts = {"shard": {"index": index, "count": 2, "listing": digest, "images": len(names)}}
        rows = [Entry(Row(file.name, "failed", "the image data ends too early"), 1, 1) for file in shard.of(every)]
        with RunWriter(shard.folder(place / "run"), shard.of(every), _Brightness().describe(), extra=facts) as writer:
            writer.append(rows)
            writer.finish("", {})


if __name__ == "__main__":
    {"list": _do_list, "make": _do_make, "rows": _do_rows}[sys.argv[1]](*sys.argv[2:])
