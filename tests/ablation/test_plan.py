"""Plans: what is shared, whose settings win, and what wrong ones say."""

from __future__ import annotations

import pytest

from headclip.ablation.definitions import find_ablation
from headclip.ablation.plan import Settings, make_plan
from headclip.errors import InputError
from tiny_clip import make_config

CONFIG = make_config()


def plan(name, settings=None, train=None, only=()):
    return make_plan(find_ablation(name, only), CONFIG, Settings.parse(settings or {}), Settings.parse(train or {}))


def test_rows_that_training_cannot_tell_apart_share_a_model():
    modules, jas = plan("modules"), plan("jas")
    assert (len(modules.models), len(modules.judges), len(modules.rows)) == (2, 2, 4)
    assert [row.alpha for row in modules.rows] == [0.5, 0.0, 0.0, 0.5]
    assert len(jas.models) == 1
    assert len(jas.judges) == 6  # one for each share: ratios need none of their own
    assert len(plan("lhw").models) == 2
    assert len(plan("init").models) == 4


def test_equal_settings_under_other_names_are_one_model():
    prompts = plan("prompts")
    by_label = {row.variant.label: row.judge.model.key for row in prompts.rows}
    assert by_label["12 context tokens"] == by_label["object-agnostic"] == by_label["T3: deep tokens"]
    assert by_label["depth 1"] == by_label["T2: learnt object-agnostic prompts"] != by_label["T3: deep tokens"]
    assert by_label["class-aware"] != by_label["object-agnostic"]
    assert len({model.key for model in prompts.models}) == len(prompts.models)


def test_methods_without_training_need_one_seed():
    judges = {row.variant.method: row.judge for row in plan("methods").rows}
    assert judges["clip"].seeds((1, 2, 3)) == (1,)
    assert judges["headclip"].seeds((1, 2, 3)) == (1, 2, 3)
    assert "clip" not in {model.method for model in plan("methods").models}


def test_common_settings_reach_trained_methods_and_the_row_has_the_last_word():
    rows = {row.variant.method: row for row in plan("methods", {"temperature": 0.2, "winclip.temperature": 0.5}).rows}
    assert rows["headclip"].judge.model.config["temperature"] == 0.2
    assert rows["coop"].judge.model.config["temperature"] == 0.2
    assert rows["winclip"].judge.model.config["temperature"] == 0.5
    assert rows["clip"].judge.model.config["temperature"] is None
    assert [row.alpha for row in plan("lhw", {"alpha": 0.5}).rows] == [0.0, 0.0]


def test_training_settings_by_method():
    models = {m.method: m for m in plan("methods", train={"epochs": 2, "adaclip.rate": 1e-4}).models}
    assert models["headclip"].train["epochs"] == models["adaclip"].train["epochs"] == 2
    assert (models["adaclip"].train["rate"], models["headclip"].train["rate"]) == (1e-4, 1e-3)
    assert models["adaclip"].train["batch_size"] == 1  # its own default stays
    averaged = next(m for m in plan("aggregation").models if m.label == "losses averaged")
    assert averaged.train["tap_mean"]


def test_other_training_is_another_model():
    first, other = plan("lhw").models[0], plan("lhw", train={"epochs": 2}).models[0]
    assert first.key != other.key
    assert plan("lhw").models[0].key == first.key


@pytest.mark.parametrize(
    ("settings", "train", "message"),
    [
        ({"warmth": 1}, {}, "--set warmth: no trained method of methods has it; there is .*temperature"),
        ({"winclip.alphas": 1}, {}, "--set winclip.alphas: winclip has alpha"),
        ({"nothing.alpha": 1}, {}, "unknown method 'nothing'; known: adaclip"),
        ({}, {"rat": 1}, "--train rat: training has .*rate"),
        ({}, {"seed": 1}, "--train seed: training has"),
        ({}, {"clip.rate": 1}, "methods has no clip for a setting to go to; it has adaclip"),
        ({}, {"epochs": 0}, "at least one epoch"),
        ({"alpha": 3}, {}, "alpha must lie in"),
    ],
)
def test_wrong_settings_say_what_is_right(settings, train, message):
    with pytest.raises(InputError, match=message):
        plan("methods", settings, train)
