"""Which readout of a tower carries over to families of pictures that it has never seen.

    git worktree add runs/seventh 186d8cd    # the ninth is 1006d71, the tenth bf302a3
    python benchmarks/unseen_families.py --backbone runs/seventh/src/headclip/clip/embedded \
        --unseen bowel dermoscopy solid --photographs runs/photographs

Versions of the embedded model are asked about families that the renderer got later. Readouts (a direction for patches
in each place of the tower, another for the class token) are fitted on pictures of the other families and judged on
both, so that real sets need not be looked at to choose between readouts. All see the same pictures. With neighbours,
the odds of each patch are multiplied by its distance to the most similar ones of its picture, to a power
(`headclip.clip.neighbours`), which nothing is fitted for.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from headclip.clip.backbone import Backbone
from headclip.clip.neighbours import odds_factor
from headclip.clip.preprocess import normalise
from headclip.clip.vision import VisionRequest
from headclip.clip.weights import load_backbone
from headclip.data.synthetic.photographs import Photographs
from headclip.data.synthetic.registry import FAMILIES
from headclip.data.synthetic.renderer import item_seed, render
from headclip.methods.headclip import HeadClipConfig, proportional_csa
from headclip.methods.scoring import joint_score, scaled_odds, top_share_mean
from headclip.metrics.image import image_metrics
from headclip.training.pretrain_losses import patch_targets

Figures = tuple[float, float, float]
LOCAL = 0  # the place of the local stream; others are layers of the tower's own stream
FIT_SEED, KNOWN_SEED, UNSEEN_SEED = 933_001, 934_001, 930_001
STEPS, BATCH, RATE, DEFECT_WEIGHT = 500, 32, 8e-3, 4.0
TOP_SHARE = 0.011  # three of 289 patches
PHOTOGRAPHS = 0.45  # of the pictures to fit on, where there are some


class Pictures(Dataset[tuple[Tensor, Tensor, int]]):
    """`count` pictures of some families by their weights; some show a photograph instead."""

    def __init__(
        self, seed: int, count: int, size: int, families: Sequence[str], photographs: Photographs | None = None
    ) -> None:
        self.seed, self.count, self.size, self.families, self.photographs = seed, count, size, families, photographs

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Picture (3, S, S) uint8, share of defect in each patch (N,), label."""
        seed = item_seed(self.seed, index)
        rng = random.Random(seed)
        weights = [FAMILIES[name].weight for name in self.families]
        family = rng.choices(self.families, weights)[0]
        shown = self.photographs is not None and rng.random() < PHOTOGRAPHS
        sample = render(seed, self.size, **({"photographs": self.photographs} if shown else {"family": family}))
        return sample.image, patch_targets(sample.mask[None], (self.size // 16,) * 2)[0].flatten(), int(sample.label)


@dataclass
class Rendered:
    """A set: images (n, 3, S, S) uint8, targets (n, N) share of defect in each patch, labels (n,)."""

    images: Tensor
    targets: Tensor
    labels: Tensor


def rendered(pictures: Pictures, name: str) -> Rendered:
    batches = list(tqdm(DataLoader(pictures, 4, num_workers=2), desc=f"render {name}", leave=False))
    images, targets, labels = (torch.cat(column) for column in zip(*batches, strict=True))
    return Rendered(images, targets, labels.float())


@dataclass
class Seen:
    """What a tower makes of a set. patches, cls: place -> (n, N, E) and (n, E), unit vectors in half precision;
    neighbours: (n, N), distance to the most similar patches."""

    pictures: Rendered
    patches: dict[int, Tensor]
    cls: dict[int, Tensor]
    neighbours: Tensor


@torch.inference_mode()
def see(backbone: Backbone, pictures: Rendered, layers: Sequence[int], name: str) -> Seen:
    """One pass over all pictures."""
    csa = proportional_csa(backbone.config.vision.layers)
    request = VisionRequest(csa=csa, taps=(csa[1],), plain=tuple(layers), neighbours=True)
    found: list[tuple[dict[int, Tensor], dict[int, Tensor]]] = []
    unlike: list[Tensor] = []

    def unit(tokens: Tensor) -> Tensor:
        return F.normalize(backbone.vision.project(tokens), dim=-1).half()

    for images in tqdm(pictures.images.split(4), desc=name, leave=False):
        tokens = backbone.vision(normalise(images, backbone.config.mean, backbone.config.std, torch.float32), request)
        patches = {
            place: unit(values[:, 1:]) for place, values in {LOCAL: tokens.local[csa[1]], **tokens.plain}.items()
        }
        cls = {LOCAL: unit(tokens.cls)} | {place: unit(values[:, 0]) for place, values in tokens.plain.items()}
        found.append((patches, cls))
        assert tokens.neighbours is not None
        unlike.append(tokens.neighbours.flatten(1))
    patches, cls = (
        {place: torch.cat([part[side][place] for part in found]) for place in (LOCAL, *layers)} for side in (0, 1)
    )
    return Seen(pictures, patches, cls, torch.cat(unlike))


class Direction:
    """A logit learnt on top of unit vectors of one or several places: scale * mean of cosines + offset."""

    def __init__(self, features: Sequence[Tensor], targets: Tensor, weight: float, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        width = features[0].shape[-1]
        self.rows = (torch.randn(len(features), width, generator=draw) * width**-0.5).requires_grad_()
        self.scale, self.offset = (torch.full((), value, requires_grad=True) for value in (2.3, -1.0))
        optimiser = torch.optim.Adam([self.rows, self.scale, self.offset], lr=RATE)
        for step in range(STEPS):
            optimiser.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
            chosen = torch.randint(0, len(targets), (BATCH if targets.dim() > 1 else 4 * BATCH,), generator=draw)
            logits = self([part[chosen] for part in features])
            loss = F.binary_cross_entropy_with_logits(logits, targets[chosen], pos_weight=torch.tensor(weight))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    def __call__(self, features: Sequence[Tensor]) -> Tensor:
        rows = F.normalize(self.rows, dim=-1)
        cosines = [part.float() @ row for part, row in zip(features, rows, strict=True)]
        return torch.stack(cosines).mean(dim=0) * self.scale.exp() + self.offset


@dataclass(frozen=True)
class Readout:
    """share: weight of the own stream beside the local one; power: of the distance to neighbours."""

    share: float
    power: float = 0.0

    def title(self, layers: Sequence[int]) -> str:
        if self.power:
            return f"and own stream {self.share:.0%}, and neighbours to the power {self.power:g}"
        return f"and own stream {', '.join(map(str, layers))}, {self.share:.0%}" if self.share else "local stream"


def judge(
    fitted: Seen, sets: Sequence[Seen], layers: Sequence[int], readouts: Sequence[Readout]
) -> list[list[Figures]]:
    """Patch AUROC, patch AP and image AUROC in percent of each set: (readouts, sets, 3)."""
    truth = fitted.pictures
    maps = {place: Direction([patches], truth.targets, DEFECT_WEIGHT) for place, patches in fitted.patches.items()}
    last = Direction([fitted.cls[LOCAL]], truth.labels, 1.0)
    heads = Direction([fitted.cls[layer] for layer in layers], truth.labels, 1.0)
    by_set: list[list[Figures]] = []
    for seen in sets:
        with torch.no_grad():
            local, *own = (maps[place]([seen.patches[place]]).sigmoid() for place in (LOCAL, *layers))
            own_map = torch.stack(own).mean(dim=0)
            logits = last([seen.cls[LOCAL]]), heads([seen.cls[layer] for layer in layers])
            joined = [
                (
                    scaled_odds(torch.lerp(local, own_map, readout.share), odds_factor(seen.neighbours, readout.power)),
                    torch.lerp(*logits, readout.share),
                )
                for readout in readouts
            ]
        by_set.append([figures(patches, whole.sigmoid(), seen.pictures) for patches, whole in joined])
    return [list(row) for row in zip(*by_set, strict=True)]


def figures(patches: Tensor, whole: Tensor, truth: Rendered) -> Figures:
    scores = joint_score(whole, top_share_mean(patches, TOP_SHARE), 0.5)
    of_patches = image_metrics(patches.flatten().numpy(), (truth.targets > 0.5).flatten().numpy())
    of_images = image_metrics(scores.numpy(), truth.labels.bool().numpy())
    found = of_patches["image_auroc"], of_patches["image_ap"], of_images["image_auroc"]
    return 100 * found[0], 100 * found[1], 100 * found[2]


def table(rows: Sequence[tuple[str, list[Figures]]], names: Sequence[str]) -> str:
    """Markdown: patch AUROC / patch AP / image AUROC for the known families, the mean of the others, and each."""

    def cell(values: Sequence[float]) -> str:
        return " / ".join(f"{value:.1f}" for value in values)

    heads = ["readout", names[0], "unseen, mean", *names[1:]]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, (known, *unseen) in rows:
        cells = [cell(known), cell(np.mean(unseen, axis=0)), *(cell(values) for values in unseen)]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--backbone", type=Path, nargs="+", required=True, help="folders of the versions that are asked"
    )
    parser.add_argument("--unseen", nargs="+", required=True, choices=sorted(FAMILIES), help="families they never saw")
    parser.add_argument("--photographs", type=Path, help="photographs under 45 %% of the pictures to fit on")
    parser.add_argument("--layers", type=int, nargs="+", default=[3, 5, 7, 8], help="of the tower's own stream")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.4, 0.6, 1.0])
    parser.add_argument("--powers", type=float, nargs="*", default=[0.25, 0.5, 0.75], help="of the distance")
    parser.add_argument("--fit", type=int, default=700, help="pictures to fit on")
    parser.add_argument("--count", type=int, default=200, help="pictures of each set to judge on")
    options = parser.parse_args()
    backbones = {folder: load_backbone(folder).freeze() for folder in options.backbone}
    size, layers = next(iter(backbones.values())).config.default_image_size or 224, tuple(options.layers)
    known = [name for name in FAMILIES if name not in options.unseen]
    photographs = Photographs(options.photographs, 1.0) if options.photographs else None
    fit = rendered(Pictures(FIT_SEED, options.fit, size, known, photographs), "to fit on")
    sets = {"known": rendered(Pictures(KNOWN_SEED, options.count, size, known), "known")}
    for name in options.unseen:
        sets[name] = rendered(Pictures(UNSEEN_SEED, options.count, size, [name]), name)
    readouts = [Readout(share) for share in (0.0, *options.shares)]
    readouts += [Readout(HeadClipConfig().stream_share, power) for power in options.powers]
    names = [readout.title(layers) for readout in readouts]
    print("Patch AUROC / patch AP / image AUROC in percent.")
    for folder, backbone in backbones.items():
        fitted = see(backbone, fit, layers, "to fit on")
        seen = [see(backbone, pictures, layers, name) for name, pictures in sets.items()]
        rows = judge(fitted, seen, layers, readouts)
        print(f"\n{folder} ({backbone.hash[:12]})\n")
        print(table(list(zip(names, rows, strict=True)), list(sets)), flush=True)


if __name__ == "__main__":
    main()
