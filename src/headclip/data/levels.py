"""The 16 bits in which maps are kept and compared with thresholds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAP_MAXIMUM = 65535


_BLOCK = 1 << 15  # values whose double precision stays in a processor's cache; whole maps are 4 times slower


def quantise(anomaly_map: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Map values in [0, 1] to [0, 65535]; what lies outside is clipped. Error at most 0.5 / 65535."""
    values = np.ascontiguousarray(anomaly_map).reshape(-1)
    levels = np.empty(values.size, np.uint16)
    exact = np.empty(min(_BLOCK, values.size))
    for start in range(0, values.size, _BLOCK):
        part = values[start : start + _BLOCK]
        scaled = np.multiply(part, float(MAP_MAXIMUM), out=exact[: part.size], dtype=np.float64)
        levels[start : start + _BLOCK] = np.clip(np.rint(scaled, out=scaled), 0, MAP_MAXIMUM, out=scaled)
    return levels.reshape(np.shape(anomaly_map))
