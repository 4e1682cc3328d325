"""Collect photographs out of Debian packages of free games for `headclip pretrain --photographs`.

    apt-get download openarena-081-textures nexuiz-textures 0ad-data supertuxkart-data \
        ufoai-textures redeclipse-data tuxpaint-stamps-default
    python scripts/collect_photographs.py runs/photographs *.deb

Surfaces, as JPEG: opaque pictures of at least 256 px a side below a folder of textures; left out are normal maps and
their kin, skies, effects and signs, as far as names and pixels tell. Things, as PNG with opacity: the stamps of Tux
Paint that are photographs, as far as their folders and colours tell. Needs dpkg-deb. Whose they are stands in each
package's copyright file, which is written beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

PICTURES, ARCHIVES = (".jpg", ".jpeg", ".png", ".tga", ".dds"), (".pk3", ".zip")
AUXILIARY = (
    *("_norm", "_bump", "_gloss", "_glow", "_local", "_spec", "_height", "_nm", "_luma", "_pants", "_shirt", "_blend"),
    *("normal", "specular", "mask", "displace", "alpha", "light"),
)
NO_SURFACE = (
    *("sky", "skies", "env/", "models/", "credits", "crosshair", "fog", "liquid", "slime", "flesh", "skull"),
    *("effect", "particle", "decal", "font", "gfx", "hud", "logo", "icon", "ui/", "cursor", "levelshot"),
    *("sign", "banner", "flag", "player", "weapon", "skin", "flame", "fire", "smoke", "water", "lava"),
    *("console", "blood"),
)
SURFACES = re.compile(r"textur|redeclipse/data/(jojo|wicked|philipk|torley|trak)/")
# Red Eclipse marks maps of height and the like by a letter.
ANOTHER_MAP = re.compile(r"redeclipse/.*(_[a-z]\d?|\d[nsz])$")
STAMPS = "tuxpaint/stamps/"
NO_PHOTOGRAPH = (
    *("cartoon", "_mirror", "_flip", "/alphabets/", "/math/", "/music/", "/shapes/", "/faces/", "/chess/"),
    *("00_symbols", "/flags/", "/roadsigns/", "naturalforces", "/space/", "/christmas/", "/hanukkah/"),
)
SMALLEST, LARGEST = 256, 1024  # px
SMALLEST_THING, FLAT_SHARE = 96, 0.3  # px; of the pixels in the commonest colour of 32 levels each, above is drawn
FLATTEST, DARKEST = 6.0, 24.0  # standard deviation and mean of brightness, of 255


def main() -> None:
    """Write the pictures of every package into a folder of its name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("packages", type=Path, nargs="+", help=".deb files")
    options = parser.parse_args()
    seen: set[str] = set()
    for package in options.packages:
        folder = options.out / package.name.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        kept = sum(keep(name, content, folder, seen) for name, content in files(package, folder))
        sys.stdout.write(f"{folder}: {kept} photographs\n")


def files(package: Path, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Path and content of every picture of a package, those in archives inside it too."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as members,
    ):
        for member in members:
            stream = members.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            suffix = PurePosixPath(member.name).suffix.lower()
            if suffix in PICTURES and wanted(member.name):
                yield member.name, stream.read()
            elif suffix in ARCHIVES:
                yield from inside(stream)
            elif member.name.endswith("/copyright"):
                (folder / "copyright.txt").write_bytes(stream.read())


def inside(archive: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """The same for an archive within a package."""
    with zipfile.ZipFile(io.BytesIO(archive.read())) as opened:
        for name in opened.namelist():
            if PurePosixPath(name).suffix.lower() in PICTURES and wanted(name):
                yield name, opened.read(name)


def wanted(name: str) -> bool:
    """Whether a path looks like that of a surface or of a photographed stamp."""
    lower = name.lower()
    if STAMPS in lower:
        return not any(word in lower for word in NO_PHOTOGRAPH)
    if not SURFACES.search(lower) or ANOTHER_MAP.search(lower.rpartition(".")[0]):
        return False
    return not any(word in lower for word in (*AUXILIARY, *NO_SURFACE))


def keep(name: str, content: bytes, folder: Path, seen: set[str]) -> bool:
    """Write a picture if it is new: a surface as JPEG if it is opaque, large and varied enough, a thing as PNG."""
    digest = hashlib.sha256(content).hexdigest()
    if digest in seen:
        return False
    seen.add(digest)
    if STAMPS in name.lower():
        return keep_thing(name, content, folder, seen)
    try:
        with Image.open(io.BytesIO(content)) as opened:
            if min(opened.size) < SMALLEST or max(opened.size) > 3 * min(opened.size):
                return False
            if "A" in opened.getbands() and opened.getchannel("A").getextrema()[0] < 250:
                return False
            picture = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, NotImplementedError, SyntaxError):
        return False
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture, dtype=np.float32)
    red, green, blue = pixels.mean(axis=(0, 1))
    normal_map = blue > 180 and abs(red - 128) < 25 and abs(green - 128) < 25
    grey = pixels.mean(axis=2)
    if normal_map or grey.std() < FLATTEST or grey.mean() < DARKEST or min(picture.size) < SMALLEST // 2:
        return False
    words = [part for part in PurePosixPath(name).with_suffix("").parts[-3:] if part not in ("..", "/")]
    picture.save(folder / f"{'-'.join(words)}-{digest[:8]}.jpg", quality=92)
    return True


def keep_thing(name: str, content: bytes, folder: Path, seen: set[str]) -> bool:
    """Write a cut-out as PNG if it is large enough and no drawing; `seen` gets the name that it was given."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture = opened.convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return False
    picture = picture.crop(picture.getchannel("A").getbbox())
    picture.thumbnail((LARGEST // 2, LARGEST // 2), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    visible = pixels[pixels[..., 3] > 200][:, :3] // 8
    if max(picture.size) < SMALLEST_THING or min(picture.size) < SMALLEST_THING // 3 or pixels[..., 3].min() > 50:
        return False
    _, counts = np.unique(visible, axis=0, return_counts=True)
    if len(visible) < SMALLEST_THING**2 // 8 or counts.max() > FLAT_SHARE * len(visible):
        return False
    stem = label = PurePosixPath(name).stem
    number = 1
    while label in seen:  # another of this name from another folder
        number += 1
        label = f"{stem}-{number}"
    seen.add(label)
    picture.save(folder / f"{label}.png")
    return True


if __name__ == "__main__":
    main()
