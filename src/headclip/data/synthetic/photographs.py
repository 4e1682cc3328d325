"""Photographs of surfaces and of things as scenes: real ground and real parts under rendered defects.

They are nobody's part of the package: whoever pretrains gives a folder. A picture counts as free of defects whatever
wear it shows, so that only what is drawn on it is one. A PNG with transparent places shows a thing, cut out of its
background; every other picture a surface.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from headclip.data.decode import as_rgb
from headclip.data.run_folder import is_run_folder
from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.things import thing_scene
from headclip.errors import ImageError, InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
THINGS = 0.25  # how many of the pictures in 1 show a thing, where there are both
ON_SURFACE = 0.35  # and how many of these have a photographed surface as their ground
ENLARGED = 1.5  # a photograph is enlarged at most so much, unless it is too small to fill the picture otherwise
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow says of broken files
OPAQUE = 128  # of 255: a picture is of a thing where opacity somewhere is below
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


def pictures_below(folder: Path) -> list[Path]:
    """All pictures of a folder and of those in it, in order of their paths; what lies in runs of ours is none."""

    @cache
    def in_run(place: Path) -> bool:
        return place != folder and (is_run_folder(place) or in_run(place.parent))

    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not in_run(path.parent))


class Photographs:
    """A folder of photographs, searched with all below it; `draw` makes a scene of a random window of one.

    share: how many pictures in 1 show a photograph instead of a rendered scene.

    Raises:
        InputError: there is none.
    """

    def __init__(self, folder: str | Path, share: float = 0.4) -> None:
        self.folder, self.share = Path(folder), share
        self.files = pictures_below(self.folder)
        self.things = [path for path in self.files if path.suffix.lower() == ".png" and _is_cut_out(path)]
        self.surfaces = sorted(set(self.files) - set(self.things))
        if not self.files:
            raise InputError(f"no photographs in {folder}; there should be files that end in {', '.join(SUFFIXES)}")
        facts = [f"{path.relative_to(self.folder).as_posix()} {path.stat().st_size}" for path in self.files]
        self._fingerprint = hashlib.sha256("\n".join([str(share), *facts]).encode()).hexdigest()

    def fingerprint(self) -> str:
        """sha256 hex of names and sizes of the files as they were found, and of the share."""
        return self._fingerprint

    def draw(self, rng: Rng, height: int, width: int) -> Scene:
        """A window of one photograph as a surface of `height` x `width` pixels, or a thing on a ground; a file that
        cannot be read gives way to the next.

        Raises:
            ImageError: none of the files can be read.
        """
        if self.things and (not self.surfaces or rng.chance(THINGS)):
            path, pixels = _first_readable(self.things, rng, _with_opacity, self.folder)
            ground = self.surface(rng, height, width)[1] if self.surfaces and rng.chance(ON_SURFACE) else None
            return thing_scene(pixels.to(rng.device), rng, height, width, noun_of_thing(path), ground)
        path, image = self.surface(rng, height, width)
        everywhere = torch.ones(height, width, dtype=torch.bool, device=rng.device)
        return Scene(image, everywhere, "photograph", noun_of(path.relative_to(self.folder)))

    def surface(self, rng: Rng, height: int, width: int) -> tuple[Path, Tensor]:
        """A random surface and a window of it, (3, height, width) float32 in [0, 1].

        Raises:
            ImageError: none of the files can be read.
        """
        path, pixels = _first_readable(self.surfaces, rng, _opaque, self.folder)
        return path, window(pixels, rng, height, width).to(rng.device)


def _first_readable(files: list[Path], rng: Rng, read: Callable[[Path], Tensor], folder: Path) -> tuple[Path, Tensor]:
    """A random one of the files and its pixels, or the next that can be read."""
    first = rng.integer(0, len(files) - 1)
    for step in range(len(files)):
        path = files[(first + step) % len(files)]
        try:
            return path, read(path)
        except ImageError:
            continue
    raise ImageError(f"none of the {len(files)} photographs in {folder} can be read")


def _opaque(path: Path) -> Tensor:
    """(3, h, w) uint8."""
    return torch.from_numpy(as_rgb(path)).permute(2, 0, 1)


def _with_opacity(path: Path) -> Tensor:
    """(4, h, w) float32 in [0, 1]: colours and opacity.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        with Image.open(path) as opened:
            pixels = np.array(opened.convert("RGBA"))
    except UNREADABLE as error:
        raise ImageError(f"{path}: {error}") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _is_cut_out(path: Path) -> bool:
    """Whether a PNG has transparent places."""
    try:
        with Image.open(path) as opened:
            if "A" not in opened.getbands() and "transparency" not in opened.info:
                return False
            return bool((np.asarray(opened.convert("RGBA"))[..., 3] < OPAQUE).any())
    except UNREADABLE:
        return False


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


def noun_of_thing(path: Path) -> str:
    """What a cut-out shows by the name of its file: `red-apple_2.png` is a "red apple"."""
    words = re.sub(r"[^a-z]+", " ", path.stem.lower()).split()
    return " ".join(words[:3]) or "object"
