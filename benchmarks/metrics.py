"""Pixel metrics at the size of MVTec AD: seconds and peak memory, and the 200-threshold way beside it.

    python benchmarks/metrics.py --maps 1725 --size 518 --workers 2

Maps are made on the fly from a seed (smooth softmax-like maps, three in four with defects) and are never held
together. Their making is timed apart from the metrics. On a subset the way of the official codes runs side by
side: all maps in memory, scikit-learn for AUROC and AP, 21 thresholds for F1 and IoU, and for AUPRO 200
thresholds that each binarise every map and visit every region (written here anew, not theirs).
"""

from __future__ import annotations

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headclip.metrics import Figures, PixelMetrics, PixelState
from headclip.metrics.state import merge

GRID = 37  # patches per side of the paper's 518 px


@dataclass(frozen=True)
class Job:
    """The maps `first`, `first + step` ... below `count`."""

    first: int
    step: int
    count: int
    size: int
    seed: int
    levels: bool


@dataclass(frozen=True)
class Part:
    """What one process did: its state, CPU seconds of making maps and of the metrics, peak memory in bytes."""

    state: PixelState
    making: float
    metrics: float
    peak: int


def upsampling(size: int) -> NDArray[np.float64]:
    """(size, GRID) matrix of bilinear upsampling."""
    places = np.clip((np.arange(size) + 0.5) * GRID / size - 0.5, 0, GRID - 1)
    left = np.minimum(places.astype(int), GRID - 2)
    matrix = np.zeros((size, GRID))
    matrix[np.arange(size), left] = 1 - (places - left)
    matrix[np.arange(size), left + 1] = places - left
    return matrix


