"""AdaCLIP's own parts: prompts, clusters, fusion, official files. test_registry.py holds what every method promises."""

from __future__ import annotations

import sys

import pytest
import torch

from headclip.clip.vision import VisionRequest
from headclip.errors import CheckpointError, InputError
from headclip.methods.adaclip import AdaClip, AdaClipConfig
from headclip.methods.adaclip_fusion import fuse_clusters, kmeans, mean_of_members, semantic_vector
from headclip.methods.base import create_method
from headclip.methods.checkpoint import load_checkpoint
from headclip.training.batches import Batch
from headclip.training.train_config import TrainConfig
from headclip.training.trainer import Trainer
from tiny_clip import make_backbone, make_config

close = torch.testing.assert_close
OFFICIAL = {  # our names -> the authors'
    "vision_prompts.static.": "visual_prompter.static_prompts.",
    "text_prompts.static.": "text_prompter.static_prompts.",
    "vision_prompts.generators.": "dynamic_visual_prompt_generator.head.",
    "text_prompts.generators.": "dynamic_text_prompt_generator.head.",
    "patch_heads.": "patch_token_layer.head.",
    "image_head.": "cls_token_layer.head.0.",
}


@pytest.fixture(scope="module")
def backbone():
    return make_backbone(make_config())


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 56, 42, generator=torch.Generator().manual_seed(5))


