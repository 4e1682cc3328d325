"""The option for few-shot evaluations, with one number of normal images or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from headclip.cli.models import Choice

Shots = Annotated[
    str | None,
    typer.Option(
        "--shots",
        metavar="K[,K...]",
        help="Few-shot: compare with K normal images of each category, which are not scored; several numbers, and 0 "
        "for zero-shot, stand in one table.",
    ),
]


def parse_shots(given: str | None) -> tuple[int, ...]:
    """Different numbers in their order; empty without the option.

    Raises:
        InputError: something else.
    """
    from headclip.errors import InputError

    if given is None:
        return ()
    try:
        counts = tuple(dict.fromkeys(int(part) for part in given.split(",")))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 0 or max(counts) < 1:
        raise InputError(f"--shots {given}: give a number of normal images such as 4, or several such as 0,1,2,4")
    return counts


def with_shots(choices: Sequence[Choice], counts: Sequence[int]) -> tuple[list[Choice], dict[str, int]]:
    """Each method once for each number, under a name of its own, and the numbers by these names.

    Methods that take no normal images, and 0, keep the name and have none.
    """
    from headclip.methods.base import method_class

    found: dict[str, tuple[Choice, int]] = {}
    for choice in choices:
        able = method_class(choice.method or "headclip").takes_references
        for count in counts if able else (0,):
            label = f"{choice.label} ({count}-shot)" if count else choice.label
            found[label] = (replace(choice, label=label), count)
    return [choice for choice, _ in found.values()], {label: count for label, (_, count) in found.items()}