def make_map(job: Job, index: int, matrix: NDArray[np.float64]) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
    """A float32 map in [0, 1] (or its 16-bit levels), (size, size), and its mask."""
    random = np.random.default_rng([job.seed, index])
    logits = random.normal(-3.0, 1.5, (GRID, GRID))
    mask = None
    if index % 4:
        mask = np.zeros((job.size, job.size), dtype=np.bool_)
        for _ in range(random.integers(1, 4)):
            (top, left), (height, width) = random.integers(0, GRID - 6, 2), random.integers(2, 6, 2)
            logits[top : top + height, left : left + width] += random.uniform(0.0, 5.0)
            rows = slice(top * job.size // GRID, (top + height) * job.size // GRID)
            mask[rows, left * job.size // GRID : (left + width) * job.size // GRID] = True
    scores = (1.0 / (1.0 + np.exp(-(matrix @ logits @ matrix.T)))).astype(np.float32)
    return (np.rint(scores * 65535.0).astype(np.uint16) if job.levels else scores), mask


def run(job: Job) -> Part:
    """Stream the job's maps through the metrics."""
    matrix, metrics = upsampling(job.size), PixelMetrics()
    making = spent = 0.0
    for index in range(job.first, job.count, job.step):
        start = time.process_time()
        anomaly_map, mask = make_map(job, index, matrix)
        between = time.process_time()
        metrics.update(anomaly_map, mask)
        making, spent = making + between - start, spent + time.process_time() - between
    start = time.process_time()
    state = metrics.state
    spent += time.process_time() - start
    return Part(state, making, spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def slow_way(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> dict[str, float]:
    """The figures of the "ader" protocol with everything in memory."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, truth = maps.ravel(), masks.ravel()
    found = {"pixel_auroc": roc_auc_score(truth, scores), "pixel_ap": average_precision_score(truth, scores)}
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    f1, iou = [], []
    for threshold in np.arange(21) * 0.05:
        chosen = scaled > threshold
        hits, picked, wanted = (chosen & truth).sum(), chosen.sum(), truth.sum()
        precision, recall = hits / (picked + 1e-8), hits / (wanted + 1e-8)
        f1.append(2 * precision * recall / (precision + recall + 1e-8))
        iou.append(hits / (picked + wanted - hits + 1e-8))
    return found | {"pixel_f1": max(f1), "pixel_iou": max(iou), "pixel_aupro": slow_aupro(maps, masks)}


def slow_aupro(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """AUPRO by 200 thresholds, each of which labels and visits every region of every mask again."""
    low, high = maps.min(), maps.max()
    background, points = ~masks, []
    for threshold in np.arange(low, high, (high - low) / 200):
        chosen, overlaps = maps > threshold, []
        for pick, mask in zip(chosen, masks, strict=True):
            labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
            for region, where in enumerate(ndimage.find_objects(labels, count), start=1):
                inside = labels[where] == region
                overlaps.append(pick[where][inside].sum() / inside.sum())
        points.append(((chosen & background).sum() / background.sum(), np.mean(overlaps)))
    kept = np.array([point for point in points if point[0] < 0.3])
    rates = (kept[:, 0] - kept[:, 0].min()) / (kept[:, 0].max() - kept[:, 0].min())
    return float(-np.trapezoid(kept[:, 1], rates))


def compare_ways(job: Job, rounds: int) -> None:
    """Both ways in turn on the maps of a subset, in this process; prints CPU seconds, the ratio of each round with its
    spread, and the differences."""
    matrix = upsampling(job.size)
    pairs = [make_map(job, index, matrix) for index in range(job.count)]
    maps = np.stack([np.asarray(anomaly_map, dtype=np.float32) for anomaly_map, _ in pairs])
    masks = np.stack([np.zeros(maps.shape[1:], np.bool_) if mask is None else mask for _, mask in pairs])
    fast, slow = [], []
    for _ in range(rounds):
        start = time.process_time()
        metrics = PixelMetrics("ader")
        for anomaly_map, mask in pairs:
            metrics.update(anomaly_map, mask)
        figures, exact = metrics.compute(), metrics.compute("exact")
        between = time.process_time()
        found = slow_way(maps, masks)
        fast.append(between - start)
        slow.append(time.process_time() - between)
    print(
        f"\nsubset of {job.count} maps, CPU seconds, median of {rounds} rounds: 200 thresholds {np.median(slow):.2f}, "
        f"streaming {np.median(fast):.2f} (both protocols)"
    )
    low, ratio, high = np.quantile(np.divide(slow, fast), [0.25, 0.5, 0.75])
    print(f"ratio {ratio:.0f} (quartiles {low:.0f} to {high:.0f})")
    print(f"{'':16}{'200 thresholds':>16}{'streaming ader':>16}{'difference':>12}{'exact':>10}")
    for name, value in found.items():
        line = f"{name:16}{value:16.6f}{figures[name]:16.6f}{figures[name] - value:12.1e}{exact[name]:10.6f}"
        print(line)


def show(figures: Figures, grid: Figures, bounds: dict[str, tuple[float, float]]) -> None:
    """Figures of both protocols; those of the exact one with the width of what the bins leave open."""
    print(f"{'':16}{'exact':>10}{'ader':>10}")
    for name, value in figures.items():
        low, high = bounds[name]
        line = f"{name:16}{value:10.6f}{grid[name]:10.6f}"
        print(f"{line}   exact value in [{low:.6f}, {high:.6f}], width {high - low:.1e}")


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=1725, help="number of maps (MVTec AD has 1725 test images)")
    parser.add_argument("--size", type=int, default=518, help="side of a map in pixels")
    parser.add_argument("--workers", type=int, default=2, help="processes; their states are merged")
    parser.add_argument("--subset", type=int, default=20, help="maps for the 200-threshold way; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=3, help="of both ways on the subset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--levels", action="store_true", help="16-bit maps, as stored in run folders")
    arguments = parser.parse_args()
    jobs = [
        Job(first, arguments.workers, arguments.maps, arguments.size, arguments.seed, arguments.levels)
        for first in range(arguments.workers)
    ]
    start = time.perf_counter()
    if arguments.workers == 1:
        parts = [run(jobs[0])]
    else:
        with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(run, jobs))
    last = time.process_time()
    metrics = PixelMetrics()
    metrics.merge(merge(*(part.state for part in parts)))
    figures, grid = metrics.compute(), metrics.compute("ader")
    last = time.process_time() - last
    wall = time.perf_counter() - start
    bounds = metrics.bounds()
    making, spent = sum(part.making for part in parts), sum(part.metrics for part in parts) + last
    peak = sum(part.peak for part in parts)
    if arguments.workers > 1:
        peak += resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    kind = "16-bit" if arguments.levels else "float32"
    print(f"{arguments.maps} {kind} maps of {arguments.size} x {arguments.size}, {arguments.workers} processes")
    print(f"wall {wall:.1f} s (with the making of the maps, {making:.1f} CPU s)")
    print(f"metrics {spent:.1f} CPU s, {1000 * spent / arguments.maps:.1f} ms per map")
    print(f"peak memory {peak / 1e9:.2f} GB, all processes together; {len(metrics.state.bins)} bins occupied")
    show(figures, grid, bounds)
    if arguments.subset:
        compare_ways(Job(0, 1, arguments.subset, arguments.size, arguments.seed, arguments.levels), arguments.rounds)


if __name__ == "__main__":
    main()
