"""What a killed job left behind: files under their final names that are not whole, and what lies around."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

UNNAMED = ".tmp"  # a folder that counts for nothing until its files are renamed


def broken_files(folder: Path) -> list[str]:
    """Files of `folder` that have their final name and cannot be read to the end."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not is_unfinished(path.relative_to(folder)) and path.suffix in READERS:
            try:
                READERS[path.suffix](path)
            except Exception as error:  # every reader has errors of its own
                found.append(f"{path.relative_to(folder)}: {type(error).__name__} {error}")
    return found


def leftovers(folder: Path) -> list[str]:
    """Temporary files that nobody has taken away."""
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if is_unfinished(path)]


def is_unfinished(path: Path) -> bool:
    """Whether the name says that the file is not there yet."""
    hidden = any(part.startswith(UNNAMED) for part in path.parts)
    return hidden or any(part.endswith((".partial", ".lock")) for part in path.parts)


def _image(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.load()


def _csv(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    widths = {len(row) for row in csv.reader(io.StringIO(text, newline=""))}
    if not text.endswith("\n") or len(widths) != 1:
        raise ValueError(f"rows of {sorted(widths)} columns, end {text[-1:]!r}")


def _parquet(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.read_table(path, use_threads=False)


def _safetensors(path: Path) -> None:
    from safetensors.torch import load

    load(path.read_bytes())


def _state(path: Path) -> None:
    import torch

    torch.load(path, weights_only=True)


def _lines(path: Path) -> None:
    """Journals and logs grow line by line: their last line alone may be torn, and readers leave it out."""
    whole = path.read_bytes().rpartition(b"\n")[0]
    for line in whole.splitlines():
        json.loads(line)


def _counts(path: Path) -> None:
    from headclip.evaluation.counts import read_counts, read_facts

    facts = read_facts(path)
    if facts is None:
        raise ValueError("no facts")
    if facts["known"]:
        read_counts(path)


def _page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if "<title>headclip evaluate</title>" not in text and "</html>" not in text[-200:]:
        raise ValueError("the page has no end")


READERS: dict[str, Callable[[Path], object]] = {
    ".png": _image,
    ".jpg": _image,
    ".csv": _csv,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".jsonl": _lines,
    ".index": _lines,
    ".parquet": _parquet,
    ".safetensors": _safetensors,
    ".state": _state,
    ".pt": _state,
    ".counts": _counts,
    ".html": _page,
}
