"""Layers and heads are switched without a second pass, and to the result that another detector would have had."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headclip.errors import InputError
from headclip.inspection import Selection, inspect_image, judge_kept, keep_features, own_selection

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")

# method, its own settings, layers chosen, and the settings of a detector that has them from the start
SWITCHES = [
    ("headclip", {}, (2, 3), {"csa_layers": [2, 3]}),
    ("headclip", {}, (1,), {"csa_layers": [1, 1]}),
    ("headclip", {"csa_layers": [3, 3]}, (1, 2), {"csa_layers": [1, 2]}),
    ("headclip", {"csa_layers": [1, 2], "stream_layers": [1, 3], "stream_share": 0.6}, (2,), {"csa_layers": [2, 2]}),
    ("headclip", {"neighbour_weight": 0.8}, (2, 3), {"csa_layers": [2, 3]}),
    ("headclip", {"refiner": 4, "stream_layers": [2]}, (2, 3), {"csa_layers": [2, 3]}),
    ("headclip", {"refiner": 4, "top_level": "patches"}, (1,), {"csa_layers": [1, 1]}),
    ("headclip", {"aggregation": "layers", "tap_fusion": "sum"}, (2, 3), {"csa_layers": [2, 3]}),
    ("headclip", {"aggregation": "taps", "taps": [1, 3], "csa_layers": [1, 3]}, (1, 2), {"taps": [1, 2]}),
    ("headclip", {"top_level": "patches", "similarity": "kk", "patch_norm": False}, (3,), {"csa_layers": [3, 3]}),
    ("headclip", {"head_constraint": "softplus", "csa_scale": 0.3}, (1, 2), {"csa_layers": [1, 2]}),
    ("anomalyclip", {"preset": "multi"}, (3,), {"csa_layers": [3, 3]}),
    ("anomalyclip", {}, (1, 2), {"csa_layers": [1, 2], "taps": [2]}),
    ("clip", {"csa_layers": [1, 3]}, (2,), {"csa_layers": [2, 2]}),
]


def kept_of(detector, picture):
    return keep_features(detector.method, detector.pixels([picture], detector.input_size(*picture.shape[:2])))


@pytest.mark.parametrize(("method", "settings", "layers", "others"), SWITCHES)
def test_switched_layers_equal_a_detector_with_those_layers(detector_of, picture, method, settings, layers, others):
    detector = detector_of(method, **settings)
    other = detector_of(method, **{**settings, **others})
    weights = getattr(detector.method, "head_weight", None)
    if weights is not None:  # what was learnt for a layer stays with it; other layers are as CLIP has them
        own = detector.method.effective_head_weights()
        first = detector.method.csa[0]
        with torch.no_grad():
            for row, layer in enumerate(range(other.method.csa[0], other.method.csa[1] + 1)):
                learnt = first <= layer <= detector.method.csa[1]
                wanted = own[layer - first] if learnt else torch.ones_like(own[0])
                if settings.get("head_constraint") == "softplus":
                    wanted = wanted.expm1().log()
                other.method.head_weight[row] = wanted
    expected = other.predict_arrays([picture])[0]
    found = judge_kept(
        detector.method, kept_of(detector, picture), detector.text_of(), Selection(layers), output=picture.shape[:2]
    )
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-5)
    assert found.split.score == pytest.approx(expected.score, abs=1e-5)
    assert found.split.local_score == pytest.approx(expected.local_score, abs=1e-5)
    assert found.split.global_score == pytest.approx(expected.global_score, abs=1e-5)
    before = detector.predict_arrays([picture])[0]
    assert np.abs(before.anomaly_map - found.anomaly_map).max() > 1e-4  # and the switch changes something


def test_without_its_start_the_stream_is_a_plain_sum(detector_of, picture):
    detector, other = detector_of("headclip"), detector_of("headclip", aggregation="sum")
    own = own_selection(detector.method)
    kept, text = kept_of(detector, picture), detector.text_of()
    found = judge_kept(detector.method, kept, text, Selection(own.layers, start=False), output=picture.shape[:2])
    expected = other.predict_arrays([picture])[0]
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-5)
    assert found.layers.parts == own.layers
    again = judge_kept(other.method, kept, text, Selection(own.layers, start=True), output=picture.shape[:2])
    np.testing.assert_allclose(again.anomaly_map, detector.predict_arrays([picture])[0].anomaly_map, atol=1e-5)


def test_a_silent_head_equals_a_weight_of_zero(detector_of, picture):
    detector = detector_of("headclip", csa_layers=[1, 3])
    kept, text = kept_of(detector, picture), detector.text_of()
    found = judge_kept(detector.method, kept, text, Selection((1, 2, 3), silent=frozenset({(2, 1)})))
    index = found.layers.layers.index(2)
    assert np.abs(found.layers.head_contrast[index, 0]) == 0.0
    assert np.abs(found.layers.head_contrast[index, 1]) > 0.0
    detector.method.head_weight.data[1, 0] = 0.0
    expected = judge_kept(detector.method, kept, text)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-6)


def test_a_layer_left_out_between_others_is_subtracted(detector_of, picture):
    detector = detector_of("headclip", csa_layers=[1, 3])
    kept, text = kept_of(detector, picture), detector.text_of()
    whole = judge_kept(detector.method, kept, text)
    found = judge_kept(detector.method, kept, text, Selection((1, 3)))
    np.testing.assert_allclose(found.layers.patch_map, whole.layers.without[whole.layers.parts.index(2)], atol=1e-5)
    assert found.split.local_score == pytest.approx(float(whole.layers.local_without[2]), abs=1e-5)
    np.testing.assert_allclose(
        found.layers.contributions.sum(axis=0) + found.layers.constant, found.layers.logits, atol=1e-4
    )


@pytest.mark.parametrize("settings", [{}, {"top_level": "patches"}])
def test_the_own_layers_give_what_the_detector_gives(detector_of, picture, settings):
    detector = detector_of("headclip", **settings)
    seen, expected = inspect_image(detector, picture), detector.predict_arrays([picture])[0]
    np.testing.assert_allclose(seen.anomaly_map, expected.anomaly_map, atol=1e-6)
    assert seen.split.score == pytest.approx(expected.score, abs=1e-6)


def test_one_pass_is_enough(detector_of, picture, monkeypatch):
    detector = detector_of("headclip")
    kept, text = kept_of(detector, picture), detector.text_of()
    assert kept.nbytes == sum(value.nbytes for value in [kept.cls, *kept.inputs.values(), *kept.heads.values()])
    assert sorted(kept.inputs) == sorted(kept.heads) == [1, 2, 3]
    tower = detector.backbone.vision

    def no_pass(*_):
        raise AssertionError("the tower ran again")

    monkeypatch.setattr(type(tower), "forward", no_pass)
    monkeypatch.setattr(type(tower), "embed", no_pass)
    for layers in ((1,), (2, 3), (1, 3)):
        judge_kept(detector.method, kept, text, Selection(layers))


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (Selection(()), "no layer is left"),
        (Selection((3, 4)), "from 1 to 3"),
        (Selection((2, 1)), "rising"),
        (Selection((1, 1)), "different"),
        (Selection((1,), silent=frozenset({(1, 3)})), "2 heads each"),
    ],
)
def test_selections_that_do_not_fit(detector_of, picture, selection, words):
    detector = detector_of("headclip")
    with pytest.raises(InputError, match=words):
        judge_kept(detector.method, kept_of(detector, picture), detector.text_of(), selection)


def test_linear_heads_stay_whatever_layers_count(detector_of, picture):
    """With all weight on the tower's own stream, no layer of the local one changes the map; the share is told."""
    detector = detector_of("headclip", stream_layers=[1, 3], stream_share=1.0)
    kept, text = kept_of(detector, picture), detector.text_of()
    one, other = (judge_kept(detector.method, kept, text, Selection(layers)) for layers in ((1,), (2, 3)))
    np.testing.assert_allclose(one.anomaly_map, other.anomaly_map, atol=1e-6)
    np.testing.assert_allclose(one.layers.without, np.broadcast_to(one.layers.patch_map, one.layers.without.shape))
    assert one.layers.own_share == 1.0
    assert np.abs(one.layers.logits - other.layers.logits).max() > 1e-3
    plain = detector_of("headclip")
    assert judge_kept(plain.method, kept_of(plain, picture), plain.text_of()).layers.own_share == 0.0


