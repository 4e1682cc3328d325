"""Images of a dataset compared with others of their category, whose labels nobody looks at."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.discover import ImageFile
from headclip.data.records import ImageRecord
from headclip.errors import InputError
from headclip.evaluation.by_category import ByCategory
from headclip.inference.detector import Detector
from headclip.inference.peers import pick_peers

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PeerOptions:
    """images: at most so many of each category; weight: how much the comparison counts, 0 or more."""

    images: int
    weight: float = 1.0


class CategoryPeers(ByCategory):
    """Compares with images of the category, whose labels nobody looks at.

    Args:
        files: all images of the dataset, also those that other shards judge, so that all shards choose alike.

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
        super().__init__([each for each in detectors.values() if each.method.takes_peers], records)
        if not self.detectors:
            raise InputError(f"--peers: {', '.join(detectors)} cannot compare images with each other; leave it out")
        self._options, self._max_pixels = options, max_pixels
        self._files = self.by_category(files)

    def give(self, detector: Detector, category: str) -> None:
        peers = pick_peers(self._files[category], self._options.images, max_pixels=self._max_pixels)
        try:
            detector.set_peers((pixels for _, pixels in peers), self._options.weight)
        except InputError as error:
            detector.set_peers(None)
            _log.warning("%s: %s; each image is judged by itself", category, error)

    def given(self, detector: Detector) -> Any:
        return detector.method.memory
