"""Cut-outs of household things for `headclip pretrain --photographs`, from the furniture libraries of Sweet Home 3D.

    apt-get download sweethome3d-furniture
    dpkg-deb -x sweethome3d-furniture_*.deb runs/sweethome3d
    pip install pyvista
    python scripts/render_furniture.py runs/sweethome3d/usr/share/sweethome3d/furniture runs/photographs/household

Bottles, cups, tools, food, toys, lamps, plants, chairs and the like with the textures they have; people and houses are
left out. Each from some sides, as PNG with opacity, named by what it is. What is there already is kept. The models are
CC-BY 3.0 or CC0; see the package's copyright file, which is copied beside the pictures.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import re
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from cut_outs import Array, draw, keep

CATALOG = "PluginFurnitureCatalog.properties"
LEFT_OUT = ("Characters", "Staircases")
TRIES = 4  # draws of a side, until one is lit
DARKEST, BRIGHTEST = 24, 244  # of 255, what half of a picture may be


def main() -> None:
    """Draw all models of all libraries from `--sides` sides each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", type=Path, help="folder of *.sh3f")
    parser.add_argument("out", type=Path)
    parser.add_argument("--sides", type=int, default=2, help="pictures of a model")
    parser.add_argument("--seed", type=int, default=19)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for notice in sorted(options.libraries.glob("../../doc/*/copyright")):
        shutil.copy(notice, options.out / f"{notice.parent.name}-copyright.txt")
    for library in sorted(options.libraries.glob("*.sh3f")):
        kept, possible = keep_library(library, options.out, options.sides, options.seed)
        sys.stdout.write(f"{library.name}: {kept} of {possible}\n")
        sys.stdout.flush()


def keep_library(library: Path, out: Path, sides: int, seed: int) -> tuple[int, int]:
    """Draw all models of a library in a process that may die of one: VTK does of some. How many pictures there are, and
    how many there could be."""
    with zipfile.ZipFile(library) as packed:
        found = list(models(packed.read(CATALOG).decode("latin-1")))
    kept, pool = 0, drawing_process()
    for model, noun in found:
        files = [out / file_name(noun, model, side) for side in range(sides)]
        try:
            kept += pool.submit(keep_model, library, model, files, seed).result()
        except BrokenProcessPool:
            sys.stderr.write(f"{model} cannot be drawn\n")
            pool = drawing_process()
    pool.shutdown()
    return kept, sides * len(found)


def drawing_process() -> ProcessPoolExecutor:
    """One at a time, and a new one after each that died."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def models(catalog: str) -> Iterator[tuple[str, str]]:
    """(path of the OBJ in the library, what it shows) of each model of a catalogue."""
    lines = dict(line.split("=", 1) for line in catalog.splitlines() if re.match(r"\w+#\d+=", line))
    for key, path in lines.items():
        if key.startswith("model#") and path.endswith(".obj"):
            number = key.partition("#")[2]
            if lines.get(f"category#{number}", "") not in LEFT_OUT:
                yield path.lstrip("/"), noun_of(lines.get(f"name#{number}", ""))


def noun_of(name: str) -> str:
    """The letters of a name: `TV 16:9` is a "tv"."""
    return " ".join(re.sub(r"[^a-z]+", " ", name.lower()).split()[:3]) or "object"


def keep_model(library: Path, model: str, files: list[Path], seed: int) -> int:
    """Write the cut-outs of a model, a side each; how many there are."""
    if all(file.is_file() for file in files):
        return len(files)
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(library) as packed:
        folder = Path(model).parent.as_posix() + "/"
        packed.extractall(scratch, [name for name in packed.namelist() if name.startswith(folder)])
        place = Path(scratch, model)
        return sum(keep_side(place, file, f"{seed} {model} {side}") for side, file in enumerate(files))


def file_name(noun: str, model: str, side: int) -> str:
    """Its letters are the noun alone: what else tells models apart is a number."""
    return f"{noun.replace(' ', '-')}-{zlib.crc32(model.encode()):010d}-{side}.png"


def keep_side(model: Path, file: Path, seed: str) -> bool:
    """One picture of a model that has been unpacked."""
    rng = random.Random(seed)

    def fill(plotter: Any) -> None:
        plotter.import_obj(model, material_file(model))
        for actor in plotter.renderer.GetActors():
            finish(actor.GetProperty(), rng)

    def pixels() -> Array:
        for _ in range(TRIES):
            drawn = draw(fill, rng, up="y", turned=False)
            if is_lit(drawn):
                return drawn
        return np.zeros((1, 1, 4), np.uint8)

    return keep(file, pixels)


def is_lit(pixels: Array) -> bool:
    """Whether most of what is not transparent is neither nearly black nor burnt out."""
    seen = pixels[..., :3][pixels[..., 3] > 0]
    return len(seen) > 0 and DARKEST < float(np.median(seen.mean(axis=1))) < BRIGHTEST


def material_file(model: Path) -> Path | None:
    """The MTL that an OBJ names, if it is there."""
    with model.open(encoding="latin-1") as lines:
        named = next((line.split(maxsplit=1)[1].strip() for line in lines if line.startswith("mtllib ")), None)
    return model.parent / named if named and (model.parent / named).is_file() else None


def finish(material: Any, rng: random.Random) -> None:
    """How much of the lamps' light a material scatters and mirrors is random; its colours are the model's."""
    material.SetAmbientColor(material.GetDiffuseColor())
    material.SetAmbient(rng.uniform(0.15, 0.3))
    material.SetDiffuse(rng.uniform(0.6, 0.8))
    material.SetSpecular(rng.uniform(0.05, 0.5))
    material.SetSpecularPower(rng.uniform(5, 50))


if __name__ == "__main__":
    main()
