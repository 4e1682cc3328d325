"""Photographs of surfaces as scenes: real ground under rendered defects.

They are nobody's part of the package: whoever pretrains gives a folder. A picture counts as free of defects whatever
wear it shows, so that only what is drawn on it is one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.decode import as_rgb
from headclip.data.synthetic.base import Rng, Scene
from headclip.errors import ImageError, InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
ENLARGED = 1.5  # a photograph is enlarged at most so much, unless it is too small to fill the picture otherwise
NOUNS = {
    "brick": "brick wall",
    "carpet": "carpet",
    "cloth": "fabric",
    "fabric": "fabric",
    "concrete": "concrete",
    "floor": "floor",
    "leather": "leather",
    "marble": "marble",
    "metal": "metal surface",
    "paint": "painted surface",
    "panel": "panel",
    "plaster": "plaster",
    "rock": "rock",
    "steel": "steel sheet",
    "stone": "stone",
    "tile": "tile",
    "wall": "wall",
    "wood": "wood",
}


class Photographs:
    """A folder of photographs, searched with all below it; `draw` makes a scene of a random window of one.

    share: how many pictures in 1 show a photograph instead of a rendered scene.

    Raises:
        InputError: there is none.
    """

    def __init__(self, folder: str | Path, share: float = 0.4) -> None:
        self.folder, self.share = Path(folder), share
        files = self.folder.rglob("*")
        self.files = sorted(path for path in files if path.suffix.lower() in SUFFIXES and path.is_file())
        if not self.files:
            raise InputError(f"no photographs in {folder}; there should be files that end in {', '.join(SUFFIXES)}")
        facts = [f"{path.relative_to(self.folder).as_posix()} {path.stat().st_size}" for path in self.files]
        self._fingerprint = hashlib.sha256("\n".join([str(share), *facts]).encode()).hexdigest()

    def fingerprint(self) -> str:
        """sha256 hex of names and sizes of the files as they were found, and of the share."""
        return self._fingerprint

    def draw(self, rng: Rng, height: int, width: int) -> Scene:
        """A window of one photograph as a surface of `height` x `width` pixels; a file that cannot be read gives way
        to the next.

        Raises:
            ImageError: none of the files can be read.
        """
        first = rng.integer(0, len(self.files) - 1)
        for step in range(len(self.files)):
            path = self.files[(first + step) % len(self.files)]
            try:
                pixels = torch.from_numpy(as_rgb(path)).permute(2, 0, 1)
            except ImageError:
                continue
            image = window(pixels, rng, height, width).to(rng.device)
            everywhere = torch.ones(height, width, dtype=torch.bool, device=rng.device)
            return Scene(image, everywhere, "photograph", noun_of(path.relative_to(self.folder)))
        raise ImageError(f"none of the {len(self.files)} photographs in {self.folder} can be read")


def window(pixels: Tensor, rng: Rng, height: int, width: int) -> Tensor:
    """A random part of (3, h, w) uint8, of random scale, as (3, height, width) float32 in [0, 1]."""
    whole = min(pixels.shape[1] / height, pixels.shape[2] / width)  # pixels of the photograph for one of the picture
    scale = min(whole, rng.log_uniform(min(1 / ENLARGED, whole), max(whole, 1 / ENLARGED)))
    rows, columns = max(1, int(height * scale)), max(1, int(width * scale))
    top, left = rng.integer(0, pixels.shape[1] - rows), rng.integer(0, pixels.shape[2] - columns)
    part = pixels[None, :, top : top + rows, left : left + columns].float() / 255
    return F.interpolate(part, (height, width), mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)


def noun_of(path: Path) -> str:
    """What a file shows, as far as its name tells; "surface" otherwise."""
    name = path.as_posix().lower()
    return next((noun for word, noun in NOUNS.items() if word in name), "surface")
