"""Which datasets a protocol of the paper needs, and which of them are at hand."""

from __future__ import annotations

import pytest

from headclip.data.datasets import datasets
from headclip.errors import InputError
from headclip.evaluation.protocols import find_sources, plans


def test_the_plans_cover_the_papers_seventeen_datasets():
    forward, backward = plans()["visa-to-mvtec"], plans()["mvtec-to-all"]
    assert (forward.train, forward.targets) == ("visa", ("mvtec",))
    assert backward.train == "mvtec"
    assert {*backward.targets, "mvtec"} == {info.family for info in datasets() if info.paper}
    assert len(backward.targets) == 16


def test_what_is_there_is_used_and_the_rest_named(tmp_path):
    for name in ("MVTec_AD", "Kvasir-SEG", "SDD", "thesis"):
        (tmp_path / "data" / name).mkdir(parents=True)
    found = find_sources(plans()["mvtec-to-all"], [f"brainmri={tmp_path}"], tmp_path / "data")
    assert found.train == ("mvtec", tmp_path / "data/MVTec_AD")
    assert {name for name, _ in found.targets} == {"brainmri", "kvasir", "sdd"}
    assert len(found.missing) == 13
    assert "visa" in found.missing


def test_any_version_of_a_dataset_will_do_and_goes_before_the_data_root(tmp_path):
    (tmp_path / "data/sdd").mkdir(parents=True)
    specs = [f"mvtec={tmp_path}", f"sdd-anomalyclip={tmp_path}"]
    found = find_sources(plans()["mvtec-to-all"], specs, tmp_path / "data")
    assert found.targets == (("sdd-anomalyclip", tmp_path),)


def test_several_versions_in_the_data_root_are_left_to_the_user(tmp_path):
    for name in ("sdd", "SDD-DRA", "mvtec", "MVTec LOCO", "mvtec-loco"):
        (tmp_path / "data" / name).mkdir(parents=True)
    plan = plans()["mvtec-to-all"]
    with pytest.raises(InputError, match=r"2 copies or versions of sdd; choose one by --root sdd=.* --root sdd-dra="):
        find_sources(plan, [], tmp_path / "data")
    found = find_sources(plan, [f"sdd-dra={tmp_path}"], tmp_path / "data")  # both of LOCO are passed over
    assert found.targets == (("sdd-dra", tmp_path),)


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        (["sdd=."], "trains on MVTec AD, which is missing"),
        (["mvtec=."], "none of them is given"),
        (["mvtec=.", "sdd=.", "sdd-dra=."], "given twice"),
        (["mvtec=.", "mvtec-loco=."], "needs mvtec and any of"),
        (["mvtec=.", "sddd=."], "unknown dataset"),
    ],
)
def test_what_does_not_fit_is_an_error(specs, words):
    with pytest.raises(InputError, match=words):
        find_sources(plans()["mvtec-to-all"], specs, None)
