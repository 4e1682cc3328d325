"""Kinds of settings: what fits, and what is said of what does not."""

from __future__ import annotations

from dataclasses import fields

import pytest

from headclip.errors import InputError
from headclip.methods import list_methods
from headclip.methods.base import config_from_dict, method_class
from headclip.methods.headclip import HeadClipConfig


@pytest.mark.parametrize("name", list_methods())
def test_every_default_is_of_the_kind_that_its_field_declares(name):
    cls = method_class(name).config_class
    config = cls()
    assert config_from_dict(cls, {item.name: getattr(config, item.name) for item in fields(cls)}) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"taps": "6, 12"},
            r"taps of HeadClipConfig takes a list of whole numbers such as \[6, 12\], or null; '6, 12'",
        ),
        ({"taps": [6, "12"]}, r"\[6, '12'\] is something else"),
        ({"taps": 6}, "list of whole numbers"),
        ({"csa_layers": [1, 2, 3]}, r"a list of 2 whole numbers such as \[6, 12\], or null"),
        ({"words": "good"}, "a list of 2 texts"),
        ({"sigma": "4"}, "takes a number; '4'"),
        ({"sigma": True}, "takes a number; True"),
        ({"n_context": 1.5}, "takes a whole number; 1.5"),
        ({"patch_norm": "yes"}, "takes true or false; 'yes'"),
        ({"similarity": "v-v"}, "takes vv or qq or kk; 'v-v'"),
        ({"head_init": "gauss"}, "takes a number or gaussian; 'gauss'"),
        ({"simgma": 1}, r"unknown setting simgma \(did you mean sigma\?\); HeadClipConfig has aggregation, alpha"),
    ],
)
def test_a_wrong_kind_is_named_with_what_is_right(values, words):
    with pytest.raises(InputError, match=words):
        config_from_dict(HeadClipConfig, values)


def test_whole_numbers_are_numbers_and_lists_become_tuples():
    config = config_from_dict(HeadClipConfig, {"sigma": 2, "taps": [6, 12], "seed": None, "head_init": "gaussian"})
    assert (config.sigma, config.taps, config.seed, config.head_init) == (2, (6, 12), None, "gaussian")


@pytest.mark.parametrize(
    "values",
    [{"aggregation": "bogus"}, {"head_constraint": "relu"}, {"taps": [6, "12"]}, {"global_score": "x"}, {"alpha": 2.0}],
)
def test_programs_that_make_a_configuration_are_told_the_same(values):
    with pytest.raises(InputError):
        HeadClipConfig(**values)
    assert HeadClipConfig(taps=[6, 12]) == HeadClipConfig(taps=(6, 12))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_that_are_none_are_refused(value):
    for name in ("sigma", "csa_scale", "neighbour_weight", "head_init"):
        with pytest.raises(InputError):
            config_from_dict(HeadClipConfig, {name: value})


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("clip", {"sentences": [1, 2]}, "sentences of .* takes a list of 2 texts"),
        ("clip_ac", {"normal_states": [1]}, "normal_states of .* takes a list of texts"),
        ("headclip", {"alpha": "half"}, "alpha of .* takes a number"),
        ("headclip", {"image_size": 0}, r"image_size must lie in \[1, 4096\]"),
        ("winclip", {"image_size": 5000}, r"image_size must lie in \[1, 4096\]"),
    ],
)
def test_what_a_check_cannot_judge_is_of_the_wrong_kind(name, values, words):
    with pytest.raises(InputError, match=words):
        config_from_dict(method_class(name).config_class, values)
