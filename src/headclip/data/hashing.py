"""Fingerprints of images, and whether a target set shares images with a training set.

Two fingerprints: the SHA-256 of the file, equal only for identical files, and a 64-bit perceptual hash of the
decoded picture, which survives another format, another quality and another size. The latter is the sign of
the low frequencies of a cosine transform (pHash). On polyp, skin, brain and commutator images, half-size JPEG
copies of quality 60 stay within 4 bits of their originals in 95 to 100 % of cases; different images of one
set differ by 6 bits or more. Turned, mirrored and cropped copies are not found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headclip.data.datasets.registry import is_published, same_dataset
from headclip.data.decode import decode
from headclip.data.records import ImageRecord
from headclip.errors import ImageError, InputError
from headclip.files import file_hash

NEAR_DISTANCE = 4
"""Bits by which the perceptual hashes of two copies of a picture may differ."""

_SIDE, _BLOCK, _FLAT = 32, 8, 1e-3
_CHUNK = 1 << 22
_BITS = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)


def perceptual_hash(image: NDArray[np.uint8]) -> int | None:
    """64-bit pHash of an RGB image (H, W, 3), uint8; None for a picture without any structure.

    The picture is averaged to 32 x 32 grey values; of its cosine transform the 8 x 8 lowest frequencies are
    compared with their median. The bit of the mean brightness is always 0.

    >>> rows = np.arange(64, dtype=np.uint8)[:, None, None] * np.ones((1, 64, 3), np.uint8)
    >>> bin(perceptual_hash(rows) ^ perceptual_hash(rows[::2, ::2])).count("1") <= NEAR_DISTANCE
    True
    >>> perceptual_hash(np.zeros((64, 64, 3), np.uint8)) is None
    True
    """
    from scipy.fft import dctn

    grey = Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    values = dctn(np.asarray(grey, dtype=np.float64), norm="ortho")[:_BLOCK, :_BLOCK].ravel()  # (64,)
    if np.abs(values[1:]).max() < _FLAT:
        return None
    bits = values > np.median(values[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def pixel_hash(image: NDArray[np.uint8]) -> str:
    """SHA-256 (hex) of a picture (H, W, 3), uint8: equal for equal pixels, in whatever format they were kept.

    >>> pixel_hash(np.zeros((2, 3, 3), np.uint8)) == pixel_hash(np.zeros((3, 2, 3), np.uint8))
    False
    """
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def near_pairs(
    first: Sequence[int], second: Sequence[int], distance: int = NEAR_DISTANCE
) -> list[tuple[int, int, int]]:
    """(i, j, bits) for every first[i] and second[j] that differ by at most `distance` bits.

    Every pair is compared, in blocks of constant memory: 10^8 pairs take a few seconds.
    """
    if not first or not second:
        return []
    left, right = np.array(first, dtype=np.uint64), np.array(second, dtype=np.uint64)
    pairs: list[tuple[int, int, int]] = []
    rows = max(1, _CHUNK // len(right))
    for start in range(0, len(left), rows):
        different = left[start : start + rows, None] ^ right[None, :]  # (rows, len(right))
        bits = _count_bits(different)
        for i, j in np.argwhere(bits <= distance):
            pairs.append((start + int(i), int(j), int(bits[i, j])))
    return pairs


def training_sets(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The training sets of a checkpoint's `data` entry, the last one first; those before it are its `earlier`."""
    part: Any = data
    while isinstance(part, Mapping) and part:
        yield part
        part = part.get("earlier")


