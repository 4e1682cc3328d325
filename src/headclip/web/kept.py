"""Features of the images that were inspected lately, so that layers are switched without another vision pass."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from headclip.inspection import KeptFeatures

KEPT_BYTES = 512 * 1024 * 1024


class KeptImages:
    """Features by image, up to `size` bytes together; the latest image stays, however large it is."""

    def __init__(self, size: int = KEPT_BYTES) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, KeptFeatures] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Memory in bytes that the features take."""
        with self._lock:
            return sum(features.nbytes for features in self._kept.values())

    def get(self, key: Hashable) -> KeptFeatures | None:
        """What is kept of an image, if it still is."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Hashable, features: KeptFeatures) -> None:
        """Keep an image, and let go of those that were not asked for the longest."""
        with self._lock:
            self._kept[key] = features
            self._kept.move_to_end(key)
            used = sum(item.nbytes for item in self._kept.values())
            while used > self._size and len(self._kept) > 1:
                used -= self._kept.popitem(last=False)[1].nbytes
