"""Small pictures and broken files for the tests."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from headclip.data.formats import KINDS

# name: a part of the reason that has to be given
BAD_FILES = {
    "bad/truncated.jpg": "the JPEG data is damaged",
    "bad/empty.png": "the file is empty",
    "bad/text.png": f"not a {KINDS} image",
    "bad/one.png": "at least 8",
    "bad/huge.png": "raise it with --max-pixels",
}


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds nothing: enough for what must be refused by its size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def write_pictures(folder: Path, count: int) -> Path:
    """`count` noisy grey pictures of different sizes and brightness, half of them in a subfolder."""
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 20 + 15 * (index % 12), (24 + index, 40, 3), dtype=np.uint8)
        path = folder / ("left" if index % 2 else "right") / f"part {index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def write_bad_files(folder: Path) -> dict[str, str]:
    """Put the files of BAD_FILES into `folder`."""
    (folder / "bad").mkdir(parents=True)
    Image.effect_noise((64, 64), 50).save(folder / "bad/whole.jpg")
    (folder / "bad/truncated.jpg").write_bytes((folder / "bad/whole.jpg").read_bytes()[:1000])
    (folder / "bad/whole.jpg").unlink()
    (folder / "bad/empty.png").touch()
    (folder / "bad/text.png").write_text("this is text")
    Image.new("L", (1, 1)).save(folder / "bad/one.png")
    (folder / "bad/huge.png").write_bytes(png_header(20_000, 20_000))
    return BAD_FILES
