"""The 16 bits in which maps are kept and compared with thresholds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAP_MAXIMUM = 65535


def quantise(anomaly_map: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Map values in [0, 1] to [0, 65535]; what lies outside is clipped. Error at most 0.5 / 65535."""
    return np.rint(np.clip(anomaly_map, 0.0, 1.0) * np.float64(MAP_MAXIMUM)).astype(np.uint16)
