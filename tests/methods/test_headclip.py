"""What must hold of HeadCLIP whatever the weights are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from headclip.clip.neighbours import TYPICAL, neighbour_distance
from headclip.clip.vision import VisionRequest
from headclip.errors import BackboneError, InputError
from headclip.methods import create_method, list_methods
from headclip.methods.headclip import HeadClip, HeadClipConfig, proportional_csa, proportional_deep_layers
from tiny_clip import make_backbone, make_config

close = torch.testing.assert_close
SIZE = (42, 56)  # the grid need not be square


@pytest.fixture(scope="module")
def backbone():
    return make_backbone(make_config())


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(5))


def judge(method, pixels):
    with torch.no_grad():
        return method.score_pixels(pixels)


def test_weights_of_one_change_nothing(backbone, pixels):
    on = judge(HeadClip(backbone, HeadClipConfig()), pixels)
    off = judge(HeadClip(backbone, HeadClipConfig(head_weights=False)), pixels)
    close(on.anomaly_map, off.anomaly_map)
    close(on.score, off.score)


def test_weights_of_zero_leave_base_and_biases(backbone, pixels):
    request = VisionRequest(csa=(2, 3), taps=(3,))
    with torch.no_grad():
        local = backbone.vision(pixels, request, torch.zeros(2, 2)).local[3]
        before = backbone.vision(pixels, VisionRequest(taps=(1,))).local[1]
        biases = sum(backbone.vision.blocks[i].attn.out.bias for i in (1, 2))
    close(local, before + biases)


def test_alpha_zero_is_the_cls_score(backbone, pixels):
    scores = judge(HeadClip(backbone, HeadClipConfig(alpha=0.0)), pixels)
    assert torch.equal(scores.score, scores.global_score)
    scores = judge(HeadClip(backbone, HeadClipConfig(alpha=1.0)), pixels)
    assert torch.equal(scores.score, scores.local_score)


def test_taps_differ_from_each_other(backbone, pixels):
    with torch.no_grad():
        tokens = backbone.vision(pixels, VisionRequest(csa=(2, 3), taps=(1, 2, 3)))
    for one, other in [(1, 2), (2, 3), (1, 3)]:
        assert (tokens.local[one] - tokens.local[other]).abs().max() > 1e-3


def test_one_image_alone_equals_the_same_in_a_batch(backbone, pixels):
    method = HeadClip(backbone)
    together = judge(method, pixels)
    for index in range(len(pixels)):
        alone = judge(method, pixels[index : index + 1])
        close(alone.anomaly_map[0], together.anomaly_map[index], atol=1e-5, rtol=0)
        close(alone.score[0], together.score[index], atol=1e-5, rtol=0)


def test_the_global_stream_never_sees_the_head_weights(backbone, pixels):
    request = VisionRequest(csa=(1, 3), taps=(3,))
    with torch.no_grad():
        plain = backbone.vision(pixels, request)
        weighted = backbone.vision(pixels, request, torch.randn(3, 2))
        without = backbone.vision(pixels)
    assert torch.equal(plain.cls, weighted.cls)
    close(plain.cls, without.cls)
    assert (plain.local[3] - weighted.local[3]).abs().max() > 1e-3


def test_local_stream_is_linear_in_the_head_weights(backbone, pixels):
    request = VisionRequest(csa=(1, 3), taps=(3,))

    def local(weights):
        with torch.no_grad():
            return backbone.vision(pixels, request, weights).local[3]

    one, two = torch.randn(3, 2), torch.randn(3, 2)
    close(local((one + two) / 2), (local(one) + local(two)) / 2, atol=1e-5, rtol=1e-5)


def test_gradients_reach_the_heads_and_prompts_only(backbone, pixels):
    method = HeadClip(backbone)
    scores = method.score_pixels(pixels)
    (scores.score.sum() + scores.anomaly_map.mean()).backward()
    for name, parameter in method.trainable().items():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name
    assert (method.head_weight.grad != 0).all()
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.parametrize("size", [(42, 42), (14, 14), (28, 140), (98, 42)])
def test_any_grid(backbone, size):
    method = HeadClip(backbone)
    before = backbone.vision.position_embedding.clone()
    scores = judge(method, torch.randn(1, 3, *size))
    assert scores.anomaly_map.shape == (1, *size)
    assert torch.equal(before, backbone.vision.position_embedding)


@pytest.mark.parametrize(("constraint", "first"), [("none", 0.5), ("softplus", 0.5), ("softmax", 1.0)])
def test_where_constrained_head_weights_begin(backbone, constraint, first):
    method = HeadClip(backbone, HeadClipConfig(head_constraint=constraint, head_init=0.5))
    weights = method.effective_head_weights()
    torch.testing.assert_close(weights, torch.full_like(weights, first))


def test_softplus_needs_a_positive_start(backbone):
    with pytest.raises(InputError, match="head_init must be positive"):
        HeadClipConfig(head_constraint="softplus", head_init=0.0)


@pytest.mark.parametrize(("layers", "weight"), [((), 4.0), ((1,), 1.0)])
def test_the_weight_of_the_local_loss_counts_every_map(backbone, layers, weight):
    assert HeadClip(backbone, HeadClipConfig(stream_layers=layers)).local_weight == weight


@pytest.mark.parametrize(
    "change",
    [
        {"csa_layers": (2, 2)},
        {"aggregation": "sum"},
        {"aggregation": "layers"},
        {"aggregation": "taps", "taps": (1, 2)},
        {"similarity": "qq"},
        {"csa_scale": 1.0},
        {"patch_norm": False},
        {"temperature": 0.5},
        {"sigma": 0.0},
        {"head_init": 0.0},
        {"head_init": "gaussian"},
        {"deep_layers": (1, 2)},
        {"n_context": 6},
        {"words": ("part.", "broken part.")},
        {"position_interpolation": "bicubic"},
        {"seed": 7},
    ],
    ids=str,
)
def test_every_reading_changes_the_map(backbone, pixels, change):
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(5))
    default = HeadClipConfig(csa_layers=(2, 3))
    one, other = (judge(HeadClip(backbone, config), pixels) for config in (default, replace(default, **change)))
    assert (one.anomaly_map - other.anomaly_map).abs().max() > 1e-6


@pytest.mark.parametrize(
    "change",
    [
        {"cls_norm": True},
        {"alpha": 0.2},
        {"top_share": 0.5},
        {"top_level": "patches"},
        {"global_score": "cosine"},
        {"normalise_map": "image"},
    ],
    ids=str,
)
def test_every_reading_of_the_score_changes_it_and_not_the_map(backbone, pixels, change):
    one, other = (judge(HeadClip(backbone, c), pixels) for c in (HeadClipConfig(), HeadClipConfig(**change)))
    assert (one.score - other.score).abs().max() > 1e-6
    assert torch.equal(one.anomaly_map, other.anomaly_map)
    assert ((other.score >= 0) & (other.score <= 1)).all()


def test_equal_readings(backbone, pixels):
    """S_a alone equals (1 - S_n + S_a) / 2 for a two-way softmax; with one tap the sum of maps is their mean."""
    default = judge(HeadClip(backbone, HeadClipConfig()), pixels)
    for change in ({"map_from": "abnormal"}, {"tap_fusion": "sum"}):
        close(judge(HeadClip(backbone, HeadClipConfig(**change)), pixels).anomaly_map, default.anomaly_map)


def test_proportional_layers():
    assert proportional_csa(24) == (5, 19)
    assert proportional_deep_layers(12) == (2, 3, 4, 5, 6, 7, 8, 9)
    for layers in range(1, 49):
        first, last = proportional_csa(layers)
        assert 1 <= first <= last <= layers


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"csa_layers": (2, 9)}, "tower of 3 layers"),
        ({"aggregation": "taps", "taps": (9,)}, "taps \\[9\\] do not fit; give different layers from 1 to 3"),
        ({"deep_layers": (3,)}, "the text tower has 2"),
        ({"n_deep": 13}, "do not fit"),
        ({"alpha": 1.5}, "alpha"),
        ({"no_such": 1}, "HeadClipConfig has"),
    ],
)
def test_wrong_settings_say_what_is_right(backbone, change, words):
    with pytest.raises(InputError, match=words):
        create_method("headclip", backbone, change)


def test_unknown_method_lists_the_known(backbone):
    with pytest.raises(InputError, match="headclip"):
        create_method("headclop", backbone)
    assert "headclip" in list_methods()


def test_a_backbone_without_text_is_refused():
    with pytest.raises(BackboneError, match="no text tower"):
        HeadClip(make_backbone(make_config(text=False)))


def test_wrong_image_size_names_the_patch(backbone):
    with pytest.raises(InputError, match="multiples of 14"):
        backbone.vision(torch.zeros(1, 3, 50, 42))


def test_the_towers_own_stream_is_what_the_plain_tower_has(backbone, pixels):
    with torch.no_grad():
        beside = backbone.vision(pixels, VisionRequest(csa=(1, 3), taps=(3,), plain=(1, 3)))
        alone = backbone.vision(pixels, VisionRequest(taps=(1, 3)))
    assert beside.plain.keys() == {1, 3}
    for layer, tokens in beside.plain.items():
        close(tokens, alone.local[layer], atol=1e-5, rtol=0)
        assert (tokens - beside.local[3]).abs().max() > 1e-3


@pytest.mark.parametrize("fusion", ["mean", "sum"])
def test_linear_heads_join_map_and_logits_by_their_share(backbone, pixels, fusion):
    settings = {"aggregation": "layers", "tap_fusion": fusion}

    def scores(share):
        config = HeadClipConfig(**settings, stream_layers=(1, 3), stream_share=share)
        method = HeadClip(backbone, config)
        tokens, text = method.tokens(pixels), method.text_vectors()[0]
        return method.patch_map(tokens, text), method.image_logits(tokens, text), method.map_maximum

    with torch.no_grad():
        published = HeadClip(backbone, HeadClipConfig(**settings))
        tokens, text = published.tokens(pixels), published.text_vectors()[0]
        none, some, all_ = scores(0.0), scores(0.3), scores(1.0)
        close(none[0], published.patch_map(tokens, text))
        close(none[1], published.image_logits(tokens, text))
    for index in range(2):
        close(some[index], 0.7 * none[index] + 0.3 * all_[index], atol=1e-6, rtol=1e-5)
        assert (all_[index] - none[index]).abs().max() > 1e-3
    assert all_[0].min() >= 0
    assert all_[0].max() <= all_[2]


def test_linear_heads_learn_with_the_prompts_and_leave_first_values_alone(backbone, pixels):
    published, method = HeadClip(backbone), HeadClip(backbone, HeadClipConfig(stream_layers=(2,)))
    for name, value in published.named_parameters():
        assert torch.equal(value, method.get_parameter(name))
    assert list(method.parameter_groups()) == ["prompts", "heads", "stream"]
    text = method.text_vectors()[0]
    tokens = method.tokens(pixels)
    maps = method.pixel_maps(tokens, text, SIZE)
    assert [tuple(values.shape) for values in maps] == [(3, 2, *SIZE)] * 2
    (maps[0][:, 1].mean() + maps[1][:, 1].mean() + method.image_logits(tokens, text)[:, 1].sum()).backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in method.trainable().values())


@pytest.mark.parametrize("wrong", [{"stream_layers": (0,)}, {"stream_layers": (4,)}, {"stream_layers": (2, 2)}])
def test_linear_heads_in_layers_that_are_not_there(backbone, wrong):
    with pytest.raises(InputError, match="stream_layers"):
        HeadClip(backbone, HeadClipConfig(**wrong))


def test_a_share_of_linear_heads_beyond_one(backbone):
    with pytest.raises(InputError, match="stream_share"):
        HeadClipConfig(stream_share=1.2)


@pytest.mark.parametrize("settings", [{}, {"stream_layers": (1,)}, {"aggregation": "layers", "tap_fusion": "sum"}])
def test_neighbours_multiply_the_odds_of_the_map(backbone, pixels, settings):
    plain = HeadClip(backbone, HeadClipConfig(**settings))
    method = HeadClip(backbone, HeadClipConfig(**settings, neighbour_weight=0.7))
    with torch.no_grad():
        tokens, text = method.tokens(pixels), method.text_vectors()[0]
        before, after = (m.patch_map(tokens, text).double() / m.map_maximum for m in (plain, method))
        close(plain.image_logits(tokens, text), method.image_logits(tokens, text))
    factor = (neighbour_distance(pixels, 14).double() / TYPICAL) ** 0.7
    assert factor.std() > 0.1
    close(after / (1 - after), before / (1 - before) * factor, atol=1e-5, rtol=1e-4)
    assert plain.tokens(pixels).neighbours is None


def test_an_even_picture_keeps_some_odds(backbone):
    method = HeadClip(backbone, HeadClipConfig(neighbour_weight=1.0))
    with torch.no_grad():
        found = method.patch_map(method.tokens(torch.zeros(1, 3, *SIZE)), method.text_vectors()[0])
    assert found.isfinite().all()
    assert found.min() > 0


def test_a_negative_weight_of_neighbours():
    with pytest.raises(InputError, match="neighbour_weight"):
        HeadClipConfig(neighbour_weight=-0.1)
