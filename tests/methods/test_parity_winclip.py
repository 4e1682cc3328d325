"""WinCLIP, zero-shot and few-shot, against the two public codes on random weights."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import golden_io
from headclip.clip.backbone import Backbone
from headclip.clip.layouts import infer_config, to_ours
from headclip.clip.tokenizer import ClipTokenizer
from headclip.methods.ensembles import (
    WINCLIP_ABNORMAL_STATES,
    WINCLIP_NORMAL_STATES,
    WINCLIP_TEMPLATES_STOPPED,
    compose,
    sentence_vectors,
)
from headclip.methods.scoring import grid_to_map
from headclip.methods.winclip import WinClip, WinClipConfig
from headclip.methods.windows import harmonic_patches, window_indices

pytestmark = pytest.mark.parity
RAW, UNIT = {"atol": 2e-5, "rtol": 0}, {"atol": 1e-5, "rtol": 0}
FACTS = golden_io.metadata("winclip")
SIZE, SCALES, NAME = int(FACTS["image_size"]), tuple(json.loads(FACTS["scales"])), FACTS["class_name"]
CONFIG = WinClipConfig(scales=SCALES, temperature=float(FACTS["temperature"]))
REFERENCES = (1, 2)
close = torch.testing.assert_close


@pytest.fixture(scope="module")
def golden():
    return golden_io.load("winclip")


@pytest.fixture(scope="module")
def backbone():
    """The golden weights with plain GELU, in which both codes ran."""
    state = golden_io.load_clip_state()
    config = infer_config(state, name="golden", activation="gelu")
    built = Backbone(config, ClipTokenizer(state["token_embedding.weight"].shape[0]))
    built.load_state_dict(to_ours(state, config))
    return built.freeze()


@pytest.fixture(scope="module")
def method(backbone):
    return WinClip(backbone, CONFIG)


@pytest.fixture(scope="module")
def text(method):
    return method.text_vectors([NAME])[0]


@pytest.fixture(scope="module")
def images():
    stored = golden_io.load("images")
    return torch.stack([stored[f"pre{SIZE}.{i}"] for i in range(3)])


@pytest.fixture(scope="module")
def tokens(method, images):
    with torch.no_grad():
        return method.tokens(images)


def few_shot(backbone, golden, images, shots, **change):
    """A method that remembers the first references, and its scores."""
    method = WinClip(backbone, replace(CONFIG, **change))
    method.set_references(golden["ref_images"][:shots])
    with torch.no_grad():
        tokens = method.tokens(images)
        return method.few_shot_patches(tokens), method.score(tokens, method.text_vectors([NAME])[0], (SIZE, SIZE))


def test_window_masks(golden):
    grid = (SIZE // golden_io.config()["patch"],) * 2
    for scale in SCALES:
        ours = window_indices(grid, scale).T
        assert torch.equal(ours, golden[f"masks.{scale}"].long())
    mid, large = (window_indices(grid, scale).T + 1 for scale in (2, 3))
    assert torch.equal(mid, golden["zq.mid_mask"].long())
    assert torch.equal(large, golden["zq.large_mask"].long())


def test_text_vectors(backbone, golden, text):
    close(text, F.normalize(golden["text_embeddings"], dim=-1), **UNIT)
    for row, key in enumerate(("zq.text_normal", "zq.text_abnormal")):
        close(text[row], F.normalize(golden[key].flatten(), dim=-1), **UNIT)
    for row, states in enumerate((WINCLIP_NORMAL_STATES, WINCLIP_ABNORMAL_STATES)):
        raw = sentence_vectors(backbone, compose(NAME, states, WINCLIP_TEMPLATES_STOPPED)).mean(dim=0)
        close(raw, golden["text_embeddings"][row], **RAW)


def test_whole_image(method, golden, tokens, text):
    features = method.backbone.vision.project(tokens.cls)
    close(features, golden["image_embeddings"], **RAW)
    close(features, golden["zq.class_tokens"], **RAW)
    close(method.image_scores(tokens, text), golden["zs.image_score"], **UNIT)
    close(method._few_shot_features(tokens)["patches"], golden["patch_embeddings"], **RAW)


def test_window_vectors_and_scores(method, golden, tokens, text):
    scores = method.window_scores(tokens, text)
    for scale in SCALES:
        close(tokens.windows[scale], golden[f"windows.{scale}"], **RAW)
        close(scores[scale], golden[f"zs.window_scores.{scale}"], **UNIT)
        close(harmonic_patches(scores[scale], tokens.grid, scale), golden[f"zs.harmonic.{scale}"], **UNIT)
    for scale, name in [(2, "mid"), (3, "large")]:
        close(tokens.windows[scale], golden[f"zq.{name}_tokens"].squeeze(2), **RAW)
        close(harmonic_patches(scores[scale], tokens.grid, scale), golden[f"zq.zs.{name}_harmonic"], **UNIT)


def test_zero_shot(method, golden, tokens, text):
    patches = method.zero_shot_patches(tokens, text)
    scores = method.score(tokens, text, (SIZE, SIZE))
    for multi, heat, score in (("zs.multi", "zs.map", "zs.score"), ("zq.zs.multi", "zq.zs.map", "zq.zs.score")):
        close(patches, golden[multi].view_as(patches), **UNIT)
        close(scores.anomaly_map, golden[heat], **UNIT)
        close(scores.score, golden[score], **UNIT)


@pytest.mark.parametrize("shots", REFERENCES)
def test_few_shot(backbone, golden, images, shots):
    patches, scores = few_shot(backbone, golden, images, shots)
    close(patches, golden[f"fs{shots}.few_multi"], **UNIT)
    close(scores.anomaly_map, golden[f"fs{shots}.map"], **UNIT)
    close(scores.score, golden[f"fs{shots}.score"], **UNIT)


def test_few_shot_of_the_other_code(backbone, golden, images):
    """It leaves the last norm of patch tokens out and does not halve the map."""
    patches, scores = few_shot(backbone, golden, images, 2, patch_norm=False)
    close(patches, golden["zq.fs2.few"], **UNIT)
    close(2 * scores.anomaly_map, golden["zq.fs2.map"], **UNIT)
    close(scores.score, golden["zq.fs2.score"], **UNIT)
    assert (patches - golden["fs2.few_multi"]).abs().max() > 1e-3  # the two codes do differ


def test_maps_come_from_patches_alone(golden):
    """The upsampling of both codes is the shared one, without smoothing."""
    for few, heat in [("zs.multi", "zs.map"), ("zq.zs.multi", "zq.zs.map")]:
        close(grid_to_map(golden[few].flatten(0, -3), (SIZE, SIZE)), golden[heat], **UNIT)
