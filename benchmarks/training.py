"""An epoch that runs the tower against later epochs from kept features: time, room on disk, error of the result.

    python benchmarks/training.py --images 2 --batch-size 2
    python benchmarks/training.py --backbone embedded --images 48 --batch-size 8 --epochs 4

All runs see the same images in the same order, epoch by epoch in turn, so that what else the machine does weighs on
all of them alike. Times are CPU seconds of this process (wall seconds beside them): other work on the machine does not
count. Without --backbone the towers of ViT-L/14@336 have random weights of the right shape, which cost the same.
Files of the features lie in a temporary folder and stay in the page cache, as they do in training where memory
allows. Images are made before the clock starts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from headclip.clip.backbone import Backbone
from headclip.clip.config import ClipConfig, known_architectures
from headclip.clip.hardware import has_fast_bf16
from headclip.clip.tokenizer import ClipTokenizer
from headclip.clip.weights import load_backbone
from headclip.methods import TrainableMethod, create_method
from headclip.training.features import readable_bytes
from headclip.training.sets import SyntheticTrainingSet, TrainingItem
from headclip.training.train_config import TrainConfig
from headclip.training.trainer import Trainer

KINDS = ("tower", "fp16", "int8")


class Made:
    """Rendered images, made at once."""

    def __init__(self, count: int, size: int) -> None:
        rendered = SyntheticTrainingSet(1, count, size)
        self.items = [rendered[number] for number in range(count)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> TrainingItem:
        return self.items[index]

    def describe(self) -> dict[str, Any]:
        return {"name": "benchmark", "images": len(self)}


@dataclass
class Run:
    """One way to train. cpu and wall: seconds of each epoch; first: parameters before training."""

    trainer: Trainer
    first: dict[str, Tensor]
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    loss: float = 0.0
    result: dict[str, Tensor] = field(default_factory=dict)

    def epoch(self) -> None:
        wall, cpu, total = time.perf_counter(), time.process_time(), 0.0
        for batch in self.trainer.loader(0):
            total += float(self.trainer.step(batch).total.detach())
            self.trainer.batch += 1
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)
        self.loss = total / self.trainer.batches
        self.trainer.epoch, self.trainer.batch = self.trainer.epoch + 1, 0

    def distance(self, other: Run) -> float:
        """How far the parameters are from those of another run, as a share of the way that the other's went."""
        apart = sum(float((self.result[name] - value).square().sum()) for name, value in other.result.items())
        way = sum(float((other.first[name] - value).square().sum()) for name, value in other.result.items())
        return (apart / way) ** 0.5


def random_backbone(architecture: str) -> Backbone:
    """Weights of the right shape and of a size that keeps activations sound."""
    config = ClipConfig.load(known_architectures()[architecture])
    assert config.text is not None
    backbone = Backbone(config, ClipTokenizer(config.text.vocab_size, config.text.context_length))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in backbone.named_parameters():
            if value.dim() > 1:
                value.copy_(0.02 * torch.randn(value.shape, generator=generator))
            elif name.endswith("bias"):
                value.zero_()
    backbone.content_hash = f"random {architecture}"
    return backbone.freeze()


def start(kind: str, name: str, backbone: Backbone, data: Made, batch_size: int, folder: Path) -> Run:
    method = create_method(name, backbone, {"seed": 1})
    assert isinstance(method, TrainableMethod)
    keep: dict[str, Any] = {} if kind == "tower" else {"keep_features": folder, "features_dtype": kind}
    trainer = Trainer(method, data, TrainConfig(batch_size=batch_size, seed=1, **keep))
    return Run(trainer, {key: value.detach().clone() for key, value in method.state_dict().items()})


def measure(name: str, backbone: Backbone, data: Made, options: argparse.Namespace, folder: Path) -> dict[str, Run]:
    """All kinds of runs, epoch by epoch in turn; then further epochs from kept features alone, for their spread."""
    runs = {kind: start(kind, name, backbone, data, options.batch_size, folder) for kind in KINDS}
    for _ in range(options.epochs):
        for run in runs.values():
            run.epoch()
    for run in runs.values():
        run.result = {key: value.detach().clone() for key, value in run.trainer.method.state_dict().items()}
    losses = {kind: run.loss for kind, run in runs.items()}
    for _ in range(options.more):
        for kind in KINDS[1:]:
            runs[kind].epoch()
    for kind, run in runs.items():
        run.loss = losses[kind]
    return runs


def report(name: str, runs: dict[str, Run], images: int, epochs: int) -> Table:
    tower = runs["tower"]
    table = Table(title=f"{name}: {images} images, {epochs} epochs", box=None, title_justify="left")
    for column in ("features", "an image", "first epoch", "later epoch", "wall", "times faster", "loss", "off by"):
        table.add_column(column, justify="right")
    plain = statistics.median(tower.cpu)
    for kind, run in runs.items():
        later = run.cpu if kind == "tower" else run.cpu[1:]
        ratios = [plain / seconds for seconds in later]
        spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        store = run.trainer.store
        table.add_row(
            kind,
            "" if store is None else readable_bytes(store.bytes_per_image(run.trainer.method)),
            f"{run.cpu[0]:.2f} s",
            f"{statistics.median(later):.2f} s",
            f"{statistics.median(run.wall if kind == 'tower' else run.wall[1:]):.2f} s",
            "" if kind == "tower" else spread,
            f"{run.loss:.5f}",
            "" if kind == "tower" else f"{run.distance(tower):.2%}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", help="a name or folder; default: random weights")
    parser.add_argument("--architecture", default="ViT-L-14-336", choices=sorted(known_architectures()))
    parser.add_argument("--methods", nargs="+", default=["headclip", "anomalyclip"])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--image-size", type=int, help="default: the method's")
    parser.add_argument("--epochs", type=int, default=2, help="of every run")
    parser.add_argument("--more", type=int, default=3, help="further epochs from kept features, for their spread")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    backbone = load_backbone(options.backbone) if options.backbone else random_backbone(options.architecture)
    backbone = backbone.to(device)
    console = Console(width=120)
    bf16 = "has fast bf16, in which kept head outputs are projected" if has_fast_bf16(device) else "has no fast bf16"
    console.print(f"{backbone.name}, fp32, {torch.get_num_threads()} threads; the device {bf16}")
    sets: dict[int, Made] = {}
    for name in options.methods:
        size = options.image_size or create_method(name, backbone).image_size
        if size not in sets:
            sets[size] = Made(options.images, size)
        with tempfile.TemporaryDirectory() as folder:
            runs = measure(name, backbone, sets[size], options, Path(folder))
        console.print(report(f"{name} at {size} px", runs, options.images, options.epochs))


if __name__ == "__main__":
    main()