def test_a_refiner_is_told(detector_of, picture):
    found = [detector_of("headclip", refiner=channels) for channels in (4, 0)]
    layers = [judge_kept(one.method, kept_of(one, picture), one.text_of()).layers for one in found]
    assert [one.refined for one in layers] == [True, False]
    np.testing.assert_allclose(layers[0].patch_map, layers[1].patch_map, rtol=1e-5)  # it draws those finer


def test_neighbours_are_told_and_counted_once(detector_of, picture):
    """The odds of every map, whole or without a part, are those of a detector without them, times one factor."""
    found = []
    for weight in (0.8, 0.0):
        detector = detector_of("headclip", neighbour_weight=weight)
        found.append(judge_kept(detector.method, kept_of(detector, picture), detector.text_of()).layers)
    assert [layers.neighbour_weight for layers in found] == [0.8, 0.0]
    whole, parts = ([getattr(layers, name).astype(float) for layers in found] for name in ("patch_map", "without"))
    factor = whole[0] / (1 - whole[0]) / (whole[1] / (1 - whole[1]))
    assert factor.std() > 0.1
    np.testing.assert_allclose(parts[0] / (1 - parts[0]), parts[1] / (1 - parts[1]) * factor, rtol=1e-3)
    np.testing.assert_allclose(found[0].logits, found[1].logits)