@dataclass(frozen=True)
class TrainingHashes:
    """What a checkpoint keeps of its training images.

    names: of the datasets; files: path to SHA-256 (hex); looks: path to perceptual hash.
    """

    names: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    looks: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_metadata(cls, data: Mapping[str, Any]) -> TrainingHashes:
        """From the `data` entry of a checkpoint: `name`, `files` {path: sha256}, `looks` {path: 16 hex digits}, and
        `earlier`, the same of what it had been trained on before (`training_sets`).

        Raises:
            InputError: an entry is not of that form.
        """
        names: list[str] = []
        files: dict[str, str] = {}
        looks: dict[str, int] = {}
        try:
            for number, part in enumerate(training_sets(data)):
                names += [str(name) for name in part.get("names") or ([part["name"]] if part.get("name") else [])]
                before = f"{part.get('name', 'earlier')}: " if number else ""
                files |= {f"{before}{path}": value for path, value in dict(part.get("files", {})).items()}
                looks |= {f"{before}{path}": int(value, 16) for path, value in dict(part.get("looks", {})).items()}
            if not all(0 <= value < 1 << 64 for value in looks.values()):
                raise ValueError("a perceptual hash has 64 bits")
            return cls(tuple(dict.fromkeys(names)), files, looks)
        except (TypeError, ValueError) as error:
            raise InputError(f"the training record of the checkpoint is damaged: {error}") from None


@dataclass(frozen=True)
class SharedImage:
    """A target image that the model has been trained on. bits: 0 for identical files."""

    training: str
    target: Path
    bits: int


@dataclass(frozen=True)
class Leakage:
    """What a target set shares with a training set.

    compared: whether the training record had file hashes and perceptual hashes to compare with.
    """

    target: str
    same_name: str | None
    exact: tuple[SharedImage, ...]
    near: tuple[SharedImage, ...]
    compared: tuple[bool, bool]

    @property
    def found(self) -> bool:
        """Whether anything is shared."""
        return bool(self.same_name or self.exact or self.near)

    def sentence(self) -> str:
        """One line for people, e.g. for a refusal; "" where nothing is shared."""
        parts = [f"it was trained on {self.same_name}, the same dataset"] if self.same_name else []
        if self.exact:
            first = self.exact[0]
            parts.append(f"{len(self.exact)} identical image(s), e.g. {first.target} = {first.training}")
        if self.near:
            first = self.near[0]
            parts.append(f"{len(self.near)} near-identical image(s), e.g. {first.target} ~ {first.training}")
        return f"{self.target} shares data with the training set: {'; '.join(parts)}" if parts else ""


def leakage(
    training: TrainingHashes,
    target: str,
    records: Iterable[ImageRecord],
    *,
    distance: int = NEAR_DISTANCE,
    progress: Callable[[int], None] | None = None,
) -> Leakage:
    """Compare a target set with the training images.

    A published dataset is known by its name too, in whatever version or format. Folders of one's own may have any name,
    such as `data`, and say nothing by it: only a training record without fingerprints goes by those.

    Args:
        target: the name of the target set.
        records: its images. Files that cannot be read are passed over here; scoring reports them.
        distance: how many bits of 64 near-identical images may differ by.
        progress: called with the number of images done.
    """
    blind = not (training.files or training.looks)
    same = next((name for name in training.names if same_dataset(name, target) and (blind or is_published(name))), None)
    by_hash = {value: path for path, value in training.files.items()}
    exact: list[SharedImage] = []
    paths: list[Path] = []
    looks: list[int] = []
    for done, record in enumerate(records if by_hash or training.looks else (), 1):
        source = by_hash.get(_quiet_sha256(record.path) or "")
        if source is not None:
            exact.append(SharedImage(source, record.path, 0))
        elif training.looks and (value := _quiet_look(record.path)) is not None:
            paths.append(record.path)
            looks.append(value)
        if progress is not None:
            progress(done)
    names = list(training.looks)
    best: dict[Path, SharedImage] = {}
    for i, j, bits in near_pairs(looks, list(training.looks.values()), distance):
        if paths[i] not in best or bits < best[paths[i]].bits:
            best[paths[i]] = SharedImage(names[j], paths[i], bits)
    compared = (bool(by_hash), bool(training.looks))
    return Leakage(target, same, tuple(exact), tuple(best.values()), compared)


def _count_bits(values: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Set bits of each value; numpy has a function of its own from 2.0 on."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(values)
    return _BITS[values.view(np.uint16).reshape(*values.shape, 4)].sum(axis=-1, dtype=np.uint8)


def _quiet_sha256(path: Path) -> str | None:
    try:
        return file_hash(path)
    except OSError:
        return None


def _quiet_look(path: Path) -> int | None:
    try:
        return perceptual_hash(decode(path))
    except ImageError:
        return None
