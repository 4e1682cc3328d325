"""Cut-outs of electronic and mechanical parts for `headclip pretrain --photographs`, from the 3-D models of KiCad.

    apt-get download kicad-packages3d
    dpkg-deb -x kicad-packages3d_*.deb runs/kicad
    pip install pyvista
    python scripts/render_parts.py runs/kicad/usr/share/kicad/3dmodels runs/photographs/kicad-parts

A few models of every folder, each from its own side under its own lamps, as PNG with opacity. What is there already is
kept. The models are CC-BY-SA 4.0 with KiCad's exception for designs; see the package's copyright file.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from cut_outs import Array, draw, keep

MATERIAL = re.compile(r"material\s+DEF\s+(\S+)\s+Material\s*\{[^}]*?diffuseColor\s+([-\d. ]+)")
FACES = re.compile(r"coordIndex\s*\[([^\]]*)\][^\[]*point\s*\[([^\]]*)\][^}]*\}\s*\}\s*appearance[^}]*USE\s+(\S+)")
NOUNS = {
    "Package": "integrated circuit",
    "Button": "switch",
    "Mounting": "standoff",
    "MountingEquipment": "heat sink clip",
}
TWO_WORDS = ("RF", "Converter", "Sensor", "Display", "Transistor")  # folders whose second word is needed


def main() -> None:
    """Draw `--each` models of every folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, help="folder of *.3dshapes with *.wrl")
    parser.add_argument("out", type=Path)
    parser.add_argument("--each", type=int, default=8, help="models of a folder")
    parser.add_argument("--seed", type=int, default=18)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for folder in sorted(options.models.glob("*.3dshapes")):
        models = sorted(folder.glob("*.wrl"))
        chosen = random.Random(f"{options.seed} {folder.name}").sample(models, min(options.each, len(models)))
        files = [options.out / f"{noun_of(folder)}-{zlib.crc32(model.stem.encode()):010d}.png" for model in chosen]
        kept = sum(keep_part(model, file, options.seed) for model, file in zip(chosen, files, strict=True))
        sys.stdout.write(f"{folder.name}: {kept} of {len(models)}\n")
        sys.stdout.flush()


def noun_of(folder: Path) -> str:
    """What a folder of models holds: `Connector_USB.3dshapes` is "connector"."""
    words = folder.name.removesuffix(".3dshapes").split("_")
    if words[0] in TWO_WORDS and len(words) > 1:
        return " ".join(words[:2]).lower()
    return NOUNS.get(words[0], words[0].lower())


def keep_part(model: Path, file: Path, seed: int) -> bool:
    """Write the cut-out of a model unless it is there; whether it could be drawn."""
    if file.is_file():
        return True
    try:
        parts = surfaces(model.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return False
    rng = random.Random(f"{seed} {model.stem}")
    return bool(parts) and keep(file, lambda: draw(lambda plotter: put(plotter, parts, rng), rng))


def put(plotter: Any, parts: list[tuple[Array, Array, Array]], rng: random.Random) -> None:
    """The `surfaces` of a model, each with a finish of its own."""
    import pyvista

    for colour, corners, triangles in parts:
        plotter.add_mesh(pyvista.PolyData.from_regular_faces(corners, triangles), **finish(colour, rng))


def surfaces(text: str) -> list[tuple[Array, Array, Array]]:
    """All faces of each material of a VRML file as KiCad writes it: its colour, (3,) in [0, 1], the corners of its
    triangles, (N, 3), and which three of them make each triangle, (M, 3) int.
    """
    colours = {name: numbers(values) for name, values in MATERIAL.findall(text)}
    parts: dict[str, list[tuple[Array, Array]]] = {}
    for corners, points, material in FACES.findall(text):
        faces, places = numbers(corners).astype(int), numbers(points).reshape(-1, 3)
        if len(faces) and faces[-1] != -1:
            faces = np.append(faces, -1)  # the last may be left out
        if material in colours and len(faces) % 4 == 0 and (faces[3::4] == -1).all():
            parts.setdefault(material, []).append((places, faces.reshape(-1, 4)[:, :3]))
    return [(colours[material], *joined(found)) for material, found in parts.items()]


def joined(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """The corners of several meshes one after another, and their triangles with the numbers that these have then."""
    before = np.cumsum([0, *(len(places) for places, _ in parts[:-1])])
    triangles = [own + offset for (_, own), offset in zip(parts, before, strict=True)]
    return np.concatenate([places for places, _ in parts]), np.concatenate(triangles)


def numbers(text: str) -> Array:
    """All numbers of a text, parted by commas or blanks."""
    return np.array(text.replace(",", " ").split(), dtype=np.float64)


def finish(colour: Array, rng: random.Random) -> dict[str, Any]:
    """What KiCad draws light grey or golden is metal, all else plastic, glass or ceramics."""
    colour = np.clip(colour * rng.uniform(0.85, 1.15), 0, 1)
    grey = colour.max() - colour.min() < 0.12 and colour.mean() > 0.4
    golden = colour[0] > 0.6 and colour[0] > colour[2] + 0.25 and colour[1] > 0.5 * colour[0]
    metal = bool(grey or golden)
    shine = rng.uniform(0.3, 0.8) if metal else rng.uniform(0.05, 0.3)
    power = rng.uniform(8, 60) if metal else rng.uniform(4, 40)
    facts = {"ambient": 0.2, "diffuse": 0.7, "specular": shine, "specular_power": power}
    return {"color": tuple(float(c) for c in colour), "smooth_shading": True, "split_sharp_edges": True, **facts}


if __name__ == "__main__":
    main()
