"""CLIP and CLIP-AC, and the sentences that the methods share."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import golden_io
from headclip.errors import BackboneError, InputError
from headclip.methods import create_method
from headclip.methods.clip_zero_shot import ClipAc, ClipZeroShot, ClipZeroShotConfig
from headclip.methods.ensembles import (
    ABNORMAL_STATES,
    ADACLIP_TEMPLATES,
    ANOVL_ABNORMAL_STATES,
    ANOVL_NORMAL_STATES,
    CLIP_AC_TEMPLATES,
    NORMAL_STATES,
    WINCLIP_ABNORMAL_STATES,
    WINCLIP_TEMPLATES,
    WINCLIP_TEMPLATES_STOPPED,
    anovl_templates,
    compose,
    ensemble_vectors,
    mean_vector,
    readable,
    sentence_vectors,
)
from parity_models import golden_backbone, pixels
from tiny_clip import make_backbone, make_config

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def backbone():
    return make_backbone(make_config())


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 42, 56, generator=torch.Generator().manual_seed(5))


def test_list_lengths():
    """The counts that the papers and codes give."""
    assert (len(NORMAL_STATES), len(ABNORMAL_STATES), len(WINCLIP_ABNORMAL_STATES)) == (7, 5, 4)
    assert (len(ANOVL_NORMAL_STATES), len(ANOVL_ABNORMAL_STATES)) == (7, 7)
    assert (len(WINCLIP_TEMPLATES), len(set(WINCLIP_TEMPLATES))) == (22, 22)
    assert (len(WINCLIP_TEMPLATES_STOPPED), len(set(WINCLIP_TEMPLATES_STOPPED))) == (21, 20)
    assert len(set(CLIP_AC_TEMPLATES)) == 35
    assert set(ADACLIP_TEMPLATES) < set(CLIP_AC_TEMPLATES)
    for category in ("carpet", "bottle"):
        assert len(set(anovl_templates(category))) == 66


def test_anovl_nouns_follow_the_category():
    assert "a cropped textural photo of the {}" in anovl_templates("wood")
    assert "an industrial image of a {}" in anovl_templates("bottle")
    assert not any("a industrial" in text or "an manufacturing" in text for text in anovl_templates("bottle"))


def test_compose_order():
    states, templates = ["{}", "old {}"], ["a {}", "the {}"]
    assert compose("cup", states, templates) == ["a cup", "a old cup", "the cup", "the old cup"]
    assert compose("cup", states, templates, outer="states") == ["a cup", "the cup", "a old cup", "the old cup"]


def test_readable():
    assert readable(" metal_nut ") == "metal nut"
    assert readable("pcb-x") == "pcb x"


def test_sentence_vectors_do_not_depend_on_company(backbone):
    """Short sentences beside long ones are cut to another length, and chunks end anywhere."""
    sentences = ["a cup", "a photo of a very old cup without any flaw at all", "the cup"] * 3
    together = sentence_vectors(backbone, sentences, chunk=4)
    close(together, torch.cat([sentence_vectors(backbone, [text]) for text in sentences]), atol=1e-5, rtol=0)
    close(F.normalize(together, dim=-1), backbone.encode_text(sentences), atol=1e-5, rtol=0)


def test_means(backbone):
    vectors = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    close(mean_vector(vectors, normalise_each=True), torch.tensor([0.5, 0.5]).sqrt())
    close(mean_vector(vectors, normalise_each=False), F.normalize(torch.tensor([4.0, 1.0]), dim=0))
    both = ensemble_vectors(backbone, ["a cup"], ["a broken cup"], normalise_each=True)
    close(both, backbone.encode_text(["a cup", "a broken cup"]), atol=1e-6, rtol=0)


def test_no_tokenizer():
    bare = make_backbone(make_config())
    bare.tokenizer = None
    with pytest.raises(BackboneError, match="no tokenizer"):
        sentence_vectors(bare, ["a cup"])


def test_clip_is_a_softmax_of_clips_own_logits(backbone, images):
    method = ClipZeroShot(backbone)
    sentences = ["a photo of a normal metal nut.", "a photo of an anomalous metal nut."]
    with torch.no_grad():
        text = method.text_vectors(["metal_nut"])[0]
        scores = method.score_pixels(images, text)
        image = backbone.vision.project(backbone.vision(images).cls)
        logits = backbone.logit_scale.exp() * F.normalize(image, dim=-1) @ backbone.encode_text(sentences).T
    close(text, backbone.encode_text(sentences), atol=1e-6, rtol=0)
    close(scores.score, logits.softmax(dim=-1)[:, 1], atol=1e-5, rtol=0)


def test_clip_ac_is_the_mean_of_its_sentences(backbone):
    text = ClipAc(backbone).text_vectors(["bottle"])[0]
    for vector, states in zip(text, (NORMAL_STATES, ABNORMAL_STATES), strict=True):
        sentences = [t.format(s.format("bottle")) for t in CLIP_AC_TEMPLATES for s in states]
        assert len(sentences) == 35 * len(states)
        close(vector, F.normalize(backbone.encode_text(sentences).mean(dim=0), dim=-1), atol=1e-5, rtol=0)


def test_the_configured_category_is_the_default(backbone):
    named = ClipZeroShot(backbone, ClipZeroShotConfig(category="wood")).text_vectors()
    assert torch.equal(named, ClipZeroShot(backbone).text_vectors(["wood"]))
    assert not torch.equal(named, ClipZeroShot(backbone).text_vectors())


def test_the_local_stream_is_an_option(backbone, images):
    with torch.no_grad():
        plain, local = (
            ClipZeroShot(backbone, ClipZeroShotConfig(csa_layers=csa)).score_pixels(images) for csa in (None, (2, 3))
        )
    assert (plain.anomaly_map - local.anomaly_map).abs().max() > 1e-4
    close(plain.score, local.score)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("clip", {"sentences": ["one {}"]}, "two, normal and abnormal"),
        ("clip", {"sentences": ["{} {}", "bad {}"]}, "one category"),
        ("clip_ac", {"templates": []}, "must not be empty"),
        ("clip_ac", {"templates": ["a photo"]}, "needs one {}"),
        ("clip_ac", {"temperature": 0}, "temperature must be positive"),
    ],
)
def test_wrong_settings_say_what_is_right(backbone, name, change, words):
    with pytest.raises(InputError, match=words):
        create_method(name, backbone, change)


@pytest.mark.parity
def test_patch_tokens_are_the_official_ones():
    """The map of CLIP comes from the tokens that the official model gives for its last layer."""
    golden, tower = golden_io.load("clip"), golden_backbone()
    size = golden_io.config()["image"]
    method = ClipZeroShot(tower, ClipZeroShotConfig(temperature=0.07))
    text = F.normalize(golden["text_features"][:2], dim=-1)
    with torch.no_grad():
        (ours,) = method.patch_probabilities(method.tokens(pixels(size)), text)
        scores = method.score_pixels(pixels(size), text)
    unit = F.normalize(golden["image_tokens_lnpost_proj"], dim=-1)
    expected = (unit @ text.T / 0.07).softmax(dim=-1)  # (3, 1 + N, 2)
    close(ours.flatten(2).transpose(1, 2), expected[:, 1:], atol=1e-5, rtol=0)
    close(scores.score, expected[:, 0, 1], atol=1e-5, rtol=0)
