"""AdaCLIP against the official code on random weights: prompts, both towers, fusion, map and score."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from torch.nn import functional as F

import golden_io
from headclip.clip.backbone import Backbone
from headclip.clip.layouts import infer_config, to_ours
from headclip.clip.tokenizer import ClipTokenizer
from headclip.methods.adaclip import AdaClip
from headclip.methods.adaclip_fusion import fuse_clusters, kmeans, most_anomalous
from parity_models import pixels

pytestmark = pytest.mark.parity
UNIT, RAW = {"atol": 1e-5, "rtol": 0}, {"atol": 2e-5, "rtol": 0}
close = torch.testing.assert_close
FACTS = json.loads(golden_io.metadata("adaclip")["cfg"])
NAMES = json.loads(golden_io.metadata("adaclip")["cls_names"])
VARIANTS = {
    "hsf": {},
    "nohsf": {"fusion": False},
    "hsf_quickgelu": {"activation": None},  # the backbone's own
    "nohsf_nohalf": {"fusion": False, "prompt_half": False},
}


@cache
def backbone() -> Backbone:
    """The golden CLIP with the wider embedding that AdaCLIP's code needs; its own activation is quick_gelu."""
    parameters = golden_io.load("adaclip_params")
    state = golden_io.load_clip_state()
    state["visual.proj"], state["text_projection"] = parameters["clip.visual.proj"], parameters["clip.text_projection"]
    config = infer_config(state, name="golden", activation="quick_gelu")
    model = Backbone(config, ClipTokenizer(state["token_embedding.weight"].shape[0]))
    model.load_state_dict(to_ours(state, config))
    return model.freeze()


@cache
def official_file() -> dict[str, torch.Tensor]:
    """What the official code would have saved."""
    parameters = golden_io.load("adaclip_params")
    return {key.removeprefix("param."): value for key, value in parameters.items() if key.startswith("param.")}


@cache
def build(variant: str) -> AdaClip:
    settings = {
        "taps": tuple(FACTS["taps"]),
        "clusters": FACTS["k_clusters"],
        "clustering": "sklearn",
        "seed": 0,
    }
    method = AdaClip.from_official(official_file(), backbone(), settings | VARIANTS[variant])
    assert method is not None
    return method


@cache
@torch.no_grad()
def passed(variant: str):
    """The method, the tokens of the three images in one batch, and what names their categories."""
    method = build(variant)
    return method, method.tokens(pixels(FACTS["image"])), method.text_vectors(NAMES)


def stacked(variant: str, name: str) -> torch.Tensor:
    golden = golden_io.load("adaclip")
    return torch.cat([golden[f"{variant}.{i}.{name}"] for i in range(len(NAMES))])


def test_settings_are_read_from_the_file():
    method = build("hsf")
    assert (method.config.depth, method.config.length) == (FACTS["depth"], FACTS["length"])
    assert method.vision_prompts.layers == tuple(range(1, FACTS["depth"] + 1))
    assert method.text_prompts.layers == tuple(range(2, FACTS["depth"] + 1))


def test_positions():
    side = FACTS["image"] // backbone().config.vision.patch_size
    close(backbone().vision.positions((side, side), "bicubic"), golden_io.load("adaclip")["pos_embed_bicubic"], **UNIT)


def test_dynamic_prompts():
    method, tokens, _ = passed("hsf")
    frozen = stacked("hsf", "frozen_image_features")
    close(tokens.dynamic_text, stacked("hsf", "dyn_text"), **RAW)
    close(method.vision_prompts.dynamic_tokens(frozen), stacked("hsf", "dyn_visual"), **RAW)


def test_image_and_patch_features():
    method, tokens, _ = passed("hsf")
    close(method.cls_vector(tokens), stacked("hsf", "cls_projected"), **UNIT)
    for tap, features in zip(method.taps, method.patch_features(tokens), strict=True):
        close(features, stacked("hsf", f"patch_tap{tap}"), **UNIT)


def test_text_vectors_of_each_image():
    method, tokens, text = passed("hsf")
    close(method.image_text(tokens, text), stacked("hsf", "text_features").transpose(1, 2), **UNIT)


@pytest.mark.parametrize("variant", ["hsf", "hsf_quickgelu"])
def test_fusion_given_the_official_clusters(variant):
    """Our patches, the official labels: the image score does not depend on anybody's k-means."""
    method, tokens, text = passed(variant)
    golden = golden_io.load("adaclip")
    vectors, features = method.image_text(tokens, text), method.patch_features(tokens)
    anomaly = method.patch_logits(features, vectors).mean(dim=0).softmax(dim=-1)[..., 1]
    chosen = most_anomalous(features, anomaly, 5 * FACTS["k_clusters"])
    points = torch.cat(chosen, dim=-1)
    for i in range(len(NAMES)):
        official, labels = golden[f"{variant}.{i}.kmeans_input"], golden[f"{variant}.{i}.kmeans_labels"]
        order = torch.cdist(points[i].detach(), official).argmin(dim=1)  # near ties may come in another order
        close(points[i], official[order], **UNIT)
        fused = fuse_clusters([tap[i : i + 1] for tap in chosen], labels[order][None], FACTS["k_clusters"])
        vector = F.normalize(0.2 * fused + 0.8 * method.cls_vector(tokens)[i : i + 1], dim=-1)
        score = (100 * vector @ vectors[i].T).softmax(dim=-1)[:, 1]
        close(score, golden[f"{variant}.{i}.score"], **UNIT)


@pytest.mark.parametrize("variant", VARIANTS)
def test_map_and_score(variant):
    if "nohsf" not in variant:
        pytest.importorskip("sklearn", reason="the official code clusters with scikit-learn")
    method, tokens, text = passed(variant)
    size = (FACTS["image"], FACTS["image"])
    with torch.no_grad():
        scores = method.score(tokens, text, size)
    close(scores.anomaly_map, stacked(variant, "map_smooth"), **UNIT)
    close(scores.score, stacked(variant, "score"), **UNIT)


@torch.no_grad()
def test_maps_before_smoothing():
    method, tokens, text = passed("hsf")
    size = (FACTS["image"], FACTS["image"])
    maps = method.pixel_maps(tokens, text, size)
    for tap, found in zip(method.taps, maps, strict=True):
        close(found, stacked("hsf", f"train_map_tap{tap}"), **UNIT)
    raw = AdaClip.from_official(official_file(), backbone(), {"taps": method.taps, "sigma": 0.0, "fusion": False})
    scores = raw.score(raw.tokens(pixels(FACTS["image"])), raw.text_vectors(NAMES), size)
    close(scores.anomaly_map, stacked("hsf", "map"), **UNIT)


def test_logits_of_training():
    pytest.importorskip("sklearn", reason="the official code clusters with scikit-learn")
    method, tokens, text = passed("hsf")
    close(method.image_logits(tokens, text).softmax(dim=-1).detach(), stacked("hsf", "train_score"), **UNIT)


def test_own_clusters_are_as_tight_as_the_official_ones():
    golden = golden_io.load("adaclip")
    for i in range(len(NAMES)):
        points, labels = golden[f"hsf.{i}.kmeans_input"], golden[f"hsf.{i}.kmeans_labels"]
        own = kmeans(points[None], FACTS["k_clusters"])[0]
        spread = [
            sum(float((p - p.mean(dim=0)).square().sum()) for k in which.unique() for p in [points[which == k]])
            for which in (own, labels)
        ]
        assert spread[0] < 1.1 * spread[1]
