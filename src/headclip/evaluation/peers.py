"""Images of a dataset compared with others of their category, whose labels nobody looks at."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


class CategoryPeers:
    """The images that detectors compare with, those of one category at a time; nothing without options.

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
        options: PeerOptions | None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        self._options, self._records, self._max_pixels = options, records, max_pixels
        self._detectors: dict[str, Detector] = {}
        self._files: dict[str, list[ImageFile]] = {}
        self._entered: tuple[str, dict[str, Any]] | None = None
        if options is None:
            return
        self._detectors = {label: each for label, each in detectors.items() if each.method.takes_peers}
        if not self._detectors:
            raise InputError(f"--peers: {', '.join(detectors)} cannot compare images with each other; leave it out")
        for file in files:
            self._files.setdefault(records[file.name].category, []).append(file)

    def among(self) -> dict[str, Any]:
        """A digest of the names among which peers are chosen, so that nothing goes on with others."""
        if self._options is None:
            return {}
        names = sorted(file.name for files in self._files.values() for file in files)
        return {"among": hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]}

    def parts(self, files: list[ImageFile]) -> Iterator[list[ImageFile]]:
        """Images category by category, each of which has been entered when it comes; all at once without options."""
        if self._options is None:
            yield files
            return
        by_category: dict[str, list[ImageFile]] = {}
        for file in files:
            by_category.setdefault(self._records[file.name].category, []).append(file)
        for category, part in by_category.items():
            self.enter(category)
            yield part

    def enter(self, category: str) -> None:
        """Compare with images of this category from now on."""
        if self._options is None or self._is_entered(category):
            return
        images: list[NDArray[np.uint8]] | None = None
        try:
            images = list(pick_peers(self._files[category], self._options.images, max_pixels=self._max_pixels).values())
        except InputError as error:
            _log.warning("%s: %s; each image is judged by itself", category, error)
        for detector in self._detectors.values():
            detector.set_peers(images, self._options.weight)
        self._entered = (category, {label: each.method.peers for label, each in self._detectors.items()})

    def leave(self) -> None:
        """Compare with no images any more."""
        if self._options is not None:
            for detector in self._detectors.values():
                detector.set_peers(None)

    def _is_entered(self, category: str) -> bool:
        """Whether nobody has given the detectors others since."""
        if self._entered is None or self._entered[0] != category:
            return False
        return all(each.method.peers is self._entered[1][label] for label, each in self._detectors.items())
