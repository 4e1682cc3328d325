"""The ablations as data: they say what the papers vary, and fit towers of any depth."""

from __future__ import annotations

import pytest

from headclip.ablation.cells import MEAN_OF
from headclip.ablation.definitions import TABLE_7, find_ablation, list_ablations
from headclip.ablation.layers import scale_range, scale_settings
from headclip.ablation.plan import Settings, make_plan
from headclip.clip.config import ClipConfig, TextConfig, VisionConfig
from headclip.errors import InputError
from headclip.evaluation.published import published
from headclip.methods import list_methods
from headclip.methods.base import method_class
from headclip.methods.headclip import proportional_csa
from tiny_clip import make_config

PAPER = ClipConfig("paper", 768, VisionConfig(1024, 24, 16, 14, 336), TextConfig(768, 12, 12))
SHALLOW = ClipConfig("shallow", 64, VisionConfig(64, 8, 4, 16, 224), TextConfig(64, 4, 2))


@pytest.mark.parametrize("config", [PAPER, SHALLOW, make_config()], ids=lambda config: config.name)
@pytest.mark.parametrize("name", list_ablations())
def test_every_row_fits_every_tower(name, config):
    plan = make_plan(find_ablation(name), config, Settings(), Settings())
    assert len(plan.rows) == len(plan.ablation.variants)
    for row in plan.rows:
        settings = {**row.judge.model.config, **row.judge.scoring}
        cls = method_class(row.variant.method)
        assert cls.config_class(**settings), row.variant.label
        csa, taps = settings.get("csa_layers"), settings.get("taps") or ()
        assert all(1 <= layer <= config.vision.layers for layer in (*(csa or ()), *taps))
        if csa and "taps" in row.variant.settings:
            assert csa[0] <= min(taps), "a tap of the paper's local path must stay in it"
            assert max(taps) <= csa[1]


def test_at_the_papers_depth_nothing_is_scaled():
    for name in list_ablations():
        for row in make_plan(find_ablation(name), PAPER, Settings(), Settings()).rows:
            built = {**row.judge.model.config, **row.judge.scoring, "alpha": row.alpha}
            for key, value in row.variant.settings.items():
                assert built[key] == value, (name, row.variant.label)


def test_layers_scale_as_the_methods_do():
    assert all(scale_range((5, 19), depth) == proportional_csa(depth) for depth in range(1, 49))
    assert scale_settings({"csa_layers": (6, 24), "taps": (6, 24)}, 8, 4) == {"csa_layers": (2, 8), "taps": (2, 8)}
    with pytest.raises(InputError, match=r"layer 25 .* 1 to 24"):
        scale_settings({"taps": (25,)}, 24, 12)


@pytest.mark.parametrize("name", ["lhw", "layers", "init", "modules"])
def test_every_published_row_is_found(name):
    ablation = find_ablation(name)
    sources = [published(source=source, table=table) for source, table in ablation.sources]
    names = {(row.method, row.variant) for rows in sources for row in rows}
    named = {variant.published for variant in ablation.variants if variant.published is not None}
    assert named <= names
    if name != "modules":  # all rows of the tables are rows of the ablation
        own = {(row.method, row.variant) for rows in sources for row in rows if row.table != "9"}
        assert own <= named


def test_the_rows_are_those_of_the_tables():
    layers = find_ablation("layers")
    assert [v.settings["taps"] for v in layers.variants if "taps" in v.settings][::2] == list(TABLE_7)
    assert {v.settings["head_weights"] for v in find_ablation("lhw").variants} == {True, False}
    assert [v.settings["head_init"] for v in find_ablation("init").variants] == ["gaussian", 0.0, 0.5, 1.0]
    assert {v.method for v in find_ablation("methods").variants} == set(list_methods())
    assert [v.settings["similarity"] for v in find_ablation("attention").variants] == ["vv", "qq", "kk"]
    assert all(v.settings["alpha"] == 0 for name in ("lhw", "layers") for v in find_ablation(name).variants)


def test_a_dataset_cannot_be_mistaken_for_an_average():
    assert MEAN_OF not in {row.dataset for row in published(source="headclip", table="10", category=None)}


def test_wrong_names_say_what_there_is():
    with pytest.raises(InputError, match=r"unknown ablation 'heads'; choose one of lhw, layers"):
        find_ablation("heads")
    with pytest.raises(InputError, match="nothing of modules is called so; it has 'LHW and JAS'"):
        find_ablation("modules", ["JASS"])


def test_only_keeps_what_is_named():
    assert [v.label for v in find_ablation("modules", ["JAS", "LHW"]).variants] == ["LHW", "JAS"]
    kept = find_ablation("methods", ["clip", "CoOp"]).variants
    assert [v.method for v in kept] == ["clip", "coop"]
    assert {v.axis for v in find_ablation("prompts", ["context length"]).variants} == {"context length"}
