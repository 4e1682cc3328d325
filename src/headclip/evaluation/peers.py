"""Images of a dataset compared with others of their category, whose labels nobody looks at."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.discover import ImageFile
from headclip.data.records import ImageRecord
from headclip.errors import InputError
from headclip.inference.detector import Detector
from headclip.inference.peers import pick_peers

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PeerOptions:
    """images: at most so many of each category; weight: how much the comparison counts, 0 or more."""

    images: int
    weight: float = 1.0


def peer_facts(detector: Detector, options: PeerOptions | None) -> dict[str, Any]:
    """What a detector's settings say of it, beside its own; nothing without options, or where it cannot compare."""
    if options is None or not detector.method.takes_peers:
        return {}
    return {"peers": {"images": options.images, "weight": options.weight}}


def all_facts(detectors: Mapping[str, Detector], options: PeerOptions | None) -> dict[str, dict[str, Any]]:
    """By label, what each detector says of itself, with what it is compared with."""
    return {label: detector.describe() | peer_facts(detector, options) for label, detector in detectors.items()}


@contextmanager
def left_alone(detectors: Mapping[str, Detector], options: PeerOptions | None) -> Iterator[None]:
    """Afterwards the detectors compare with no images of a dataset, whatever happens in between."""
    try:
        yield
    finally:
        for detector in detectors.values() if options is not None else ():
            detector.set_peers(None)


class CategoryPeers:
    """The images that detectors compare with, those of one category at a time.

    Methods that cannot compare judge each image by itself.

    Args:
        files: all images of the dataset, also those that other shards judge, so that all shards choose alike.
        records: by the names of the files.

    Raises:
        InputError: no method can compare.
    """

    def __init__(
        self,
        detectors: Mapping[str, Detector],
        files: Iterable[ImageFile],
        records: Mapping[str, ImageRecord],
        options: PeerOptions,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        self._options, self._records, self._max_pixels = options, records, max_pixels
        self._detectors = [each for each in detectors.values() if each.method.takes_peers]
        if not self._detectors:
            raise InputError(f"--peers: {', '.join(detectors)} cannot compare images with each other; leave it out")
        self._files = self._by_category(files)
        self._entered: tuple[str, list[Any]] | None = None

    def parts(self, files: Iterable[ImageFile]) -> Iterator[list[ImageFile]]:
        """Images category by category, each of which has been entered when it comes."""
        for category, part in self._by_category(files).items():
            self.enter(category)
            yield part

    def enter(self, category: str) -> None:
        """Compare with images of this category from now on."""
        if self._entered == (category, self._remembered()):  # and nobody has given the detectors others since
            return
        for detector in self._detectors:
            peers = pick_peers(self._files[category], self._options.images, max_pixels=self._max_pixels)
            try:
                detector.set_peers((pixels for _, pixels in peers), self._options.weight)
            except InputError as error:
                detector.set_peers(None)
                _log.warning("%s: %s; each image is judged by itself", category, error)
        self._entered = (category, self._remembered())

    def _remembered(self) -> list[Any]:
        return [detector.method.peers for detector in self._detectors]

    def _by_category(self, files: Iterable[ImageFile]) -> dict[str, list[ImageFile]]:
        found: dict[str, list[ImageFile]] = {}
        for file in files:
            found.setdefault(self._records[file.name].category, []).append(file)
        return found
