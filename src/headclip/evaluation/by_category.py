"""Images of a dataset judged category by category, each category beside other images of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from headclip.data.discover import ImageFile
from headclip.data.records import ImageRecord
from headclip.inference.detector import Detector


class ByCategory(ABC):
    """Gives detectors what they compare images with, for one category at a time.

    Args:
        detectors: those that can compare; others judge each image by itself.
        records: by the names of the files.
    """

    def __init__(self, detectors: Sequence[Detector], records: Mapping[str, ImageRecord]) -> None:
        self.detectors, self._records = list(detectors), records
        self._entered: tuple[str, list[Any]] | None = None

    @abstractmethod
    def give(self, detector: Detector, category: str) -> None:
        """Let a detector compare with images of this category from now on."""

    @abstractmethod
    def given(self, detector: Detector) -> Any:
        """What it compares with now; to be compared by identity or equality."""

    def parts(self, files: Iterable[ImageFile]) -> Iterator[list[ImageFile]]:
        """Images category by category, each of which has been entered when it comes."""
        for category, part in self.by_category(files).items():
            self.enter(category)
            yield part

    def enter(self, category: str) -> None:
        """Compare with images of this category from now on."""
        if self._entered == (category, self._all_given()):  # and nobody has given the detectors others since
            return
        for detector in self.detectors:
            self.give(detector, category)
        self._entered = (category, self._all_given())

    def by_category(self, files: Iterable[ImageFile]) -> dict[str, list[ImageFile]]:
        """Files by the categories of their records."""
        found: dict[str, list[ImageFile]] = {}
        for file in files:
            found.setdefault(self._records[file.name].category, []).append(file)
        return found

    def _all_given(self) -> list[Any]:
        return [self.given(detector) for detector in self.detectors]
