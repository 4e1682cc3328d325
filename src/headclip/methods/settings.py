"""Whether a setting has a value of the right kind, said in words that a user of `--set NAME=VALUE` understands."""

from __future__ import annotations

import math
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from headclip.errors import InputError

MOST_SIZE = 4096  # pixels of a side, at which images enter a tower
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}
_EXAMPLES = {int: "[6, 12]", float: "[0.5, 1.0]", str: '["good part.", "damaged part."]'}


class MethodConfig:
    """Base of the methods' frozen configurations: lists become tuples, and values are checked when one is made.

    Raises:
        InputError: a value that makes no sense, or of another kind.
    """

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        for holds, message in self._judged():  # first, since what they say is more to the point
            if not holds:
                raise InputError(f"{self._title()}: {message}")
        check_kinds(type(self), vars(self))

    def _judged(self) -> list[tuple[bool, str]]:
        """`_checks`, and that of the image size; of a value that they cannot judge, its kind is wrong."""
        try:
            size = getattr(self, "image_size", None)
            return [
                *self._checks(),
                (size is None or 1 <= size <= MOST_SIZE, f"image_size must lie in [1, {MOST_SIZE}]"),
            ]
        except (AttributeError, TypeError):
            check_kinds(type(self), vars(self))
            raise

    def _checks(self) -> list[tuple[bool, str]]:
        """What must hold beside the kinds of the fields, each with what to say where it does not."""
        return []

    @classmethod
    def _title(cls) -> str:
        """What messages call the method."""
        return cls.__name__.removesuffix("Config").replace("Clip", "CLIP").replace("Vl", "VL")


def check_kinds(cls: type, values: dict[str, Any]) -> None:
    """Compare values with the types that a configuration's fields declare.

    Raises:
        InputError: a value of another kind; the message names the field and what it takes.
    """
    hints = get_type_hints(cls)
    for name, value in values.items():
        if not fits(value, hints[name]):
            shown = list(value) if isinstance(value, tuple) else value
            raise InputError(f"{name} of {cls.__name__} takes {describe(hints[name])}; {shown!r} is something else")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that `hint` writes down; a whole number is a number as well, infinity is none.

    >>> fits((6, 12), tuple[int, ...] | None), fits("6", int), fits(1, float), fits(True, int), fits(math.inf, float)
    (True, False, True, False, False)
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in inner)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if inner[-1] is Ellipsis:
            return all(fits(item, inner[0]) for item in value)
        return len(value) == len(inner) and all(fits(*pair) for pair in zip(value, inner, strict=True))
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool) and math.isfinite(value)
    return not isinstance(hint, type) or isinstance(value, hint)


def describe(hint: Any) -> str:
    """The type in words.

    >>> describe(tuple[int, int] | None)
    'a list of 2 whole numbers such as [6, 12], or null'
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        parts = [describe(part) for part in inner if part is not NoneType]
        return " or ".join(parts) + (", or null" if NoneType in inner else "")
    if origin is Literal:
        return " or ".join(str(part) for part in inner)
    if origin is tuple:
        count = "" if inner[-1] is Ellipsis else f"{len(inner)} "
        return f"a list of {count}{_PLURALS.get(inner[0], 'values')} such as {_EXAMPLES.get(inner[0], '[...]')}"
    return _WORDS.get(hint, "another value")
