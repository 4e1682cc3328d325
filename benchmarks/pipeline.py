"""From files on disk to a finished run folder, beside the bare forward pass of the same detector.

    python benchmarks/pipeline.py                                # 200 rendered pictures of 256 px, the embedded model
    python benchmarks/pipeline.py --folder photos --threads 2 --rounds 7
    python benchmarks/pipeline.py --threads 1 --clock cpu        # on a machine that does other work too

Every round runs, in turn, the forward pass (tower, map and score, on pixels that lie ready) at each batch size, and
`predict_run`, which is what `headclip predict` calls: finding the files, decoding, hashing, resizing, the model, maps,
previews, overlays, verdicts, tables and report. Starting Python and loading the model count for neither.

Printed are images a second of both, and the share: those of the whole over those of the bare pass at the batch size
that is best over all rounds, taken within a round, with its quartiles. With `--clock cpu` a second is one of CPU time
of this process: that is the share that cores reach which always have work, and other processes hardly change it.

The last table says where the CPU time of the whole goes, by stage, from one more run in which torch has one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from headclip.data.decode import as_rgb
from headclip.data.discover import discover
from headclip.inference.detector import Detector
from headclip.inference.given import batches_of_one_size
from headclip.inference.predict import predict_run

STAGES: tuple[tuple[str, Any, str], ...] = (
    ("decode", "headclip.data.discover.ImageFile", "decode"),
    ("hash of the file", "headclip.data.discover.ImageFile", "content"),
    ("resize, normalise", "headclip.inference.detector.Detector", "pixels"),
    ("forward pass", "headclip.methods.similarity.SimilarityMethod", "score_pixels"),
    ("map to numpy", "headclip.inference.detector.Detector", "as_predictions"),
    ("map to 16 bits", "headclip.inference.session", "quantise"),
    ("histogram of map values", "headclip.runs.overlay.LevelHistogram", "update"),
    ("map as PNG", "headclip.inference.session", "encode_map"),
    ("preview as JPEG", "headclip.inference.session", "encode_preview"),
    ("writing and renaming files", "headclip.runs.files", "place_file"),
    ("journal, with fsync", "headclip.runs.writer.RunWriter", "append"),
    ("overlay: reading back", "headclip.runs.render", "_open"),
    ("overlay: tint", "headclip.runs.render", "tint"),
    ("overlay: JPEG", "headclip.runs.render", "_jpeg"),
    ("overlay: the rest", "headclip.runs.render", "_render"),
    ("thumbnails", "headclip.runs.render", "_thumbnail"),
    ("verdicts and regions", "headclip.inference.predict", "_judge"),
    ("tables", "headclip.runs.writer", "parquet_bytes"),
    ("tables", "headclip.runs.writer", "csv_bytes"),
    ("report", "headclip.runs.writer.RunWriter", "finish"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--checkpoint")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "int8"))
    parser.add_argument("--folder", type=Path, help="images to judge; rendered ones without it")
    parser.add_argument("--images", type=int, default=200, help="how many are rendered")
    parser.add_argument("--size", type=int, default=256, help="their side in pixels")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="of the bare pass")
    parser.add_argument("--bare-images", type=int, default=64, help="images of a bare pass at each batch size")
    parser.add_argument("--batch-size", type=int, help="of the whole; default: the detector's own choice")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--no-profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    detector = Detector(
        options.backbone,
        options.checkpoint,
        device="cpu",
        precision=options.precision,
        batch_size=options.batch_size,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or render(Path(scratch) / "images", options.images, options.size)
        images = [as_rgb(file.path) for file in discover([folder])]
        bare: dict[int, list[float]] = {size: [] for size in options.batch_sizes}
        whole: list[float] = []
        for number in range(options.rounds + 1):  # the first does not count
            rates = {size: bare_rate(detector, images[: options.bare_images], size, clock) for size in bare}
            rate = whole_rate(detector, folder, len(images), clock)
            if number:
                whole.append(rate)
                for size, found in rates.items():
                    bare[size].append(found)
        show(Console(width=120), detector, images, bare, whole, options)
        if not options.no_profile:
            profile(Console(width=120), detector, folder, len(images))


def render(folder: Path, count: int, size: int) -> Path:
    """`count` rendered pictures as PNG files."""
    from headclip.data.synthetic import SyntheticDataset

    folder.mkdir()
    data = SyntheticDataset(9, count, size)
    for index in range(count):
        Image.fromarray(data[index].image.permute(1, 2, 0).contiguous().numpy()).save(folder / f"{index:05d}.png")
    return folder


@torch.no_grad()
def bare_rate(detector: Detector, images: Sequence[np.ndarray], size: int, clock: Callable[[], float]) -> float:
    """Images a second from pixels that lie ready to maps at the images' own size and scores."""
    ready = [
        (detector.pixels([images[i] for i in chosen], detector.input_size(*output)), output)
        for output, chosen in batches_of_one_size(images, size)
    ]
    started = clock()
    for pixels, output in ready:
        detector.method.score_pixels(pixels, detector.text, output)
    return len(images) / (clock() - started)


