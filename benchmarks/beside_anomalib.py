"""HeadCLIP and our WinCLIP against anomalib's WinCLIP, image by image in turn.

    python -m venv peers && peers/bin/pip install torch==2.13.0 torchvision==0.28.0 anomalib==2.7.0 open_clip_torch
    python benchmarks/beside_anomalib.py --anomalib-python peers/bin/python

anomalib runs in the interpreter named, in a process of its own that waits between images; ours runs in this one. All
models have random weights of the right shape (ViT-B-16-plus-240 at 240 px for WinCLIP, ViT-L/14@336 at 518 px for
HeadCLIP), which cost what trained ones do, and text vectors are there already on both sides. A tensor goes in, map and
score come out. torchvision's CPU build beside a torch without CUDA lacks two operators; the other process declares
their names, which nothing here calls.

Every round runs each model on one image. Times are CPU seconds of the process at work (wall seconds beside them):
other work on the machine hardly counts. Ratios are taken within a round; printed are median and quartiles.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F
from towers import DTYPES, at_precision, fill, ours, random_tower

from headclip.clip.backbone import Backbone
from headclip.clip.config import ClipConfig, known_architectures
from headclip.clip.hardware import has_fast_bf16, has_fast_int8
from headclip.clip.tokenizer import ClipTokenizer
from headclip.methods.winclip import WinClip

THEIRS = """
import json, sys, time, warnings
import torch
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
warnings.simplefilter("ignore")
torch.set_num_threads(int(sys.argv[1]))
from anomalib.models.image.winclip import torch_model
torch_model.PRETRAINED = None
model = torch_model.WinClipModel().eval()
model._text_embeddings = torch.nn.functional.normalize(torch.randn(2, 640), dim=-1)
image = torch.randn(1, 3, 240, 240)
print("ready", flush=True)
for _ in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    found = model(image)
    taken = [time.process_time() - cpu, time.perf_counter() - wall]
    assert found.anomaly_map.shape == (1, 240, 240)
    print(json.dumps(taken), flush=True)
"""


class Theirs:
    """anomalib's WinCLIP in another interpreter; a call runs one image and returns CPU and wall seconds."""

    def __init__(self, python: Path, threads: int) -> None:
        command = [str(python), "-c", THEIRS, str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer("ready")

    def answer(self, wanted: str = "") -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(wanted or "["):
                return line
        raise SystemExit(f"anomalib ended with status {self.process.wait()}; its message is above")

    def __call__(self) -> tuple[float, float]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        cpu, wall = json.loads(self.answer())
        return cpu, wall

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def timed(run: Callable[[], Any]) -> Callable[[], tuple[float, float]]:
    def once() -> tuple[float, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        return time.process_time() - cpu, time.perf_counter() - wall

    return once


def our_winclip(precision: str) -> Callable[[], Any]:
    """WinCLIP on random weights, with text vectors of its own."""
    config = ClipConfig.load(known_architectures()["ViT-B-16-plus-240"])
    assert config.text is not None
    backbone = Backbone(config, ClipTokenizer(config.text.vocab_size, config.text.context_length))
    fill(backbone)
    backbone.content_hash = "random"
    at_precision(backbone.vision, precision)
    method = WinClip(backbone).eval()
    text = F.normalize(torch.randn(2, config.embed_dim), dim=-1)
    image = torch.randn(1, 3, 240, 240).to(DTYPES[precision])
    return lambda: method.score_pixels(image, text)


def our_headclip(precision: str) -> Callable[[], Any]:
    """The dual stream with head weights and its map at 518 px."""
    config = ClipConfig.load(known_architectures()["ViT-L-14-336"])
    run = ours(random_tower(config, precision), "dual", 518, config.embed_dim)
    image = torch.randn(1, 3, 518, 518).to(DTYPES[precision])
    return lambda: run(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--anomalib-python", type=Path, help="interpreter that has anomalib 2.7; without it: ours alone"
    )
    parser.add_argument(
        "--precisions", nargs="+", choices=list(DTYPES), help="default: all that the machine is fast in"
    )
    parser.add_argument("--models", nargs="+", default=["WinCLIP", "HeadCLIP"], choices=("WinCLIP", "HeadCLIP"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write every number there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    able = {"fp32": True, "bf16": has_fast_bf16(torch.device("cpu")), "int8": has_fast_int8()}
    precisions = options.precisions or [name for name, can in able.items() if can]
    makers = {"WinCLIP": our_winclip, "HeadCLIP": our_headclip}
    runs = {f"our {name}, {p}": timed(makers[name](p)) for name in options.models for p in precisions}
    theirs = None if options.anomalib_python is None else Theirs(options.anomalib_python, options.threads)
    if theirs is not None:
        runs = {"anomalib WinCLIP, fp32": theirs, **runs}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(options.rounds):
        for name, run in runs.items():
            spent[name].append(run())
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    if theirs is not None:
        theirs.close()
    show(spent, options)


def show(spent: dict[str, list[tuple[float, float]]], options: argparse.Namespace) -> None:
    first = np.array(next(iter(spent.values())))
    table = Table(title=f"one image, {options.threads} threads, {options.rounds} rounds", box=None)
    for column in ("model", "CPU s", "wall s", "times faster", "quartiles"):
        table.add_column(column, justify="left" if column == "model" else "right")
    found: dict[str, Any] = {"threads": options.threads, "rounds": options.rounds}
    for name, values in spent.items():
        times = np.array(values)
        low, middle, high = np.quantile(first[:, 0] / times[:, 0], (0.25, 0.5, 0.75))
        cpu, wall = np.median(times, axis=0)
        found[name] = {"cpu_s": cpu, "wall_s": wall, "faster": [middle, low, high]}
        table.add_row(name, f"{cpu:.3f}", f"{wall:.3f}", f"{middle:.2f}", f"{low:.2f}-{high:.2f}")
    Console(width=120).print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
