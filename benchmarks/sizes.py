"""Vision towers of several sizes under one budget of training: what they reach, and what an image costs.

    python benchmarks/sizes.py --out runs/sizes                  # half an hour of two cores; --resume goes on

Every tower is pretrained from scratch by `headclip.training.pretrain` on rendered pictures (no teacher). The budget is
arithmetic: larger towers see fewer pictures, so that all spend the same matrix products. Printed for each: pixel
AUROC of its own sentences on pictures of unseen seeds with bootstrap intervals, image AUROC of the class token, and
the CPU time of one picture through the dual stream, in turn with the others.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional as F
from towers import flops

from headclip.clip.backbone import Backbone
from headclip.clip.config import ClipConfig, known_architectures
from headclip.clip.tokenizer import ClipTokenizer
from headclip.clip.vision import VisionRequest
from headclip.data.synthetic import SyntheticDataset, caption_pair
from headclip.data.synthetic.base import Rng
from headclip.files import write_atomically
from headclip.methods.headclip import proportional_csa
from headclip.metrics.image import image_metrics
from headclip.training.pretrain import Pretrainer
from headclip.training.pretrain_config import PretrainConfig
from headclip.training.pretrain_losses import unit

TOWERS = ((256, 8, 8), (256, 10, 8), (384, 8, 12), (384, 12, 12))  # width, layers, heads
SIZE, TEST_SIZE, TEST_SEED = 144, 256, 900_001  # pixels of training and test pictures
BATCH = 16  # pictures a step: small, so that the largest tower too takes a hundred steps
SENTENCES = 6
SMALL = 8  # test maps are compared with masks on every 8th pixel


@dataclass
class Found:
    """Of one tower: millions of parameters, pictures seen, and figures with their bootstrap draws."""

    name: str
    parameters: float
    images: int
    pixel: float
    pixel_draws: list[float]
    image: float
    seconds: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=5000, help="that the smallest tower sees")
    parser.add_argument("--test-images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    configs = [architecture(*shape) for shape in TOWERS]
    budget = options.images * flops(configs[0].vision, SIZE, "dual")
    models = []
    with Progress() as bar:
        for config in configs:
            images = int(budget / flops(config.vision, SIZE, "dual"))
            models.append((pretrained(config, images, options, bar), images))
    times = timed([model for model, _ in models], options.rounds)
    test = SyntheticDataset(TEST_SEED, options.test_images, TEST_SIZE)
    found = [judged(model, images, seconds, test) for (model, images), seconds in zip(models, times, strict=True)]
    text = table(found, options)
    write_atomically(options.out / "table.md", text.encode())
    Console(soft_wrap=True, markup=False, highlight=False).print(text)


def architecture(width: int, layers: int, heads: int) -> ClipConfig:
    """The embedded model's, with another vision tower."""
    config = ClipConfig.load(known_architectures()["embedded"])
    vision = replace(config.vision, width=width, layers=layers, heads=heads)
    return replace(config, name=f"{width} x {layers}", vision=vision)


def pretrained(config: ClipConfig, images: int, options: argparse.Namespace, bar: Progress) -> Backbone:
    """The averaged model at the end of its schedule."""
    assert config.text is not None
    settings = PretrainConfig(
        images=images, batch_size=BATCH, early_sizes=((SIZE, SIZE),), late_sizes=((SIZE, SIZE),), dice_weight=0.0,
        patch_weight=6.0, ema=0.99, defect_rate=0.7, warmup=images // BATCH // 10, seed=5,
    )  # fmt: skip
    trainer = Pretrainer(Backbone(config, ClipTokenizer(config.text.vocab_size)), settings)
    folder = options.out / config.name.replace(" ", "")
    if options.resume and (folder / "state.pt").is_file():
        trainer.restore(folder / "state.pt")
    task = bar.add_task(config.name, total=settings.steps, completed=trainer.step)
    folder.mkdir(parents=True, exist_ok=True)
    trainer.run(folder, progress=lambda step, losses: bar.update(task, completed=step))
    return trainer.averaged_backbone()


