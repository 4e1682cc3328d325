"""Image AUROC on rendered images of unseen seeds against the settings of the joint score (A11, A12, A13).

    python benchmarks/joint_score.py --backbone embedded --images 400

Vision and text run once an image; every setting is judged from the same patch values. These images are part of no
training set; real images are never used to choose a setting.
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from headclip.data.synthetic import SyntheticDataset
from headclip.inference.detector import Detector
from headclip.methods.scoring import grid_to_map, joint_score, top_share_mean
from headclip.metrics import PixelMetrics, image_metrics

SIGMAS = (0.0, 2.0, 4.0, 8.0)
SHARES = (0.001, 0.005, 0.01, 0.03, 0.05, 0.1)
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--checkpoint")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seed", type=int, default=900_001, help="seed of the rendered images")
    options = parser.parse_args()
    detector = Detector(options.backbone, options.checkpoint, device="cpu")
    size = (detector.image_size, detector.image_size)
    data = SyntheticDataset(options.seed, options.images, size)
    labels, patches, globals_ = [], [], []
    pixels = {sigma: PixelMetrics() for sigma in SIGMAS}
    for index in range(len(data)):
        sample = data[index]
        with torch.inference_mode():
            image = sample.image.permute(1, 2, 0).numpy()
            tokens = detector.method.tokens(detector.pixels([image], size))
            patches.append(detector.method.patch_map(tokens, detector.text_of()))
            logits = detector.method.image_logits(tokens, detector.text_of())
        globals_.append(logits.softmax(-1)[0, 1])
        labels.append(sample.label)
        for sigma, metric in pixels.items():
            metric.update(grid_to_map(patches[-1], size, sigma)[0].clamp(0, 1).numpy(), sample.mask.numpy())
    show(np.array(labels), torch.cat(patches), torch.stack(globals_), pixels, size)


def show(
    labels: np.ndarray,
    patches: torch.Tensor,
    global_score: torch.Tensor,
    pixels: dict[float, PixelMetrics],
    size: tuple[int, int],
) -> None:
    table = Table(title=f"image AUROC by alpha, {len(labels)} rendered images", box=None)
    for name in ("sigma", "pixel AUROC", "top share", *(f"alpha {alpha}" for alpha in ALPHAS)):
        table.add_column(name, justify="right")
    for sigma, share in product(SIGMAS, SHARES):
        maps = grid_to_map(patches, size, sigma)
        local = top_share_mean(maps, share)
        row = [
            image_metrics(joint_score(global_score, local, alpha).numpy(), labels)["image_auroc"] for alpha in ALPHAS
        ]
        pixel = pixels[sigma].compute()["pixel_auroc"]
        table.add_row(f"{sigma:g}", f"{pixel:.4f}", f"{share:g}", *(f"{value:.4f}" for value in row))
    Console().print(table)


if __name__ == "__main__":
    main()
