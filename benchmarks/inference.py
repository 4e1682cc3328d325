"""One image through every tower, side by side: ours plain and dual, `transformers`, the official AnomalyCLIP's work.

    python benchmarks/inference.py                              # ViT-L/14@336, random weights, 518 px
    python benchmarks/inference.py --backbone embedded --batch-sizes 1 8
    python benchmarks/inference.py --quick --json speed.json

Every round runs all variants in turn, one pass each; ratios are taken within a round, and printed are their median
and quartiles. Times are CPU seconds of this process divided by the images of a pass ("wall" is beside them): other
work on the machine hardly counts then. `--clock wall` swaps the two, for a machine that does nothing else.

Shares of ceilings: matrix products of the variant, counted by arithmetic, over its time, against the best of a few
large products in the same precision, measured in the same run: by PyTorch's product, and by the quickest way there is,
which may be that with packed weights (headclip.clip.packed). "int8" computes linear layers in 8 bits and attention in
bf16, so its ceiling is that of 8 bits, which attention cannot reach.

Memory: a subprocess for each variant builds the tower, forgets its peak, runs one pass and tells the new one.

The official AnomalyCLIP is not installed here. Its work is measured with a stand-in of ours (see `towers.py`), in
fp32 and in the same run; printed beside it are times of the official code itself (commit 45ed4dd, ViT-L/14@336 with
random weights, forward and map at 518 px, batch 1) on a machine of the same kind with two cores: 16.9 s, 30.9 CPU
seconds, 2,582 MB at most. Its matmul ceiling was not measured, so the stand-in's ratio is the one to go by.

Engines (ONNX Runtime, OpenVINO) are compared by benchmarks/export.py, whole detectors in int8 by benchmarks/int8.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from towers import (
    DTYPES,
    TOWERS,
    AnomalyClipStandIn,
    Run,
    at_precision,
    ceiling,
    clock_of,
    flops,
    forget_peak,
    memory,
    ours,
    random_tower,
    transformers_tower,
)

from headclip.clip.config import ClipConfig, known_architectures
from headclip.clip.hardware import has_fast_int8
from headclip.clip.packed import unpack_tower
from headclip.clip.vision import VisionTower
from headclip.clip.weights import load_backbone

OFFICIAL = {"wall_s": 16.946, "cpu_s": 30.864, "peak_mb": 2582.1, "cores": 2}
STAND_IN, HF = "stand-in", "transformers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", help="a name or folder; default: random weights of --architecture")
    parser.add_argument("--architecture", default="ViT-L-14-336", choices=sorted(known_architectures()))
    parser.add_argument("--image-size", type=int, help="default: 518, or the backbone's own")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1])
    parser.add_argument("--precisions", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1, help="rounds that do not count")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="six layers at 266 px, three rounds: does it run?")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", type=Path, help="write every number there")
    parser.add_argument("--peak-of", nargs=2, metavar=("PRECISION", "VARIANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    if options.quick:
        options.rounds = min(options.rounds, 3)
    config, size = shape(options)
    if options.peak_of:
        print(json.dumps(peak(config, size, options)))
        return
    if "int8" in options.precisions and not has_fast_int8():
        options.precisions.remove("int8")
    console = Console(width=132)
    found: dict[str, Any] = {"architecture": config.name, "image_size": size, "threads": options.threads}
    found |= {"torch": torch.__version__, "clock": options.clock, "rounds": options.rounds, "official": OFFICIAL}
    found["peaks_mb"] = {} if options.no_memory else peaks(config, size, options)
    found["batches"] = [measure(config, size, batch, options) for batch in options.batch_sizes]
    for part in found["batches"]:
        show(console, found, part)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def shape(options: argparse.Namespace) -> tuple[ClipConfig, int]:
    """Configuration and image size of the run; --quick takes a quarter of the layers."""
    if options.backbone:
        config = load_backbone(options.backbone).config
        return config, options.image_size or config.default_image_size or 518
    config = ClipConfig.load(known_architectures()[options.architecture])
    if options.quick:
        config = replace(config, vision=replace(config.vision, layers=6))
    return config, options.image_size or (266 if options.quick else 518)


def build(config: ClipConfig, size: int, precision: str, options: argparse.Namespace) -> dict[str, Run]:
    """Variants of one precision by name; the stand-in and `transformers` where they apply."""
    tower = tower_of(config, precision, options)
    runs = {kind: ours(tower, kind, size, config.embed_dim) for kind in TOWERS}
    other = None if precision == "int8" else transformers_tower(config.vision, size, precision)
    if other is not None:
        runs[HF] = other
    if precision == "fp32":
        plain = unpack_tower(tower_of(config, precision, options))
        runs[STAND_IN] = AnomalyClipStandIn(plain, size, config.embed_dim)
    return runs


def tower_of(config: ClipConfig, precision: str, options: argparse.Namespace) -> VisionTower:
    """The tower of the backbone that was named, or one with random weights."""
    if options.backbone:
        return at_precision(load_backbone(options.backbone).vision, precision)
    return random_tower(config, precision)


def measure(config: ClipConfig, size: int, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """Times of all variants, round by round; ceilings once a round."""
    clock, beside = clock_of(options.clock), clock_of("wall" if options.clock == "cpu" else "cpu")
    towers = {precision: build(config, size, precision, options) for precision in options.precisions}
    runs = {(p, name): run for p, variants in towers.items() for name, run in variants.items()}
    pixels = {p: torch.randn(batch, 3, size, size).to(DTYPES[p]) for p in options.precisions}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    others: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    ceilings = dict.fromkeys(options.precisions, (0.0, 0.0))
    side = 1024 if options.quick else 4096
    for number in range(1 - options.warm_up, options.rounds + 1):
        for p in options.precisions:
            plain, best = ceiling(p, clock, side)
            ceilings[p] = max(ceilings[p][0], plain), max(ceilings[p][1], best)
        for (p, name), run in runs.items():
            started = clock(), beside()
            run(pixels[p])
            if number > 0:
                times[p, name].append((clock() - started[0]) / batch)
                others[p, name].append((beside() - started[1]) / batch)
        print(f"batch {batch}: round {number} of {options.rounds} done", file=sys.stderr)
    rows = [row(config, size, times, others, ceilings, key) for key in runs]
    return {
        "batch": batch,
        "ceilings_gflops": {p: [c / 1e9 for c in both] for p, both in ceilings.items()},
        "rows": rows,
    }


def row(
    config: ClipConfig,
    size: int,
    times: dict[tuple[str, str], list[float]],
    others: dict[tuple[str, str], list[float]],
    ceilings: dict[str, tuple[float, float]],
    key: tuple[str, str],
) -> dict[str, Any]:
    """Everything known of one variant."""
    precision, name = key
    spent = np.array(times[key])
    work = flops(config.vision, size, "all tokens" if name == HF else name)
    found: dict[str, Any] = {"precision": precision, "variant": name, "seconds": float(np.median(spent))}
    found["beside"] = float(np.median(others[key]))
    found["gflop"] = work / 1e9
    found["shares"] = [work / float(np.median(spent)) / one for one in ceilings[precision]]
    for label, reference in (
        ("plain", (precision, "all tokens")),
        (HF, (precision, HF)),
        (STAND_IN, ("fp32", STAND_IN)),
    ):
        if reference in times:
            ratio = spent / times[reference] if label != STAND_IN else np.array(times[reference]) / spent
            found[label] = [float(q) for q in np.quantile(ratio, (0.5, 0.25, 0.75))]
    return found


def peaks(config: ClipConfig, size: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """precision -> variant -> peak in MB of one pass, each measured in a process of its own."""
    found: dict[str, dict[str, float]] = {}
    for precision in options.precisions:
        others = {"fp32": (HF, STAND_IN), "bf16": (HF,), "int8": ()}[precision]
        for name in ("dual", *others):
            command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", precision, name]
            answer = subprocess.run(command, capture_output=True, text=True)
            if answer.returncode == 0:
                found.setdefault(precision, {})[name] = json.loads(answer.stdout)
    return found


def peak(config: ClipConfig, size: int, options: argparse.Namespace) -> float:
    """MB at most during a pass of one variant, the tower being there already."""
    precision, name = options.peak_of
    run = build_one(config, size, precision, name, options)
    pixels = torch.randn(options.batch_sizes[0], 3, size, size).to(DTYPES[precision])
    forget_peak()
    run(pixels)
    return memory("VmHWM") / 2**20


def build_one(config: ClipConfig, size: int, precision: str, name: str, options: argparse.Namespace) -> Run:
    """One variant, with nothing else in memory."""
    if name == HF:
        run = transformers_tower(config.vision, size, precision)
        if run is None:
            raise SystemExit("transformers is not installed")
        return run
    tower = tower_of(config, precision, options)
    if name == STAND_IN:
        return AnomalyClipStandIn(unpack_tower(tower), size, config.embed_dim)
    return ours(tower, name, size, config.embed_dim)


def show(console: Console, found: dict[str, Any], part: dict[str, Any]) -> None:
    beside = "wall s" if found["clock"] == "cpu" else "CPU s"
    ceilings = ", ".join(f"{p} {plain:.0f} and {best:.0f}" for p, (plain, best) in part["ceilings_gflops"].items())
    console.print(
        f"{found['architecture']} at {found['image_size']} px, batch {part['batch']}, {found['threads']} threads, "
        f"median of {found['rounds']} rounds; ceilings (GFLOP/s a {found['clock']} second) of PyTorch's product and of "
        f"the quickest: {ceilings}"
    )
    table = Table(box=None)
    first = "CPU s" if found["clock"] == "cpu" else "wall s"
    columns = (
        "",
        "variant",
        first,
        beside,
        "GFLOP",
        "of PyTorch's",
        "of quickest",
        "x plain",
        "x transformers",
        "faster than stand-in",
        "MB",
    )
    for name in columns:
        table.add_column(name, justify="left" if name in ("", "variant") else "right", no_wrap=True)
    for one in part["rows"]:
        shown = ["{:.2f} ({:.2f}-{:.2f})".format(*one[key]) if key in one else "" for key in ("plain", HF, STAND_IN)]
        held = found["peaks_mb"].get(one["precision"], {}).get(one["variant"])
        numbers = [f"{one['seconds']:.3f}", f"{one['beside']:.3f}", f"{one['gflop']:.0f}"]
        numbers += [f"{share:.0%}" for share in one["shares"]]
        held_text = "" if held is None else f"{held:.0f}"
        table.add_row(one["precision"], one["variant"], *numbers, *shown, held_text)
    console.print(table)
    if found["architecture"] == "ViT-L-14-336" and found["image_size"] == 518:
        for one in part["rows"]:
            if one["variant"] == "dual":
                spent = one["seconds"] if found["clock"] == "cpu" else one["beside"]
                console.print(
                    f"{one['precision']} dual: {OFFICIAL['cpu_s'] / spent:.2f} times fewer CPU seconds than the "
                    f"official AnomalyCLIP needed on another day ({OFFICIAL['cpu_s']:.1f})"
                )


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s in all", file=sys.stderr)