@torch.no_grad()
def timed(models: list[Backbone], rounds: int) -> list[list[float]]:
    """CPU seconds of one picture for each model, in turn; the first round does not count."""
    pixels = torch.randn(1, 3, TEST_SIZE, TEST_SIZE)
    times: list[list[float]] = [[] for _ in models]
    for number in range(rounds + 1):
        for model, kept in zip(models, times, strict=True):
            begun = time.process_time()
            model.vision(pixels, request_of(model))
            if number:
                kept.append(time.process_time() - begun)
    return times


def request_of(model: Backbone) -> VisionRequest:
    """The dual stream as HeadCLIP reads it."""
    csa = proportional_csa(model.config.vision.layers)
    return VisionRequest(csa=csa, taps=(csa[1],))


@torch.no_grad()
def judged(model: Backbone, images: int, seconds: list[float], test: SyntheticDataset) -> Found:
    """Figures on the test pictures: cosine with the difference of a few sentences about "object"."""
    direction = sentences(model)
    request = request_of(model)
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.config.mean, model.config.std))
    maps, masks, scores, labels = [], [], [], []
    for sample in test:
        tokens = model.vision(((sample.image.float() / 255 - mean) / std)[None], request)
        local = unit(model.vision.project(tokens.local[request.taps[0]][:, 1:])) @ direction  # (1, N)
        whole = F.interpolate(local.unflatten(1, tokens.grid)[:, None], (TEST_SIZE, TEST_SIZE), mode="bilinear")
        maps.append(whole[0, 0, SMALL // 2 :: SMALL, SMALL // 2 :: SMALL].flatten().numpy())
        masks.append(sample.mask[SMALL // 2 :: SMALL, SMALL // 2 :: SMALL].flatten().numpy())
        scores.append(float(unit(model.vision.project(tokens.cls)) @ direction))
        labels.append(sample.label)
    generator = np.random.default_rng(0)
    draws = [generator.integers(len(maps), size=len(maps)) for _ in range(200)]
    pixel = [auroc(np.concatenate([maps[i] for i in d]), np.concatenate([masks[i] for i in d])) for d in draws]
    whole_pixel = auroc(np.concatenate(maps), np.concatenate(masks))
    parameters = sum(p.numel() for p in model.vision.parameters()) / 1e6
    image = auroc(np.array(scores), np.array(labels))
    return Found(model.config.name, parameters, images, whole_pixel, pixel, image, seconds)


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(image_metrics(scores, labels)["image_auroc"])


def sentences(model: Backbone) -> Tensor:
    """(E,), mean difference of unit vectors: abnormal less normal."""
    assert model.tokenizer is not None
    pairs = [caption_pair("object", Rng(number)) for number in range(SENTENCES)]
    vectors = unit(model.require_text()(model.tokenizer([text for pair in pairs for text in pair])))
    normal, abnormal = vectors.unflatten(0, (-1, 2)).unbind(1)
    return (abnormal - normal).mean(0)


def table(found: list[Found], options: argparse.Namespace) -> str:
    lines = [
        "# Sizes of the vision tower under one budget",
        "",
        f"`python benchmarks/sizes.py --images {options.images} --test-images {options.test_images}`",
        "",
        "| width x layers | million parameters | pictures seen | pixel AUROC | image AUROC | CPU ms a picture |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in found:
        low, high = np.percentile(one.pixel_draws, (2.5, 97.5))
        quarter, middle, three = (1e3 * value for value in statistics.quantiles(one.seconds, n=4))
        lines.append(
            f"| {one.name} | {one.parameters:.1f} | {one.images:,} | {100 * one.pixel:.1f} ({100 * low:.1f} to "
            f"{100 * high:.1f}) | {100 * one.image:.1f} | {middle:.0f} ({quarter:.0f} to {three:.0f}) |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
