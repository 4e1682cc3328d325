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
import random
import re
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
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
        with zipfile.ZipFile(library) as packed:
            found = list(models(packed.read(CATALOG).decode("latin-1")))
            kept = sum(keep_model(packed, model, noun, options) for model, noun in found)
        sys.stdout.write(f"{library.name}: {kept} of {options.sides * len(found)}\n")
        sys.stdout.flush()


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


def keep_model(packed: zipfile.ZipFile, model: str, noun: str, options: Any) -> int:
    """Write the cut-outs of a model; how many there are."""
    files = {side: options.out / file_name(noun, model, side) for side in range(options.sides)}
    if all(file.is_file() for file in files.values()):
        return len(files)
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(Path(model).parent)
        packed.extractall(scratch, [name for name in packed.namelist() if name.startswith(folder + "/")])
        return sum(
            keep_side(Path(scratch, model), file, f"{options.seed} {model} {side}") for side, file in files.items()
        )


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
