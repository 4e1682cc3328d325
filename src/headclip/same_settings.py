"""In what two descriptions of a model differ, whatever version of headclip wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that differ, in order of their names; nested ones as `config.alpha`.

    A setting that one of them does not name counts as off there: what became a setting later, and is not used, makes no
    other model.

    >>> differing({"config": {"alpha": 0.5}}, {"config": {"alpha": 0.5, "refiner": 0}, "peers": {}})
    []
    >>> differing({"config": {"alpha": 0.5}}, {"config": {"alpha": 0.5, "refiner": 16}})
    ['config.refiner']
    """
    found = []
    for key in sorted(before.keys() | now.keys()):
        one, other = before.get(key), now.get(key)
        if isinstance(one, Mapping) or isinstance(other, Mapping):
            if all(isinstance(value, Mapping) or is_off(value) for value in (one, other)):
                found += [f"{key}.{name}" for name in differing(one or {}, other or {})]
            else:
                found.append(key)
        elif one != other and not ((key not in before or key not in now) and is_off(one) and is_off(other)):
            found.append(key)
    return found


def is_off(value: Any) -> bool:
    """Whether a value says that something is not used: nothing, false, zero or empty."""
    return value is None or value is False or (not isinstance(value, bool) and value in (0, "", [], (), {}))


def valued(settings: Mapping[str, Any], name: str) -> Any:
    """The value of a nested setting, `config.alpha`; None where there is none."""
    value: Any = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
