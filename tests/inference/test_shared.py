"""Detectors side by side on one backbone: the same results as one by one, with fewer passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headclip.errors import InputError
from headclip.inference.detector import Detector
from headclip.inference.shared import PassGroup, group_by_pass, predict_methods
from headclip.methods import list_methods
from headclip.methods.base import method_class
from headclip.methods.similarity import SimilarityMethod
from tiny_clip import make_backbone, make_config

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")
ALONE = {"adaclip", "anovl", "winclip"}
CATEGORIES = ["bottle", "wood", "bottle"]


def build(backbone, method="headclip", **options) -> Detector:
    return Detector(backbone, device="cpu", method=method, **{"image_size": 56, "precision": "fp32", **options})


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size, dtype=np.uint8) for size in [(60, 80, 3), (33, 50, 3), (60, 80, 3)]]


@pytest.fixture(scope="module")
def everything():
    """Every registered method on one backbone, and HeadCLIP in three variants that share one stream or none."""
    backbone = make_backbone(make_config())
    detectors = {name: build(backbone, name) for name in list_methods()}
    detectors["joint"] = build(backbone, settings={"alpha": 1.0})
    detectors["gaussian"] = build(backbone, settings={"head_init": "gaussian"})
    detectors["layers"] = build(backbone, settings={"aggregation": "layers", "head_weights": False})
    return detectors


def assert_same(one, other, tolerance=2e-5) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.anomaly_map, b.anomaly_map, atol=tolerance, rtol=0)
        found = [(p.score, p.global_score, p.local_score) for p in (a, b)]
        assert found[0] == pytest.approx(found[1], abs=tolerance)


@pytest.fixture(scope="module")
def together(everything, images):
    return predict_methods(everything, images, CATEGORIES)


@pytest.mark.parametrize("label", [*list_methods(), "joint", "gaussian", "layers"])
def test_each_method_says_what_it_says_alone(everything, images, together, label):
    method = label if label in list_methods() else "headclip"
    settings = everything[label].method.config_dict()
    alone = build(make_backbone(make_config()), method, settings=settings)
    assert_same(together[label], alone.predict_arrays(images, CATEGORIES))


def test_methods_with_one_plain_pass_are_one_group(everything):
    groups = group_by_pass(everything)
    assert [list(group.detectors) for group in groups if len(group.detectors) > 1] == [
        [name for name in everything if name not in ALONE]
    ]
    assert {name for group in groups if len(group.detectors) == 1 for name in group.detectors} == ALONE


def test_a_group_runs_the_tower_once_a_batch(images, monkeypatch):
    backbone = make_backbone(make_config())
    passes = []
    embed = backbone.vision.embed
    monkeypatch.setattr(backbone.vision, "embed", lambda *given: passes.append(len(given[0])) or embed(*given))
    methods = ("headclip", "anomalyclip", "clip", "coop", "linear_heads")
    predict_methods({name: build(backbone, name) for name in methods}, images)
    assert passes == [2, 1]  # two images of one size, one of another


def test_other_sizes_and_other_backbones_are_other_groups():
    backbone, other = make_backbone(make_config()), make_backbone(make_config(), seed=1)
    detectors = {
        "a": build(backbone),
        "b": build(backbone, image_size=42),
        "c": build(other),
        "d": build(backbone, "clip"),
        "e": build(backbone, "clip", settings={"position_interpolation": "bicubic"}),
        "f": build(backbone, "clip", image_size=42, settings={"position_interpolation": "bicubic"}),
    }
    groups = [set(group.detectors) for group in group_by_pass(detectors)]
    assert groups == [{"a", "d"}, {"b", "f"}, {"c"}, {"e"}]  # at 42 px, its own size, no embedding is resized


def test_some_of_a_group_alone(everything, images, together):
    (group,) = [group for group in group_by_pass(everything) if len(group.detectors) > 1]
    pieces = list(group.pieces(images, CATEGORIES, ["clip", "joint"]))
    assert {piece.label for piece in pieces} == {"clip", "joint"}
    assert all(piece.seconds > 0 for piece in pieces)
    (only,) = group.pieces(images, CATEGORIES, ["joint"])
    assert only.indices == [0, 1, 2]
    assert_same(only.predictions, together["joint"])


def test_the_smallest_batch_of_a_group_is_taken(everything):
    backbone = make_backbone(make_config())
    group = PassGroup({"a": build(backbone, batch_size=3), "b": build(backbone, batch_size=2)})
    assert group.batch_size == 2


def test_a_method_with_tokens_of_its_own_is_never_shared_by_accident(everything):
    class Own(SimilarityMethod):
        def tokens(self, pixels):
            return super().tokens(pixels)

    for name in ("clip", "anomalyclip"):
        cls = method_class(name)
        own = type("Own", (cls,), {"tokens": Own.tokens})
        assert own(everything["clip"].backbone).stream() is None
        assert cls(everything["clip"].backbone).stream() is not None


def test_a_shared_backbone_in_bf16_gives_every_method_the_same_text_as_alone(images):
    shared = make_backbone(make_config())
    names = ("headclip", "coop", "clip", "adaclip")
    detectors = {name: build(shared, name, precision="bf16") for name in names}
    for name in names:
        alone = build(make_backbone(make_config()), name, precision="bf16")
        torch.testing.assert_close(detectors[name].text, alone.text)
        torch.testing.assert_close(detectors[name].text_of("wood"), alone.text_of("wood"))
    found = predict_methods({name: detectors[name] for name in names[:3]}, images)
    assert_same(found["headclip"], detectors["headclip"].predict_arrays(images), tolerance=2e-2)


def test_wrong_use_says_what_is_right(images):
    backbone = make_backbone(make_config())
    with pytest.raises(InputError, match="name at least one"):
        group_by_pass({})
    with pytest.raises(InputError, match="2 categories were given for 3 images"):
        predict_methods({"a": build(backbone)}, images, ["a", "b"])
