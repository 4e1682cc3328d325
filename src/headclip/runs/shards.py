"""Shards: which part of the images is whose, and the list of all of them that every shard leaves behind.

An image belongs to a shard by the hash of its name alone, so that any machine comes to the same division, whatever
the order in which it finds the files and whichever other images there are.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headclip.data.discover import ImageSet
from headclip.errors import InputError
from headclip.files import write_atomically
from headclip.runs.files import SHARDS, RunFolderError
from headclip.runs.parquet import read_table
from headclip.runs.run import read_facts

MERGED = "merged"  # the entry of run.json that a run merged from shards has
_PATTERN = re.compile(r"\s*(\d+)\s*/\s*(\d+)\s*")


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count`.

    Raises:
        InputError: there is no such part.

    >>> [Shard(index, 2).holds("left/part 7.png") for index in (1, 2)]
    [True, False]
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise InputError(f"there is no shard {self.index}/{self.count}; write i/n with i from 1 to n")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "2/4".

        Raises:
            InputError: it is not of that form.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise InputError(f"--shard {text}: write i/n, such as 2/4 for the second of four shards")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def from_facts(cls, facts: Any) -> Shard:
        """From what run.json keeps: {"index": 2, "count": 4, ...}.

        Raises:
            InputError: there is no such part.
            KeyError, TypeError: something else is kept there.
        """
        return cls(int(facts["index"]), int(facts["count"]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def folder(self, out: Path) -> Path:
        """Where this part of the run `out` lies."""
        return out / SHARDS / f"{self.index}-of-{self.count}"

    def holds(self, name: str) -> bool:
        """Whether the image of this name (relative to the input, `/` on every system) belongs to this part."""
        return share_of(name, self.count) == self.index

    def of(self, images: ImageSet) -> ImageSet:
        """The images of this part, in their order."""
        return ImageSet(images.root, tuple(file for file in images if self.holds(file.name)))


def check_whole(out: Path) -> None:
    """Whether shards may be put into `out`: not into a run that was made at once.

    Raises:
        RunFolderError: there is such a run.
    """
    facts = read_facts(out)
    if facts is not None and MERGED not in facts:
        raise RunFolderError(f"{out} already holds a run that was made without shards; choose another folder")


def share_of(name: str, count: int) -> int:
    """The shard, from 1 to `count`, to which an image belongs by its name.

    >>> share_of("left/part 7.png", 2), share_of("left/part 7.png", 1000)
    (1, 523)
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % count + 1


def listing_hash(names: Sequence[str]) -> str:
    """SHA-256 (hex) of all names, in their order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def keep_listing(folder: Path, names: Sequence[str]) -> str:
    """Write the names of all images into the folder that the shards share; return their hash.

    The file's name is its hash: several shards write the same file, and shards that saw other images another one.
    """
    digest = listing_hash(names)
    target = folder / _listing_file(digest)
    if not target.is_file():
        sink = io.BytesIO()
        pq.write_table(pa.table({"path": pa.array(names, pa.string())}), sink, compression="zstd")
        try:
            write_atomically(target, sink.getvalue())
        except OSError as error:
            raise RunFolderError(
                f"cannot write {target}: {error.strerror}; mend that and go on with --resume"
            ) from error
    return digest


def read_listing(folder: Path, digest: str) -> list[str]:
    """The names that `keep_listing` wrote.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    path = folder / _listing_file(digest)
    try:
        names = read_table(path).column("path").to_pylist()
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise RunFolderError(
            f"cannot read the list of images {path} ({error}); run a shard again with --resume"
        ) from error
    if listing_hash(names) != digest:
        raise RunFolderError(f"the list of images {path} is damaged; delete it and run a shard again with --resume")
    return names


def _listing_file(digest: str) -> str:
    return f"listing-{digest[:16]}.parquet"
