"""Few-shot evaluation: a few normal images of each category, which methods compare with and nothing is scored on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headclip.data.datasets import Dataset
from headclip.data.decode import DEFAULT_MAX_PIXELS, decode
from headclip.data.discover import find_images
from headclip.data.layouts import NORMAL_NAMES, subfolders
from headclip.data.records import ImageRecord
from headclip.errors import ImageError, InputError
from headclip.evaluation.by_category import ByCategory
from headclip.files import content_hash
from headclip.inference.detector import Detector
from headclip.inference.peers import in_chance_order


@dataclass(frozen=True)
class ShotOptions:
    """Which normal images of each category methods compare with.

    images: how many, for all methods or by label; 0 in the latter is zero-shot. Who has fewer has the first of those
    that others have. seed: which of them.

    Raises:
        InputError: a negative number, or none above 0.
    """

    images: int | Mapping[str, int]
    seed: int = 0

    def __post_init__(self) -> None:
        counts = [self.images] if isinstance(self.images, int) else list(self.images.values())
        if max(counts, default=0) < 1 or min(counts) < 0:
            raise InputError("--shots needs 1 or more; several numbers may have a 0 among them, for zero-shot")

    @property
    def most(self) -> int:
        """Of any method."""
        return self.images if isinstance(self.images, int) else max(self.images.values())

    def of(self, label: str) -> int:
        """Of the method with that label."""
        return self.images if isinstance(self.images, int) else self.images.get(label, 0)


@dataclass(frozen=True)
class Shots:
    """The files of each category. left_out: test images that are not scored, being shots or exact copies of some."""

    files: Mapping[str, Sequence[Path]] = field(repr=False)
    left_out: Sequence[Path] = field(repr=False)


def take_shots(dataset: Dataset, options: ShotOptions, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[Dataset, Shots]:
    """Draw the shots of each category, and take those that are test images out of the dataset, with their copies.

    They come from the category's folder train/good where it has one, as published few-shot figures do, else from the
    normal test images. For the same names and seed they are the same. Images that cannot be read, and copies of those
    drawn already, are passed over.

    Raises:
        InputError: a category has too few normal images for that, or none would be left to score.
    """
    files: dict[str, list[Path]] = {}
    contents: set[str] = set()
    for category in dataset.categories:
        normal = [record.path for record in dataset.of(category) if record.label == 0]
        folder = _training_folder(dataset, category)
        if folder is None:
            names, place = {dataset.relative(path): path for path in normal}, "among its test images"
        else:
            names, place = {path.relative_to(folder).as_posix(): path for path in find_images(folder)}, f"in {folder}"
        drawn = dict(_draw(names, options, max_pixels))
        files[category], contents = list(drawn), contents | set(drawn.values())
        if len(drawn) < options.most or (folder is None and len(normal) == len(drawn)):
            raise InputError(
                f"{dataset.info.title}: {category} has {len(names):,} normal image(s) {place}, too few to take "
                f"{options.most} as shots; take fewer, or leave the dataset out"
            )
    records, left_out = [], []
    for record in dataset.records:
        if content_hash(record.path) in contents:
            left_out.append(record.path)
        else:
            records.append(record)
    return replace(dataset, records=records), Shots(files, left_out)


def _draw(names: Mapping[str, Path], options: ShotOptions, max_pixels: int) -> Iterator[tuple[Path, str]]:
    """The shots and what stands for their contents."""
    found: set[str] = set()
    for name in in_chance_order(names, options.seed):
        if len(found) == options.most:
            return
        content = content_hash(names[name])
        if content is None or content in found:
            continue
        try:
            decode(names[name], max_pixels=max_pixels)
        except ImageError:
            continue
        found.add(content)
        yield names[name], content


def _training_folder(dataset: Dataset, category: str) -> Path | None:
    """Where the normal training images of a category lie in MVTec's layout; None in others."""
    alone = len(dataset.categories) == 1
    for place in [dataset.root / category, *([dataset.root] if alone else [])]:
        for folder in subfolders(place / "train"):
            if folder.name.casefold() in NORMAL_NAMES:
                return folder
    return None


def shots_json(keys: Sequence[str], datasets: Sequence[Dataset], shots: Sequence[Shots | None]) -> dict[str, Any]:
    """Which images were the shots, for results.json; nothing without shots."""
    found = {
        key: {
            "left_out": [dataset.relative(path) for path in taken.left_out],
            "images": {name: [dataset.relative(path) for path in files] for name, files in taken.files.items()},
        }
        for key, dataset, taken in zip(keys, datasets, shots, strict=True)
        if taken is not None
    }
    return {"shots": found} if found else {}


class CategoryShots(ByCategory):
    """Compares with the shots of the category; methods that take no normal images, or are to have none, do without."""

    def __init__(
        self,
        detectors: Mapping[str, Detector],
        records: Mapping[str, ImageRecord],
        shots: Shots,
        options: ShotOptions,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        takers = {
            label: each for label, each in detectors.items() if options.of(label) and each.method.takes_references
        }
        super().__init__(list(takers.values()), records)
        self._counts = {id(detector): options.of(label) for label, detector in takers.items()}
        self._shots, self._max_pixels = shots, max_pixels

    def give(self, detector: Detector, category: str) -> None:
        detector.set_references(self._pixels(self._shots.files[category][: self._counts[id(detector)]]))

    def given(self, detector: Detector) -> Any:
        return list(detector.references)

    def _pixels(self, files: Iterable[Path]) -> Iterator[Any]:
        for file in files:
            yield decode(file, max_pixels=self._max_pixels)
