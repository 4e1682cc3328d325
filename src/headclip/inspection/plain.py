"""Dataclasses with arrays as plain JSON values."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

_DIGITS = 7  # significant ones, what float32 holds


def plain(value: Any, leave_out: frozenset[str] = frozenset()) -> Any:
    """Dataclasses become dicts, arrays become nested lists, floats get seven significant digits.

    leave_out: names of fields to skip at any depth, such as the pixels of an image.

    >>> plain({"a": np.float32(0.1), "b": (1, np.arange(3))})
    {'a': 0.1, 'b': [1, [0, 1, 2]]}
    """
    if is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in fields(value) if item.name not in leave_out]
        return {name: plain(getattr(value, name), leave_out) for name in names}
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), leave_out)
    if isinstance(value, dict):
        return {str(key): plain(item, leave_out) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, leave_out) for item in value]
    if isinstance(value, float | np.floating):
        number = float(value)
        return float(f"{number:.{_DIGITS}g}") if np.isfinite(number) else None
    return value.item() if isinstance(value, np.generic) else value
