"""One model in four engines, side by side: eager torch, ONNX Runtime, OpenVINO (fp32 and bf16), torch.export.

    python benchmarks/export.py --images 24 --rounds 5
    python benchmarks/export.py --folder photos --threads 1 --batch-size 8

Every round judges the same images with each engine in turn, decoded images in and predictions out; ratios are taken
within a round. Times are CPU seconds of this process (wall seconds beside them): other work on the machine does not
count. Printed: the median ratio with its spread over the rounds, above 1 where an engine needs less than eager torch,
and the largest differences of map and score.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from headclip.errors import ExportError
from headclip.export import export_model
from headclip.export.parity import check_images, measure_parity
from headclip.inference.detector import Detector
from headclip.inference.device import Precision
from headclip.inference.exported import SUFFIXES, Engine, ExportedDetector

RUNS: tuple[tuple[Engine, Precision], ...] = (
    ("torch", "fp32"),
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--checkpoint")
    parser.add_argument("--folder", type=Path, help="images to judge; rendered ones without it")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    eager = Detector(
        options.backbone, options.checkpoint, device="cpu", precision="fp32", batch_size=options.batch_size
    )
    images, source = check_images(options.folder, options.images)
    console = Console()
    with TemporaryDirectory() as folder:
        engines = {"eager": eager, **open_engines(eager, Path(folder), options, console)}
        parities = {
            name: measure_parity(eager, engine, images, source)
            for name, engine in engines.items()
            if isinstance(engine, ExportedDetector)
        }
        cpu, wall = ({name: np.zeros(options.rounds) for name in engines} for _ in range(2))
        for number in range(options.rounds):
            for name, engine in engines.items():
                started = time.process_time(), time.perf_counter()
                engine.predict_arrays(images)
                cpu[name][number] = time.process_time() - started[0]
                wall[name][number] = time.perf_counter() - started[1]
    sizes = ", ".join(sorted({f"{image.shape[1]} x {image.shape[0]}" for image in images})[:6])
    table = Table(title=f"{len(images)} images ({source}: {sizes}), {options.threads} threads", box=None)
    for name in ("engine", "CPU ms", "wall ms", "ratio", "spread", "map", "score", "flips"):
        table.add_column(name, justify="left" if name == "engine" else "right", no_wrap=True)
    for name in engines:
        ratio = cpu["eager"] / cpu[name]
        parity = parities.get(name)
        differences = ["", "", ""]
        if parity is not None:
            differences = [f"{parity.anomaly_map:.1e}", f"{parity.score:.1e}", str(parity.flips)]
        each = [f"{np.median(taken[name]) / len(images) * 1000:.1f}" for taken in (cpu, wall)]
        spread = f"{ratio.min():.2f} to {ratio.max():.2f}"
        table.add_row(name, *each, f"{np.median(ratio):.2f}", spread, *differences)
    console.print(table)


def open_engines(
    eager: Detector, folder: Path, options: argparse.Namespace, console: Console
) -> dict[str, ExportedDetector]:
    """The model exported for each engine that is installed, by name and precision."""
    found = {}
    for engine, precision in RUNS:
        path = folder / f"model{SUFFIXES[engine]}"
        try:
            if not path.exists():
                export_model(eager, engine, path, check_count=3, tolerance=float("inf"))
            threads = options.threads
            found[f"{engine} {precision}"] = ExportedDetector(
                path, precision=precision, batch_size=options.batch_size, threads=threads
            )
        except ExportError as error:
            console.print(f"{engine} is left out: {error}")
    return found


if __name__ == "__main__":
    main()
