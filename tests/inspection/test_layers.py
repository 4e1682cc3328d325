"""The split of a map by layers is a split: parts add up, and leaving one out is what the tower would have done."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headclip.inspection import START, layer_maps, why_no_layers
from headclip.inspection.layers import hot_patches
from headclip.methods import create_method, list_methods

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")

SETTINGS = [
    ("headclip", {}),
    ("headclip", {"aggregation": "sum", "csa_layers": [2, 3]}),
    ("headclip", {"aggregation": "layers", "csa_layers": [1, 3], "tap_fusion": "sum"}),
    ("headclip", {"patch_norm": False}),
    ("headclip", {"stream_layers": [2, 3]}),
    ("headclip", {"neighbour_weight": 0.8}),
    ("headclip", {"refiner": 4, "stream_layers": [2]}),
    ("headclip", {"head_constraint": "softmax", "similarity": "kk", "csa_layers": [2, 3]}),
    ("headclip", {"aggregation": "taps", "taps": [1, 3], "csa_layers": [2, 3]}),
    ("anomalyclip", {"preset": "multi"}),
    ("clip", {"csa_layers": [1, 3]}),
]


def split(detector, picture):
    size = detector.input_size(*picture.shape[:2])
    return layer_maps(detector.method, detector.pixels([picture], size), detector.text_of())


@pytest.mark.parametrize(("method", "settings"), SETTINGS)
def test_contributions_add_up_to_the_logit(detector_of, picture, method, settings):
    detector = detector_of(method, **settings)
    found = split(detector, picture)
    np.testing.assert_allclose(found.contributions.sum(axis=0) + found.constant, found.logits, atol=1e-4)
    # the logits are those of the method itself, tap by tap
    pixels = detector.pixels([picture], detector.input_size(*picture.shape[:2]))
    probabilities = detector.method.patch_probabilities(detector.method.tokens(pixels), detector.text_of())
    own = torch.stack([(p[0, 1] / p[0, 0]).log() for p in probabilities]).mean(dim=0)
    np.testing.assert_allclose(found.logits, own.detach().numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("method", "settings"), SETTINGS)
def test_heads_add_up_to_their_layer(detector_of, picture, method, settings):
    """Up to the bias of the output projection, which belongs to no head."""
    detector = detector_of(method, **settings)
    for block in detector.backbone.vision.blocks:
        block.attn.out.bias.data, kept = torch.zeros_like(block.attn.out.bias), block.attn.out.bias.data
        block.kept_bias = kept
    try:
        found = split(detector, picture)
    finally:
        for block in detector.backbone.vision.blocks:
            block.attn.out.bias.data = block.kept_bias
    of_layers = [found.contrast[found.parts.index(layer)] for layer in found.layers]
    np.testing.assert_allclose(found.head_contrast.sum(axis=1), of_layers, atol=1e-4)


def test_a_layer_left_out_equals_a_layer_with_weights_of_zero(detector_of, picture):
    """With the output projection's bias at zero, silencing all heads of a layer takes the layer away."""
    detector = detector_of("headclip", csa_layers=[1, 3])
    attention = detector.backbone.vision.blocks[1].attn
    kept = attention.out.bias.data.clone()
    try:
        attention.out.bias.data.zero_()
        found = split(detector, picture)
        detector.method.head_weight.data[1] = 0.0
        silenced = split(detector, picture)
    finally:
        attention.out.bias.data.copy_(kept)
    index = found.parts.index(2)
    np.testing.assert_allclose(found.without[index], silenced.patch_map, atol=1e-5)
    assert found.local_without[index] == pytest.approx(silenced.local_score, abs=1e-5)
    assert np.abs(found.without[index] - found.patch_map).max() > 1e-3
    assert np.abs(silenced.contributions[index]).max() < 1e-6
    assert np.abs(silenced.head_contrast[1]).max() < 1e-6


def test_the_start_is_a_part_where_there_is_one(detector_of, picture):
    assert split(detector_of("headclip"), picture).parts[0] == START
    assert START not in split(detector_of("headclip", aggregation="sum"), picture).parts


def test_layers_above_a_tap_add_nothing_to_it(detector_of, picture):
    found = split(detector_of("headclip", aggregation="taps", taps=[1], csa_layers=[1, 3]), picture)
    assert np.abs(found.contributions[[found.parts.index(2), found.parts.index(3)]]).max() == 0.0
    np.testing.assert_allclose(found.without[found.parts.index(3)], found.patch_map)


@pytest.mark.parametrize("name", list_methods())
def test_every_other_method_says_why_not(tiny, name):
    method = create_method(name, tiny)
    reason = why_no_layers(method)
    if reason is None:
        assert name in {"headclip", "anomalyclip"}
    else:
        assert name not in {"headclip", "anomalyclip"}
        assert reason.startswith(name)
        assert layer_maps(method, torch.zeros(1, 3, 42, 42), torch.zeros(2, 48)) is None


def test_hot_patches():
    values = torch.arange(40.0).view(5, 8)
    assert hot_patches(values).nonzero().tolist() == [[4, 6], [4, 7]]
    assert int(hot_patches(values[:1, :3]).sum()) == 1
