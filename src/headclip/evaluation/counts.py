"""Pixel counts of a single image as a small file, so that its map need not be kept.

A file holds everything the pixel metrics need to know of an image: merging the states of all files gives, bit for
bit, the state that one pass over the maps would give. Its size is bounded whatever the image's size (some 0.5 MB).
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headclip.errors import InputError
from headclip.files import parse_json
from headclip.metrics.per_image import ImageCounts
from headclip.metrics.state import PixelState, empty_state, merge

_FORMAT = "headclip-counts-1"
_HEADER_BYTES = 1 << 20
_UNPACKED_BYTES = 256 << 20  # of one image; ten times what the largest has
DAMAGE = (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, MemoryError)
_GROUP = 32  # states merged at a time: one merge sorts all their bins


def encode_counts(state: PixelState | None, facts: dict[str, Any]) -> bytes:
    """A state (None: the image's defects are not known) and JSON-able facts, compressed."""
    arrays: dict[str, NDArray[Any]] = {}
    if state is not None:
        marked = np.flatnonzero(state.positives)
        arrays = state.to_arrays() | {
            "bins": _narrow(np.diff(state.bins, prepend=state.bins[:1])),
            "first": state.bins[:1],
            "positives": _narrow(state.positives[marked]),
            "weights": state.weights[marked],
            "marked": _narrow(marked),
            "negatives": _narrow(state.negatives),
        }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    packed = zlib.compress(buffer.getvalue(), 1)
    digest = hashlib.sha256(packed).hexdigest()
    header = json.dumps({"format": _FORMAT, "facts": facts, "known": state is not None, "sha256": digest})
    return header.encode() + b"\n" + packed


def read_facts(path: Path) -> dict[str, Any] | None:
    """The facts of a counts file, with `known`; None where there is no such file, or another format."""
    try:
        with path.open("rb") as handle:
            header = parse_json(handle.readline(_HEADER_BYTES))
    except (OSError, ValueError):
        return None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        return None
    if not isinstance(header.get("facts"), dict) or not isinstance(header.get("known"), bool):
        return None
    return header["facts"] | {"known": header["known"]}


def read_counts(path: Path) -> PixelState:
    """The state of a counts file.

    Raises:
        InputError: the file is missing or damaged, or the image's defects are not known.
    """
    try:
        header, _, packed = path.read_bytes().partition(b"\n")
        digest = parse_json(header[:_HEADER_BYTES]).get("sha256")
        if digest is not None and hashlib.sha256(packed).hexdigest() != digest:  # None: of an older headclip
            raise ValueError("they do not match their check sum")
        content = io.BytesIO(zlib.decompressobj().decompress(packed, _UNPACKED_BYTES))
        with np.load(content, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        return _unpack(arrays)
    except (*DAMAGE, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"the pixel counts {path} cannot be read ({error}); --resume makes them again") from None


def is_sound(path: Path) -> bool:
    """Whether the state of a counts file can be read."""
    try:
        read_counts(path)
    except InputError:
        return False
    return True


def _unpack(arrays: dict[str, NDArray[Any]]) -> PixelState:
    size = len(arrays["bins"])
    marked = arrays["marked"].astype(np.int64)
    positives, weights = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    positives[marked], weights[marked] = arrays["positives"], arrays["weights"]
    bins = np.cumsum(arrays["bins"].astype(np.int64)) + (arrays["first"][0] if size else 0)
    negatives = arrays["negatives"].astype(np.int64)
    columns = {"bins": bins, "positives": positives, "negatives": negatives, "weights": weights}
    return PixelState.from_arrays(arrays | columns)


def _narrow(values: NDArray[np.int64]) -> NDArray[Any]:
    """Non-negative integers in the smallest type that holds them."""
    top = int(values.max()) if len(values) else 0
    kind = next(k for k in (np.uint8, np.uint16, np.uint32, np.uint64) if top <= np.iinfo(k).max)
    return values.astype(kind)


def merge_all(states: Iterable[PixelState]) -> PixelState:
    """The state of any number of images, of which only a few are in memory at a time."""
    total: PixelState | None = None
    group: list[PixelState] = []
    for state in states:
        group.append(state)
        if len(group) == _GROUP:
            total = merge(*([] if total is None else [total]), *group)
            group = []
    if group:
        total = merge(*([] if total is None else [total]), *group)
    return empty_state() if total is None else total


class StateCounts(ImageCounts):
    """`ImageCounts` filled from the states of images instead of their maps; the result is the same."""

    def add(self, state: PixelState) -> None:
        """Add one image, by its own state, whose level is at most that of the bins."""
        self._place(state, state.bins >> (self.bins.level - state.level))
