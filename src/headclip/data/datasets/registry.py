"""The table of datasets: a decorator that adds one, and look-ups that forgive spelling."""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from headclip.data.datasets.base import Counts, DatasetInfo, Domain, Level
from headclip.data.reading import Reading
from headclip.errors import InputError

Reader = Callable[[Path, Reading, DatasetInfo], None]
"""Fills a `Reading` from a dataset folder. Adding nothing means that the layout was not recognised."""

_TABLE: dict[str, tuple[DatasetInfo, Reader]] = {}
_PLUMBING = frozenset({"base", "opening", "registry"})


def dataset(
    name: str,
    *,
    title: str,
    domain: Domain,
    level: Level,
    layout: str,
    counts: Mapping[str, Counts] | None = None,
    known: Mapping[str, Counts] | None = None,
    **facts: Any,
) -> Callable[[Reader], Reader]:
    """Register a reader function as the dataset `name`; `facts` are the other fields of `DatasetInfo`.

    Where counts per category are given, categories and totals follow from them unless they are given too.
    """
    if counts:
        facts.setdefault("categories", tuple(counts))
        facts.setdefault("normal", sum(pair[0] for pair in counts.values()))
        facts.setdefault("anomalous", sum(pair[1] for pair in counts.values()))
    facts.setdefault("family", name)
    info = DatasetInfo(
        name=name,
        title=title,
        domain=domain,
        level=level,
        layout=layout,
        counts=MappingProxyType(dict(counts or {})),
        known=MappingProxyType(dict(known or {})),
        **facts,
    )

    def register(reader: Reader) -> Reader:
        _TABLE[name] = (info, reader)
        return reader

    return register


def datasets() -> list[DatasetInfo]:
    """Every dataset, industrial before medical before those of any domain, then by name."""
    order = {"industrial": 0, "medical": 1, "any": 2}
    infos = [info for info, _ in _table().values()]
    return sorted(infos, key=lambda info: (order[info.domain], info.family, info.name))


def find_dataset(name: str) -> DatasetInfo:
    """The dataset that `name` means: its name, an alias or its title, in any case and punctuation.

    Raises:
        InputError: no dataset has that name; the message suggests the nearest ones.
    """
    key = _plain(name)
    for info, _ in _table().values():
        if key in {_plain(spelling) for spelling in (info.name, info.title, *info.aliases)}:
            return info
    near = difflib.get_close_matches(key, {_plain(info.name): None for info in datasets()}, n=3, cutoff=0.5)
    names = [info.name for plain in near for info in datasets() if _plain(info.name) == plain]
    hint = f"did you mean {' or '.join(names)}? " if names else ""
    raise InputError(
        f"unknown dataset '{name}'; {hint}`headclip data list` shows all names, and data of one's own are named by "
        "their path alone"
    )


def reader_of(info: DatasetInfo) -> Reader:
    """The function that reads a registered dataset."""
    return _table()[info.name][1]


def same_dataset(first: str, second: str) -> bool:
    """Whether two names mean the same dataset, in whatever version. Unknown names are compared as words.

    >>> same_dataset("MVTec_AD", "mvtec"), same_dataset("sdd", "sdd-anomalyclip"), same_dataset("a", "mvtec")
    (True, True, False)
    """
    return _family(first) == _family(second)


def is_published(name: str) -> bool:
    """Whether a name means a dataset that others know by it, rather than a folder or a list of somebody's own.

    >>> is_published("MVTec_AD"), is_published("folder"), is_published("images")
    (True, False, False)
    """
    try:
        return find_dataset(name).domain != "any"
    except InputError:
        return False


def versions_of(info: DatasetInfo) -> list[DatasetInfo]:
    """The other versions that share the family of `info`."""
    return [other for other in datasets() if other.family == info.family and other.name != info.name]


def _family(name: str) -> str:
    try:
        return find_dataset(name).family
    except InputError:
        return _plain(name)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


@cache
def _load() -> None:
    package = import_module("headclip.data.datasets")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in _PLUMBING:
            import_module(f"{package.__name__}.{module.name}")


def _table() -> dict[str, tuple[DatasetInfo, Reader]]:
    _load()
    return _TABLE