def points(images: int, count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(images, count, width, generator=torch.Generator().manual_seed(seed))


def spread(values: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum of squared distances to the centres of the labels, for one image."""
    means, _ = mean_of_members(values[None], labels[None], int(labels.max()) + 1)
    return float((values - means[0][labels]).square().sum())


# --- clusters


def test_kmeans_finds_separate_groups():
    centres = 20 * torch.eye(4)
    truth = torch.arange(40) % 4
    values = centres[truth] + 0.1 * points(1, 40, 4)[0]
    labels = kmeans(values[None], 4)[0]
    pairs = set(zip(truth.tolist(), labels.tolist(), strict=True))
    assert len(pairs) == 4
    assert {label for _, label in pairs} == {0, 1, 2, 3}


def test_kmeans_does_not_depend_on_the_company():
    values = points(3, 30, 8)
    together = kmeans(values, 5)
    for image, labels in zip(values, together, strict=True):
        assert torch.equal(kmeans(image[None], 5)[0], labels)
    assert torch.equal(kmeans(values, 5), together)


def test_kmeans_reaches_a_fixed_point():
    values = points(2, 40, 6)
    labels = kmeans(values, 7)
    means, counts = mean_of_members(values, labels, 7)
    assert counts.min() >= 1
    assert torch.equal(torch.cdist(values, means).argmin(dim=2), labels)


def test_kmeans_is_as_good_as_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster")
    ours = theirs = 0.0
    for seed in range(4):
        values = points(1, 100, 12, seed)[0]
        ours += spread(values, kmeans(values[None], 10, seed=seed)[0])
        found = cluster.KMeans(10, n_init="auto", random_state=seed).fit_predict(values.numpy())
        theirs += spread(values, torch.from_numpy(found).long())
    assert ours < 1.03 * theirs


def test_points_that_coincide_leave_clusters_empty():
    values = torch.ones(1, 6, 3)
    values[:, 4:] = 2.0
    labels = kmeans(values, 4)
    assert len(labels.unique()) == 2
    assert len(labels[0, :4].unique()) == len(labels[0, 4:].unique()) == 1
    fused = fuse_clusters([values], labels, 4)
    close(fused, torch.full((1, 3), 3**-0.5))


def test_more_clusters_than_points_are_refused():
    with pytest.raises(InputError, match="3 points cannot form 4 clusters"):
        kmeans(points(1, 3, 2), 4)


def test_each_cluster_counts_alike():
    """Three equal patches and a single other one: the mean of the two kinds, not of the four patches."""
    patches = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    vector = semantic_vector([patches], torch.ones(1, 4), 2)
    close(vector, torch.full((1, 2), 0.5**0.5))


def test_the_most_anomalous_patches_alone_are_clustered():
    patches = points(1, 30, 4)
    anomaly = torch.zeros(1, 30)
    anomaly[0, 7:17] = torch.linspace(0.5, 0.9, 10)
    close(semantic_vector([patches], anomaly, 2), semantic_vector([patches[:, 7:17]], anomaly[:, 7:17], 2))


def test_gradients_reach_features_through_the_clusters():
    patches = points(2, 12, 4).requires_grad_()
    semantic_vector([patches], torch.rand(2, 12), 3)[:, 0].sum().backward()
    assert (patches.grad.abs().sum(dim=2) > 0).all()


def test_scikit_learn_is_asked_for_by_name(monkeypatch, backbone, pixels):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    method = create_method("adaclip", backbone, {"clustering": "sklearn"})
    with torch.no_grad(), pytest.raises(InputError, match=r"needs scikit-learn.*'torch' needs nothing"):
        method.score_pixels(pixels)


# --- prompts


def test_without_prompts_the_tower_is_plain_clip(backbone, pixels):
    method = AdaClip(backbone, AdaClipConfig(vision_prompts=False, text_prompts=False, activation=None))
    plain = backbone.vision(pixels, VisionRequest(taps=method.taps, interpolation="bicubic"))
    with torch.no_grad():
        tokens = method.tokens(pixels)
    close(tokens.cls, plain.cls)
    for tap in method.taps:
        close(tokens.local[tap], plain.local[tap])
    text = method.text_vectors(["bottle"])
    close(method.image_text(tokens, text[0]), text.expand(2, -1, -1))


def test_prompt_tokens_never_show_in_the_taps(backbone, pixels):
    method = AdaClip(backbone)
    tokens = method.tokens(pixels)
    assert tokens.grid == (4, 3)
    assert all(tokens.local[tap].shape == (2, 13, 128) for tap in method.taps)


def test_dynamic_prompts_differ_between_images(backbone, pixels):
    dynamic = AdaClip(backbone)
    tokens = dynamic.tokens(pixels)
    found = dynamic.image_text(tokens, dynamic.text_vectors()[0])
    assert (found[0] - found[1]).abs().max() > 1e-4
    static = AdaClip(backbone, AdaClipConfig(dynamic=False))
    found = static.image_text(static.tokens(pixels), static.text_vectors()[0])
    assert torch.equal(found[0], found[1])


def test_static_text_vectors_carry_gradients(backbone):
    method = AdaClip(backbone, AdaClipConfig(dynamic=False))
    method.text_vectors(["bottle", "wood"]).sum().backward()
    assert all((tokens.grad != 0).any() for tokens in method.text_prompts.static)


@pytest.mark.parametrize("settings", [{}, {"static": False}, {"dynamic": False}, {"vision_prompts": False}])
def test_every_parameter_learns(backbone, settings):
    method = create_method("adaclip", backbone, settings)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 42, 42), generator=generator, dtype=torch.uint8)
    masks = torch.rand(2, 42, 42, generator=generator) > 0.8
    batch = Batch(images, masks, torch.tensor([1, 0]), torch.tensor([True, True]), ["bottle", "wood"])
    Trainer(method, batch, TrainConfig()).losses(batch).total.backward()
    still = [name for name, value in method.trainable().items() if value.grad is None or not (value.grad != 0).any()]
    assert not still


def test_the_activation_is_the_methods_not_the_backbones(pixels):
    """Same weights: quick_gelu backbone told to use gelu equals a gelu backbone left alone."""
    quick, plain = (make_backbone(make_config(activation)) for activation in ("quick_gelu", "gelu"))
    with torch.no_grad():
        told, own, other = (
            AdaClip(towers, AdaClipConfig(activation=activation)).score_pixels(pixels)
            for towers, activation in ((quick, "gelu"), (plain, None), (quick, None))
        )
    close(told.anomaly_map, own.anomaly_map)
    close(told.score, own.score)
    assert (told.anomaly_map - other.anomaly_map).abs().max() > 1e-4


def test_names_keep_underscores_unless_told(backbone):
    kept, spaced = AdaClip(backbone), AdaClip(backbone, AdaClipConfig(underscores=False))
    normal, abnormal = kept.sentences("metal_nut-x")
    assert (len(normal), len(abnormal)) == (28, 20)
    assert normal[0] == "a bad photo of a metal_nut x."
    assert spaced.sentences("metal_nut-x")[1][-1] == "a cropped photo of the metal nut x with damage."


def test_text_vectors_of_somebody_else_are_refused(backbone, pixels):
    method = AdaClip(backbone)
    tokens = method.tokens(pixels)
    with pytest.raises(InputError, match="give `score` what its text_vectors gave"):
        method.score(tokens, torch.randn(2, 48), (56, 42))
    with pytest.raises(InputError, match="3 categories were given for 2 images"):
        method.score(tokens, method.text_vectors(["a", "b", "c"]), (56, 42))
    plain = backbone.vision(pixels, method.request)
    with pytest.raises(InputError, match="take tokens from its own"):
        method.score(plain, method.text_vectors()[0], (56, 42))


def test_prompts_longer_than_a_sentence_are_refused(backbone, pixels):
    method = AdaClip(backbone, AdaClipConfig(length=40))
    with torch.no_grad(), pytest.raises(InputError, match="prompts of 40 tokens would overwrite the end"):
        method.score_pixels(pixels)


def test_fusion_may_be_switched_off_or_given_no_share(backbone, pixels):
    with torch.no_grad():
        off, none, full = (
            AdaClip(backbone, AdaClipConfig(**settings)).score_pixels(pixels)
            for settings in ({"fusion": False}, {"fusion_share": 0.0}, {"fusion_share": 1.0})
        )
    close(off.score, none.score)
    assert torch.equal(off.anomaly_map, full.anomaly_map)
    assert (off.score - full.score).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"static": False, "dynamic": False}, "static, dynamic or both"),
        ({"length": 0}, "at least 1 token"),
        ({"depth": 0}, "at least 1 layer"),
        ({"depth": 3}, r"prompts in 3 layers do not fit towers of 3 \(vision\) and 2 \(text\)"),
        ({"taps": [2, 2]}, "different layers from 1 to 3"),
        ({"taps": []}, "different layers from 1 to 3"),
        ({"clusters": 0}, "at least 1"),
        ({"clustering": "dbscan"}, "torch or sklearn"),
        ({"activation": "relu"}, "quick_gelu, gelu"),
        ({"fusion_share": 1.5}, r"in \[0, 1\]"),
        ({"temperature": 0}, "must be positive"),
        ({"sigma": -1}, "must not be negative"),
    ],
)
def test_wrong_settings(backbone, settings, message):
    with pytest.raises(InputError, match=message):
        create_method("adaclip", backbone, settings)


# --- official files


def official(method: AdaClip, prefix: str = "clip_model.") -> dict[str, torch.Tensor]:
    """What the authors' code would have saved; their first text set is there and unused."""
    content = {}
    for name, value in method.state_dict().items():
        ours = next(start for start in OFFICIAL if name.startswith(start))
        rest = name.removeprefix(ours)
        if ours == "text_prompts.static.":
            rest = str(int(rest) + 1)
        content[prefix + OFFICIAL[ours] + rest] = value.clone()
    content[f"{prefix}text_prompter.static_prompts.0"] = torch.zeros(method.config.length, 64)
    return content


@pytest.fixture
def trained(backbone):
    config = AdaClipConfig(depth=2, length=3, taps=(1, 3), activation="gelu", prompt_half=True, seed=9)
    return AdaClip(backbone, config)


@pytest.mark.parametrize("prefix", ["", "clip_model.", "module.clip_model."])
def test_official_files_are_read(backbone, pixels, trained, prefix, tmp_path):
    torch.save(official(trained, prefix), tmp_path / "official.pth")
    loaded, info = load_checkpoint(tmp_path / "official.pth", backbone, {"taps": [1, 3]})
    assert info.method == "adaclip"
    assert (loaded.config.depth, loaded.config.length, loaded.config.activation) == (2, 3, "gelu")
    ours = dict(trained.named_parameters())
    for name, value in loaded.named_parameters():
        assert torch.equal(value, ours[name]), name
    with torch.no_grad():
        one, other = trained.score_pixels(pixels), loaded.score_pixels(pixels)
    torch.testing.assert_close(one.anomaly_map, other.anomaly_map, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.score, other.score, rtol=1e-5, atol=1e-9)


def test_official_files_of_one_tower(backbone, tmp_path):
    """The authors save both towers' generators even where only one tower has prompts."""
    method = AdaClip(backbone, AdaClipConfig(depth=2, length=3, taps=(1, 3)))
    content = {key: value for key, value in official(method).items() if "text_prompter" not in key}
    loaded = AdaClip.from_official(content, backbone, {"taps": (1, 3)})
    assert loaded.text_prompts is None
    assert loaded.vision_prompts.layers == (1, 2)


def test_other_files_are_not_taken_for_official(backbone):
    assert AdaClip.from_official({"prompt_learner": {"ctx_pos": torch.zeros(1)}}, backbone) is None
    assert AdaClip.from_official({1: torch.zeros(1), "weights": [1, 2]}, backbone) is None


def test_official_files_that_do_not_fit(backbone, trained):
    content, settings = official(trained), {"taps": (1, 3)}
    with pytest.raises(CheckpointError, match="projections for 2 layers, but 3 are tapped"):
        AdaClip.from_official(content, backbone)
    broken = {key: value for key, value in content.items() if "cls_token_layer.head.0.bias" not in key}
    with pytest.raises(CheckpointError, match=r"lacks .*image_head\.bias"):
        AdaClip.from_official(broken, backbone, settings)
    wide = {key: torch.zeros(2, *value.shape) if "cls_token" in key else value for key, value in content.items()}
    with pytest.raises(CheckpointError, match=r"image_head\.bias has shape \(2, 48\), but on 'tiny' .* \(48,\)"):
        AdaClip.from_official(wide, backbone, settings)
    extra = content | {"clip_model.visual_prompter.static_prompts.7": torch.zeros(3, 128)}
    with pytest.raises((CheckpointError, InputError)):
        AdaClip.from_official(extra, backbone, settings)
