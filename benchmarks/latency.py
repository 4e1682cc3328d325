"""One image at a time through a whole detector: how long somebody waits, and how much memory it takes above torch.

    python benchmarks/latency.py                       # the embedded model at its own size
    python benchmarks/latency.py --backbone FOLDER --checkpoint FILE.safetensors
    python benchmarks/latency.py --beside FILE.safetensors  # two checkpoints in turn, and the ratio of their times

An image is a decoded array; resizing, normalising, the tower, map, score and the map's way back to the image's own
size all count. Printed are median and quartiles of the wall time, for each shape of image. Memory is that of a process
of its own: its largest resident set while it judges the images, less what it held after `import torch` alone.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from towers import forget_peak, memory

SHAPES = ((300, 300), (512, 512), (1260, 500), (1024, 1024))  # height and width in pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--checkpoint")
    parser.add_argument("--beside", metavar="CHECKPOINT", help="another one, timed in turn; memory is then of both")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "int8"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.randn(64, 64) @ torch.randn(64, 64)  # torch's own libraries are loaded
    before = memory("VmRSS")
    forget_peak()
    checkpoints = [options.checkpoint, *([options.beside] if options.beside else [])]
    times = measure(options, checkpoints)
    for (shape, number), found in times.items():
        low, middle, high = np.percentile(found, (25, 50, 75))
        line = f"{shape[0]:5} x {shape[1]:<5} {1e3 * middle:6.1f} ms  (quartiles {1e3 * low:.1f} to {1e3 * high:.1f})"
        if number:
            ratio = float(np.median(np.divide(times[shape, 0], found)))
            line += f"  {options.beside}: the first takes {ratio:.3f} times as long (median over rounds)"
        print(line)
    print(f"memory above torch: {(memory('VmHWM') - before) / 2**20:.0f} MiB; threads: {options.threads}")


def measure(
    options: argparse.Namespace, checkpoints: list[str | None]
) -> dict[tuple[tuple[int, int], int], list[float]]:
    """(shape, number of the checkpoint) -> wall seconds of each image, all in turn; the first round does not count."""
    from headclip import Detector

    chosen: dict[str, Any] = {"precision": options.precision}
    detectors = [Detector(options.backbone, checkpoint, **chosen) for checkpoint in checkpoints]
    generator = np.random.default_rng(0)
    images = {shape: generator.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in SHAPES}
    times: dict[tuple[tuple[int, int], int], list[float]]
    times = {(shape, index): [] for shape in SHAPES for index in range(len(detectors))}
    for number in range(options.rounds + 1):
        for shape, index in times:
            begun = time.perf_counter()
            detectors[index].predict_arrays([images[shape]])
            if number:
                times[shape, index].append(time.perf_counter() - begun)
    return times


if __name__ == "__main__":
    main()
