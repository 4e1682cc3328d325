"""The reader of `figures.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from headclip.data.datasets import find_dataset
from headclip.errors import InputError
from headclip.metrics.figures import ALL_METRICS

METRICS = ALL_METRICS
"""Every metric that a figure may have, in the order of the paper's tables. All values are in percent."""

AVERAGE = "average"
"""The dataset name of rows that average over the datasets of a domain."""


@dataclass(frozen=True)
class Source:
    """Where figures come from: title, place, how they were made, and what is known to be wrong in it."""

    name: str
    title: str
    where: str
    protocol: str
    misprints: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """One printed row. values: metric to percent, exactly as printed; a metric not given is absent.

    dataset: the family name of the registry, or "average"; category: "" for a whole dataset; variant: the
    setting, where a source prints several; verified: False for figures noted from memory.
    """

    source: str
    domain: str
    dataset: str
    method: str
    values: Mapping[str, float]
    table: str = ""
    category: str = ""
    variant: str = ""
    note: str = ""
    verified: bool = True


@dataclass(frozen=True)
class Inconsistency:
    """A printed value that other printed values contradict; computed: what they give."""

    kind: str
    table: str
    dataset: str
    method: str
    metric: str
    printed: float
    computed: float


def published(
    dataset: str | None = None,
    method: str | None = None,
    source: str | None = None,
    *,
    table: str | None = None,
    category: str | None = "",
    domain: str | None = None,
    unverified: bool = False,
) -> list[Figure]:
    """The printed rows that match; None matches all.

    Args:
        dataset: any spelling and version that the registry knows (figures are kept by family), or "average".
            Versions differ: see the source's protocol before comparing.
        method: in any case, e.g. "headclip".
        source: a name of `sources()`.
        table: its number in the source.
        category: "" for whole datasets, None for all rows, else a category's name, `_` and spaces alike.
        unverified: also figures noted from memory, which should not be printed as facts.

    Raises:
        InputError: an unknown dataset or source.
    """
    family = None if dataset is None else dataset if dataset == AVERAGE else find_dataset(dataset).family
    if source is not None and source not in sources():
        raise InputError(f"unknown source '{source}'; known: {', '.join(sources())}")
    return [
        row
        for row in _figures()
        if (family is None or row.dataset == family)
        and (method is None or row.method.casefold() == method.casefold())
        and (source is None or row.source == source)
        and (table is None or row.table == table)
        and (category is None or _plain(row.category) == _plain(category))
        and (domain is None or row.domain == domain)
        and (unverified or row.verified)
    ]


def known_family(family: str) -> bool:
    """Whether the registry knows a dataset by this name, so that `published` takes it; not the user's own data."""
    try:
        find_dataset(family)
    except InputError:
        return False
    return True


@cache
def sources() -> Mapping[str, Source]:
    """All sources by name."""
    entries = _content()["sources"].items()
    return MappingProxyType(
        {name: Source(name, **{**facts, "misprints": tuple(facts["misprints"])}) for name, facts in entries}
    )


@cache
def inconsistencies() -> tuple[Inconsistency, ...]:
    """Values of the HeadCLIP paper that disagree with its own other values by more than rounding allows."""
    return tuple(Inconsistency(**entry) for entry in _content()["inconsistencies"])


def _plain(category: str) -> str:
    return category.replace("_", " ").casefold()


@cache
def _figures() -> tuple[Figure, ...]:
    return tuple(Figure(**{**row, "values": MappingProxyType(row["values"])}) for row in _content()["rows"])


@cache
def _content() -> dict[str, Any]:
    text = files("headclip.evaluation.published").joinpath("figures.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content
