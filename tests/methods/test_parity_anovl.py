"""AnoVL against both official scripts on random weights, with and without test-time adaptation."""

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
from headclip.methods import anovl
from headclip.methods.anovl import AnoVl, AnoVlConfig, pool, upsample_tiles
from headclip.methods.anovl_adaptation import Draws, adapt
from headclip.methods.anovl_tiles import COPIES, augmented_copies

pytestmark = pytest.mark.parity
UNIT, RAW = {"atol": 1e-5, "rtol": 0}, {"atol": 2e-5, "rtol": 0}
close = torch.testing.assert_close
NAMES = json.loads(golden_io.metadata("anovl")["objs"])
MVTEC, VISA = NAMES[0], NAMES[-1]  # what the images of the two scripts show


@cache
def golden() -> dict[str, torch.Tensor]:
    return golden_io.load("anovl")


@cache
def backbone() -> Backbone:
    """The golden CLIP with the activation that AnoVL's code runs it with."""
    state = golden_io.load_clip_state()
    config = infer_config(state, name="golden", activation="gelu")
    model = Backbone(config, ClipTokenizer(state["token_embedding.weight"].shape[0]))
    model.load_state_dict(to_ours(state, config))
    return model.freeze()


def build(preset: str, **settings) -> AnoVl:
    return AnoVl(backbone(), AnoVlConfig(preset=preset, **settings))


@cache
def sentences_of(name: str) -> torch.Tensor:
    return build("mvtec").text_vectors([name])[0]


def official_draws(prefix: str) -> Draws:
    """The official run's own random numbers; noise comes as (steps, tiles, rows, columns, E)."""
    values = golden()
    weight, bias = values[f"{prefix}.adapter_init.weight"], values[f"{prefix}.adapter_init.bias"]
    noise = values.get(f"{prefix}.noise", values.get("vl_tta.0.noise"))
    return Draws(weight, bias, noise.flatten(1, 3))


@pytest.mark.parametrize("name", NAMES)
def test_text_vectors(name):
    close(sentences_of(name).T, golden()[f"text.{name}"], **UNIT)


def test_single_sentences():
    method, name = build("mvtec"), MVTEC
    method.text_vectors([name])
    expected = golden()[f"text_list.{name}"]  # (first sentences, E, 2)
    prompts = method._known[name][1].unflatten(0, (2, -1))
    assert prompts.shape[1] == json.loads(golden_io.metadata("anovl")["n_text"])[name][0]
    close(prompts[:, : len(expected)].permute(1, 2, 0), expected, **UNIT)


@torch.no_grad()
def test_mvtec_script_without_adaptation():
    method = build("mvtec", adapt=False)
    values = golden()
    images = torch.cat([values[f"vl.pre.{i}"] for i in range(3)])
    text = method.text_vectors([MVTEC])[0]
    tokens = method.tokens(images)
    size = (images.shape[-2], images.shape[-1])
    scores = method.score(tokens, text, size)
    features = method.patch_features(tokens)
    patches = method.patch_map(features, tokens, text.expand(3, -1, -1))
    per_copy = anovl.cosines(method.backbone.vision.project(tokens.views), text.expand(3, -1, -1)).softmax(-1)[..., 1]
    for i in range(3):
        prefix = f"vl_notta.{i}"
        unit = F.normalize(method.backbone.vision.project(tokens.cls[i]), dim=-1)
        close(unit, values[f"{prefix}.cls_normalised"][0], **UNIT)
        close(features[i], values[f"{prefix}.patch_tokens_ln6"][0], **RAW)
        close(patches[i], values[f"{prefix}.map_tokens"][0], **UNIT)
        close(pool(patches[i : i + 1], 3)[0], values[f"{prefix}.map_tokens_pooled"][0], **UNIT)
        close(scores.anomaly_map[i], values[f"{prefix}.map"][0], **UNIT)
        close(per_copy[i, 0], values[f"{prefix}.score_noaug"], **UNIT)
        close(per_copy[i].sort().values, values[f"{prefix}.score_per_aug_sorted"], **UNIT)
        close(scores.score[i], values[f"{prefix}.score"], **UNIT)


def test_copies_are_as_many_as_the_official_ones():
    copies = augmented_copies(golden()["vl.pre.0"])
    assert (copies.shape[1], *copies.shape[2:]) == tuple(golden()["vl_notta.0.aug_shape"].tolist())
    assert copies.shape[1] == COPIES


def test_mvtec_script_with_adaptation(monkeypatch):
    """Two images in turn with one optimiser state, as the official script runs them."""
    method = build("mvtec", keep_optimiser=True)
    values = golden()
    text = method.text_vectors([MVTEC])[0]
    for i in range(2):
        prefix = f"vl_tta.{i}"
        monkeypatch.setattr(anovl, "draw", lambda *args, prefix=prefix, **rest: official_draws(prefix))
        image = values[f"vl.pre.{i}"]
        with torch.inference_mode():
            scores = method.score_pixels(image, text)
        close(scores.anomaly_map, values[f"{prefix}.map"], **UNIT)
        close(scores.score[0], values[f"{prefix}.score"], **UNIT)


@pytest.mark.parametrize(("preset", "prefix"), [("mvtec", "vl_tta.0"), ("visa", "vis_tta")])
def test_losses_of_each_step(preset, prefix):
    method, values = build(preset), golden()
    text = method.text_vectors([MVTEC if preset == "mvtec" else VISA])
    prompts = method._known[MVTEC][1][None] if preset == "mvtec" else None
    with torch.no_grad():
        tokens = method.tokens(values["vl.pre.0" if preset == "mvtec" else "vis.pre"])
        features = method.patch_features(tokens)
    adapted, losses, _ = adapt(
        features,
        text,
        prompts,
        official_draws(prefix),
        lambda cosine: method.loss_probabilities(cosine, tokens),
        rate=method.config.rate,
    )
    close(losses[:, 0], values[f"{prefix}.losses"], **UNIT)
    patches = method.patch_map(adapted, tokens, text)
    if preset == "mvtec":
        close(patches, values[f"{prefix}.map_tokens"], **UNIT)


@pytest.mark.parametrize("adapted", [False, True])
def test_visa_script(monkeypatch, adapted):
    method, values = build("visa", adapt=adapted), golden()
    prefix = "vis_tta" if adapted else "vis_notta"
    monkeypatch.setattr(anovl, "draw", lambda *args, **rest: official_draws("vis_tta"))
    text = method.text_vectors([VISA])
    wide = values["vis.pre"]
    with torch.inference_mode():
        tokens = method.tokens(wide)
        scores = method.score(tokens, text, (wide.shape[-2], wide.shape[-1]))
        close(scores.anomaly_map, values[f"{prefix}.map"], **UNIT)
        close(scores.score[0], values[f"{prefix}.score"], **UNIT)
        if not adapted:
            pooled = pool(method.patch_map(method.patch_features(tokens), tokens, text), 3)
            whole = anovl.Tiles.whole(tokens.tiles.tile)
            close(upsample_tiles(pooled[0][:, None, None], whole), values[f"{prefix}.tile_maps"], **UNIT)
