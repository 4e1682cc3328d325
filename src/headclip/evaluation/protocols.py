"""The two protocols of the paper: which dataset is trained on, which are tested, and which of them are at hand."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headclip.data.datasets import datasets, find_dataset, parse_spec
from headclip.data.layouts import subfolders
from headclip.errors import InputError


@dataclass(frozen=True)
class Plan:
    """One protocol (section 4.2 of the paper): the family trained on, and the families tested on, in order.

    Trained are the labelled test images, as in the published codes.
    """

    name: str
    train: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """What is at hand for a plan: specs to open, and the families without any."""

    train: tuple[str, Path]
    targets: tuple[tuple[str, Path], ...]
    missing: tuple[str, ...]


def plans() -> dict[str, Plan]:
    """Both protocols by name.

    >>> list(plans()), len(plans()["mvtec-to-all"].targets)
    (['visa-to-mvtec', 'mvtec-to-all'], 16)
    """
    families = [info.family for info in datasets() if info.paper]
    others = tuple(family for family in families if family != "mvtec")
    found = (Plan("visa-to-mvtec", "visa", ("mvtec",)), Plan("mvtec-to-all", "mvtec", others))
    return {plan.name: plan for plan in found}


def find_sources(plan: Plan, specs: Sequence[str], data_root: Path | None) -> Sources:
    """Match what was given to what a plan needs, by family: any version of a dataset will do.

    Args:
        specs: NAME=PATH each; they go before what lies in the data root.
        data_root: a folder whose subfolders are named like datasets (in any spelling); others are passed over.

    Raises:
        InputError: a family is given twice, in specs or in the data root, belongs to no part of the plan, or the
            training set or every target is missing.
    """
    given = _given(plan, specs)
    for family, found in _found(data_root).items():
        if family in given or family not in (plan.train, *plan.targets):
            continue
        if len(found) > 1:
            choices = " or ".join(f"--root {shlex.quote(f'{name}={folder}')}" for name, folder in found)
            raise InputError(f"{data_root} holds {len(found)} copies or versions of {family}; choose one by {choices}")
        given[family] = found[0]
    if plan.train not in given:
        title = find_dataset(plan.train).title
        raise InputError(f"{plan.name} trains on {title}, which is missing; give --root {plan.train}=PATH")
    targets = tuple(given[family] for family in plan.targets if family in given)
    missing = tuple(family for family in plan.targets if family not in given)
    if not targets:
        raise InputError(f"{plan.name} tests on {', '.join(missing)}: none of them is given; use --root NAME=PATH")
    return Sources(given[plan.train], targets, missing)


def _given(plan: Plan, specs: Sequence[str]) -> dict[str, tuple[str, Path]]:
    given: dict[str, tuple[str, Path]] = {}
    for spec in specs:
        name, path = parse_spec(spec)
        family = find_dataset(name).family
        if family not in (plan.train, *plan.targets):
            raise InputError(f"{spec}: {plan.name} needs {plan.train} and any of {', '.join(plan.targets)}")
        if family in given:
            raise InputError(f"{spec}: {family} is given twice")
        given[family] = (name, path)
    return given


def _found(data_root: Path | None) -> dict[str, list[tuple[str, Path]]]:
    """By family, what lies in the data root: several versions of a dataset, or copies of one, may lie side by side."""
    if data_root is None:
        return {}
    if not data_root.is_dir():
        raise InputError(f"the data root {data_root} is not a folder")
    found: dict[str, list[tuple[str, Path]]] = {}
    for folder in subfolders(data_root):
        try:
            info = find_dataset(folder.name)
        except InputError:
            continue
        found.setdefault(info.family, []).append((info.name, folder))
    return found
