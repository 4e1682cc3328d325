"""How the cost of a pass grows: with images a pass, pixels, layers of the local stream, and heads.

    python benchmarks/scaling.py                                      # the embedded model's shape, random weights
    python benchmarks/scaling.py --architecture ViT-L-14-336 --rounds 3 --images 1 2 --sizes 224 336 448 518

Every round runs each point once, in turn; what grows is fitted within a round, and printed are the median and the
quartiles of the fits. Exponents are slopes of log time over log amount: 1 is proportional, 2 quadratic. By arithmetic
time is proportional to images, nearly so to pixels as long as linear layers dominate (2 once attention does), linear
in the layers of the local stream, and independent of the number of heads of a given width.

Times are CPU seconds of this process (`--clock wall` for a machine that does nothing else), of HeadCLIP's dual stream
with its map. Printed beside them is the work by arithmetic, as in benchmarks/inference.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from towers import DTYPES, Run, at_precision, clock_of, fill, flops

from headclip.clip.config import ClipConfig, known_architectures
from headclip.clip.vision import VisionRequest, VisionTower
from headclip.clip.weights import load_backbone
from headclip.methods.headclip import proportional_csa
from headclip.methods.scoring import grid_to_map, similarity


@dataclass(frozen=True)
class Point:
    """One setting: `amount` of what is varied, and a pass over `images` images with it, of `gflop` by arithmetic."""

    amount: int
    images: int
    gflop: float
    run: Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=sorted(known_architectures()), help="default: the embedded model's")
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    parser.add_argument("--image-size", type=int, help="where pixels are not varied; default: 256, or 336 as the tower")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--sizes", type=int, nargs="+", help="sides in pixels; default: four from half to double")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    config = shape(options.architecture)
    size = whole_patches(options.image_size or config.default_image_size or config.vision.image_size, config)
    console = Console(width=110)
    console.print(f"{config.name} in {options.precision} at {size} px, {options.threads} threads, {options.clock} time")
    for name, points in sweeps(config, size, options).items():
        times = measure(points, options.rounds, clock_of(options.clock))  # (rounds, points)
        show(console, name, points, times)


def shape(architecture: str | None) -> ClipConfig:
    return (
        load_backbone("embedded").config
        if architecture is None
        else ClipConfig.load(known_architectures()[architecture])
    )


def whole_patches(size: int, config: ClipConfig) -> int:
    patch = config.vision.patch_size
    return max(patch, round(size / patch) * patch)


def sweeps(config: ClipConfig, size: int, options: argparse.Namespace) -> dict[str, list[Point]]:
    """The points of each sweep by its name; one tower serves all but the last."""
    tower = build(config, options.precision)
    last = proportional_csa(config.vision.layers)[1]
    lengths = sorted({round(last * share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)})
    sizes = options.sizes or [round(size * share) for share in (0.5, 0.75, 1.0, 1.5, 2.0)]
    sides = sorted({whole_patches(side, config) for side in sizes})
    found = {
        "images a pass": [point(tower, config, n, size, n, options.precision) for n in options.images],
        "pixels": [point(tower, config, side * side, side, 1, options.precision) for side in sides],
        "layers of the local stream": [
            point(tower, config, n, size, 1, options.precision, csa_layers=n) for n in lengths
        ],
    }
    counts = [n for n in (2, 4, 8, 16, 32) if config.vision.width % n == 0 and config.vision.width // n >= 16]
    variants = [replace(config, vision=replace(config.vision, heads=n)) for n in counts]
    found["heads"] = [
        point(build(one, options.precision), one, one.vision.heads, size, 1, options.precision) for one in variants
    ]
    return found


def build(config: ClipConfig, precision: str) -> VisionTower:
    tower = VisionTower(config.vision, config.embed_dim)
    fill(tower)
    return at_precision(tower, precision)


def point(
    tower: VisionTower,
    config: ClipConfig,
    amount: int,
    size: int,
    images: int,
    precision: str,
    csa_layers: int | None = None,
) -> Point:
    """csa_layers: how many the local stream has, ending where it always does; None: as many as HeadCLIP's."""
    first, last = proportional_csa(config.vision.layers)
    length = last - first + 1 if csa_layers is None else csa_layers
    pixels = torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(0)).to(DTYPES[precision])
    run = dual(tower, size, length)
    work = flops(config.vision, size, "class token")
    tokens = (size // config.vision.patch_size) ** 2 + 1
    work += length * (4 * tokens * tokens * config.vision.width + 2 * tokens * config.vision.width**2)
    return Point(amount, images, images * work / 1e9, lambda: run(pixels))


def dual(tower: VisionTower, size: int, length: int) -> Run:
    """HeadCLIP's pass with a local stream of `length` layers, its map included; 0: the plain pass."""
    if length == 0:
        return tower
    last = proportional_csa(tower.config.layers)[1]
    request = VisionRequest(csa=(last - length + 1, last), taps=(last,))
    weights = torch.linspace(0.5, 1.5, length * tower.config.heads).view(length, -1)
    text = torch.nn.functional.normalize(torch.ones(2, tower.projection.shape[1]), dim=-1)

    def run(pixels: Tensor) -> Tensor:
        tokens = tower(pixels, request, weights)
        local = tower.project(tokens.local[last][:, 1:]).float()
        return grid_to_map(similarity(local, text)[..., 1].unflatten(1, tokens.grid), (size, size), 4.0)

    return run


def measure(points: Sequence[Point], rounds: int, clock: Callable[[], float]) -> np.ndarray:
    """(rounds, points) seconds of a pass; a first round does not count."""
    times = np.zeros((rounds + 1, len(points)))
    for number in range(rounds + 1):
        for index, one in enumerate(points):
            started = clock()
            one.run()
            times[number, index] = clock() - started
    return times[1:]


def show(console: Console, name: str, points: Sequence[Point], times: np.ndarray) -> None:
    table = Table(title=f"\nagainst {name}", title_justify="left", box=None)
    for column in (name, "ms an image", "quartiles", "GFLOP an image", "GFLOP/s"):
        table.add_column(column, justify="right")
    for one, spent in zip(points, times.T, strict=True):
        low, middle, high = np.quantile(spent / one.images, (0.25, 0.5, 0.75)) * 1000
        work = one.gflop / one.images
        numbers = (f"{middle:.1f}", f"{low:.1f} to {high:.1f}", f"{work:.1f}", f"{work / middle * 1000:.0f}")
        table.add_row(f"{one.amount:,}", *numbers)
    console.print(table)
    amounts = np.array([one.amount for one in points], dtype=float)
    work = np.log([one.gflop for one in points])
    if amounts.min() > 0:
        fits = [np.polyfit(np.log(amounts), np.log(spent), 1)[0] for spent in times]
        by_arithmetic = np.polyfit(np.log(amounts), work, 1)[0]
        console.print(f"exponent of the time of a pass: {spread(fits)}; of its work: {by_arithmetic:.2f}")
    if name.startswith("layers"):
        lines = [np.polyfit(amounts, spent, 1) for spent in times]
        console.print(f"each layer adds {spread([100 * line[0] / line[1] for line in lines], ' %')} of a plain pass")


def spread(values: Sequence[float], unit: str = "") -> str:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.2f}{unit} (quartiles {low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
