"""What bf16 and int8 change: maps, scores and labels against fp32, and the time of a whole detector.

    python benchmarks/int8.py --folder photos --images 40        # the embedded model
    python benchmarks/int8.py --random ViT-L-14-336 --images 2   # the paper's architecture, random weights

Images are judged with each precision in turn, decoded arrays in and predictions out, eight at a time. Printed for each
precision, against fp32: the largest and the mean difference of the map, the share of the map's own spread (standard
deviation in fp32) that the mean difference is, the largest difference of a score, labels that flip at a threshold in
the middle of the fp32 scores, where flips are likeliest, and pairs of images that change places. Times are CPU seconds
of this process (wall seconds beside them): other work on the machine hardly counts. Without --folder the images are
rendered.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from towers import fill

from headclip.clip.backbone import Backbone
from headclip.clip.config import ClipConfig, known_architectures
from headclip.clip.tokenizer import ClipTokenizer
from headclip.clip.weights import load_backbone
from headclip.export.parity import check_images
from headclip.inference.detector import Detector
from headclip.prediction import Prediction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--random", choices=sorted(known_architectures()), help="random weights of this shape instead")
    parser.add_argument("--checkpoint")
    parser.add_argument("--method", help="default: the checkpoint's, or headclip")
    parser.add_argument("--folder", type=Path, help="images to judge; rendered ones without it")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write every number there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # random weights have learnt nothing, as we know
    images, source = check_images(options.folder, options.images)
    backbone = random_backbone(options.random) if options.random else load_backbone(options.backbone)
    detectors = {
        precision: Detector(
            copy.deepcopy(backbone),
            options.checkpoint,
            device="cpu",
            precision=precision,
            method=options.method,
            image_size=options.image_size,
        )
        for precision in ("fp32", "bf16", "int8")
    }
    found: dict[str, list[Prediction]] = {name: [] for name in detectors}
    cpu, wall = dict.fromkeys(detectors, 0.0), dict.fromkeys(detectors, 0.0)
    for start in range(0, len(images), 8):
        for name, detector in detectors.items():
            began = time.process_time(), time.perf_counter()
            found[name] += detector.predict_arrays(images[start : start + 8])
            cpu[name] += time.process_time() - began[0]
            wall[name] += time.perf_counter() - began[1]
    rows = {name: compare(found["fp32"], others) for name, others in found.items()}
    for name, row in rows.items():
        row |= {"cpu_ms": cpu[name] / len(images) * 1e3, "wall_ms": wall[name] / len(images) * 1e3}
        row["faster"] = cpu["fp32"] / cpu[name]
    name = backbone.name if not options.random else f"{options.random}, random weights"
    title = f"{name}, {detectors['fp32'].method.name}: {len(images)} images ({source}), {options.threads} threads"
    show(title, rows)
    if options.json:
        options.json.write_text(json.dumps({"title": title, **rows}, indent=1))


def random_backbone(architecture: str) -> Backbone:
    config = ClipConfig.load(known_architectures()[architecture])
    assert config.text is not None
    backbone = Backbone(config, ClipTokenizer(config.text.vocab_size, config.text.context_length))
    fill(backbone)
    backbone.content_hash = f"random {architecture}"
    return backbone.freeze()


def compare(exact: list[Prediction], found: list[Prediction]) -> dict[str, Any]:
    """Differences of one precision from fp32 over the same images."""
    pairs = list(zip(exact, found, strict=True))
    apart = [np.abs(a.anomaly_map - b.anomaly_map) for a, b in pairs]
    first, second = (np.array([p.score for p in some]) for some in (exact, found))
    ordered = np.sort(first)
    middle = len(ordered) // 2
    threshold = ordered[max(0, middle - 1) : middle + 1].mean()
    upper = np.triu_indices(len(first), 1)
    order = [np.sign(s[:, None] - s[None, :])[upper] for s in (first, second)]
    return {
        "map_largest": float(max(one.max() for one in apart)),
        "map_mean": float(np.mean([one.mean() for one in apart])),
        "of_spread": float(
            np.mean([d.mean() / max(a.anomaly_map.std(), 1e-9) for d, (a, _) in zip(apart, pairs, strict=True)])
        ),
        "score_largest": float(np.abs(first - second).max()),
        "flips": int(((first > threshold) != (second > threshold)).sum()),
        "swapped": int((order[0] != order[1]).sum()),
        "pairs": len(upper[0]),
    }


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    table = Table(title=title, box=None, title_justify="left")
    heads = (
        "precision",
        "CPU ms",
        "wall ms",
        "faster",
        "map, largest",
        "mean",
        "of spread",
        "score",
        "flips",
        "swapped",
    )
    for head in heads:
        table.add_column(head, justify="left" if head == "precision" else "right", no_wrap=True)
    for name, row in rows.items():
        times = [f"{row['cpu_ms']:.1f}", f"{row['wall_ms']:.1f}", f"{row['faster']:.2f}"]
        maps = [f"{row['map_largest']:.1e}", f"{row['map_mean']:.1e}", f"{row['of_spread']:.1%}"]
        labels = [f"{row['score_largest']:.1e}", str(row["flips"]), f"{row['swapped']} of {row['pairs']}"]
        table.add_row(name, *times, *maps, *labels)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