def whole_rate(detector: Detector, folder: Path, count: int, clock: Callable[[], float]) -> float:
    """Images a second from files to a finished run folder."""
    with tempfile.TemporaryDirectory() as scratch:
        started = clock()
        summary = predict_run(detector, [folder], Path(scratch) / "run")
        spent = clock() - started
    if len(summary.ok) != count:
        raise SystemExit(f"{len(summary.failed)} of {count} images failed; give a folder of sound ones")
    return count / spent


def show(
    console: Console,
    detector: Detector,
    images: Sequence[np.ndarray],
    bare: dict[int, list[float]],
    whole: list[float],
    options: argparse.Namespace,
) -> None:
    best = max(bare, key=lambda size: float(np.median(bare[size])))
    sizes = ", ".join(sorted({f"{image.shape[1]} x {image.shape[0]}" for image in images})[:4])
    second = "second" if options.clock == "wall" else "CPU second"
    title = (
        f"{len(images)} images ({sizes}), {detector.backbone.name} in {detector.precision}, {options.threads} threads, "
        f"{len(whole)} rounds"
    )
    table = Table(title=title, title_justify="left", box=None)
    for name in ("", f"images a {second}", "quartiles"):
        table.add_column(name, justify="right" if name else "left")
    rows = {f"bare pass, {size} a batch{' (best)' if size == best else ''}": bare[size] for size in bare}
    for name, rates in (rows | {f"files to run folder, {detector.batch_size} a batch": whole}).items():
        table.add_row(name, f"{np.median(rates):.2f}", "{:.2f} to {:.2f}".format(*np.quantile(rates, (0.25, 0.75))))
    console.print(table)
    share = np.array(whole) / np.array(bare[best])
    low, middle, high = np.quantile(share, (0.25, 0.5, 0.75))
    console.print(f"share of the bare pass: {middle:.1%} (quartiles {low:.1%} to {high:.1%})")


class Stopwatch:
    """CPU seconds of the calling thread, and wall seconds, by stage; what runs within a stage is not counted twice."""

    def __init__(self) -> None:
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self.wall: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._inner = threading.local()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            outer = getattr(self._inner, "spent", (0.0, 0.0))
            self._inner.spent = (0.0, 0.0)
            started = time.thread_time(), time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time() - started[0], time.perf_counter() - started[1]
                with self._lock:
                    self.cpu[stage] += spent[0] - self._inner.spent[0]
                    self.wall[stage] += spent[1] - self._inner.spent[1]
                self._inner.spent = (outer[0] + spent[0], outer[1] + spent[1])

        return run


@contextmanager
def watched(watch: Stopwatch) -> Iterator[None]:
    """Every function of STAGES under the watch."""
    patches = []
    for stage, owner, name in STAGES:
        place = _find(owner)
        patches.append(mock.patch.object(place, name, watch.timed(stage, getattr(place, name))))
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def _find(dotted: str) -> Any:
    """A module, or a class in one."""
    from importlib import import_module

    head, _, last = dotted.rpartition(".")
    return getattr(import_module(head), last) if last[0].isupper() else import_module(dotted)


def profile(console: Console, detector: Detector, folder: Path, count: int) -> None:
    torch.set_num_threads(1)  # else torch's other threads would be missing
    watch = Stopwatch()
    started = time.process_time()
    with watched(watch):
        whole_rate(detector, folder, count, time.perf_counter)
    total = time.process_time() - started
    table = Table(title="where the CPU time goes, one thread for torch", title_justify="left", box=None)
    for name in ("stage", "CPU ms an image", "of the whole", "wall ms an image"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in dict.fromkeys(stage for stage, _, _ in STAGES):
        cpu, wall = watch.cpu[stage], watch.wall[stage]
        table.add_row(stage, f"{cpu / count * 1000:.2f}", f"{cpu / total:.1%}", f"{wall / count * 1000:.2f}")
    rest = total - sum(watch.cpu.values())
    table.add_row("everything else", f"{rest / count * 1000:.2f}", f"{rest / total:.1%}", "")
    table.add_row("the whole", f"{total / count * 1000:.2f}", "", "")
    console.print(table)


if __name__ == "__main__":
    main()
