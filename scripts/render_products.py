"""Folders of rendered images of one kind each, as a camera over a line makes them: one product of every family.

    python scripts/render_products.py runs/products --count 40 --seed 950

`OUT/FAMILY/test/good/NNN.png`, `test/DEFECT/NNN.png` and `ground_truth/DEFECT/NNN_mask.png`, so that OUT is a dataset
whose categories are the families. All that makes a product (shape, colours, material, light, lens) is drawn once a
family; grain, noise, dirt, the place within the picture and the defect are each image's own. What is there is kept.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.camera import as_seen, draw_look, expose, orient
from headclip.data.synthetic.defects import apply_defect
from headclip.data.synthetic.distractors import add_distractors
from headclip.data.synthetic.registry import FAMILIES
from headclip.data.synthetic.renderer import item_seed
from headclip.data.synthetic.scenes import make_scene
from headclip.data.write_synthetic import write_picture

MARGIN = 24  # pixels by which a product's place in the picture varies
STREAMS = 4  # of randomness an image has


@dataclass(frozen=True)
class Piece:
    """One image of a product: (3, S, S) uint8, its mask (S, S) bool, and its defect, "" for a sound one."""

    image: Tensor
    mask: Tensor
    defect: str


def render_piece(product: int, index: int, family: str, size: int, defect_rate: float) -> Piece:
    """Piece number `index` of a product, both of them seeds."""
    side, own = size + MARGIN, STREAMS * item_seed(product, index)
    making = Rng(product, fields=own)
    look = draw_look(making)
    scene = make_scene(making, side, side, family)
    placing, harming, camera = (Rng(own + stream) for stream in (1, 2, 3))
    scene = add_distractors(as_seen(scene, look), placing)
    drawn, mask, defect = scene.image, torch.zeros_like(scene.foreground), ""
    if harming.chance(defect_rate):
        drawn, mask, defect = apply_defect(scene, harming, None)
    seen, mask = orient(expose(drawn, look, camera, scene.image), look), orient(mask, look)
    row, column = placing.integer(0, MARGIN), placing.integer(0, MARGIN)
    window = (slice(row, row + size), slice(column, column + size))
    image, mask = (seen[:, *window] * 255 + 0.5).to(torch.uint8), mask[window]
    return Piece(image.expand(3, -1, -1), mask, defect if bool(mask.any()) else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=40, help="images of each product")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--defect-rate", type=float, default=0.3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for number, family in enumerate(tqdm(FAMILIES, unit="product")):
        folder = chosen.out / family
        for index in range(chosen.count):
            name = f"{index:03d}"
            if any(folder.glob(f"test/*/{name}.png")):
                continue
            product = item_seed(chosen.seed, number)
            piece = render_piece(product, index, family, chosen.size, chosen.defect_rate)
            write_picture(folder, name, piece.image, piece.mask, piece.defect)


if __name__ == "__main__":
    main()
