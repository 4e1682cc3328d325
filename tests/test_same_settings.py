"""In what two models differ, whatever version described them."""

from __future__ import annotations

import pytest

from headclip.same_settings import differing, is_off, valued


@pytest.mark.parametrize(
    ("before", "now", "names"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a"]),
        ({}, {"a": 0, "b": None, "c": [], "d": {}, "e": False, "f": ""}, []),  # what became a setting later, and is off
        ({"a": 0}, {"a": None}, ["a"]),  # both say something
        ({}, {"a": True}, ["a"]),
        ({"a": {"b": 1}}, {}, ["a.b"]),
        ({"a": {"b": 0}}, {}, []),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"c": 1, "d": 3}}}, ["a.b.d"]),
        ({"a": {"b": 1}}, {"a": 5}, ["a"]),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a"]),
    ],
)
def test_differing(before, now, names):
    assert differing(before, now) == differing(now, before) == names


def test_values_by_their_names():
    settings = {"config": {"alpha": 0.5}, "size": 3}
    assert (valued(settings, "config.alpha"), valued(settings, "size"), valued(settings, "config.none.more")) == (
        *(0.5, 3),
        None,
    )
    assert [is_off(value) for value in (0, 0.0, False, None, "", [], {}, 1, True, "a", [0])] == [True] * 7 + [False] * 4
