"""AnomalyCLIP: its presets, its kinship with HeadCLIP, and its authors' checkpoint files."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import golden_io
from headclip.clip.backbone import Backbone
from headclip.clip.config import ClipConfig, TextConfig, VisionConfig
from headclip.clip.tokenizer import ClipTokenizer
from headclip.errors import CheckpointError, InputError
from headclip.inference.detector import Detector
from headclip.methods import create_method
from headclip.methods.anomalyclip import AnomalyClip, AnomalyClipConfig
from headclip.methods.checkpoint import load_checkpoint
from headclip.methods.headclip import HeadClip, HeadClipConfig
from headclip.training.batches import collate
from headclip.training.sets import SyntheticTrainingSet
from headclip.training.train_config import TrainConfig
from headclip.training.trainer import Trainer
from parity_models import anomalyclip, golden_backbone, pixels
from tiny_clip import make_backbone, make_config

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def backbone():
    return make_backbone(make_config())


@pytest.fixture(scope="module")
def deep_backbone():
    """As deep as the paper's, and narrow."""
    text = TextConfig(16, 12, 2, vocab_size=700)
    return Backbone(ClipConfig("deep", 8, VisionConfig(32, 24, 2, 14, 28), text), ClipTokenizer(700, 77))


def official_state(deep: int = 1, words: int = 12, tokens: int = 4, width: int = 64) -> dict[str, torch.Tensor]:
    """What a published file holds: prompts, projections that are never called, embeddings of fixed words."""
    generator = torch.Generator().manual_seed(9)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    state = {"ctx_pos": draw(1, 1, words, width), "ctx_neg": draw(1, 1, words, width)}
    for i in range(deep):
        state[f"compound_prompts_text.{i}"] = draw(tokens, width)
        state[f"compound_prompt_projections.{i}.weight"] = draw(896, width)
        state[f"compound_prompt_projections.{i}.bias"] = draw(896)
    for side in ("pos", "neg"):
        state[f"token_prefix_{side}"] = draw(1, 1, 1, width)
        state[f"token_suffix_{side}"] = draw(1, 1, 76 - words, width)
        state[f"tokenized_prompts_{side}"] = torch.zeros(1, 1, 77, dtype=torch.int32)
    return state


def saved(folder, state):
    torch.save({"prompt_learner": state}, folder / "epoch_15.pth")
    return folder / "epoch_15.pth"


def test_presets(deep_backbone):
    official, multi = (AnomalyClip(deep_backbone, AnomalyClipConfig(preset=name)) for name in ("official", "multi"))
    assert (official.csa, official.taps, official.local_weight, official.map_maximum) == ((6, 24), (24,), 4.0, 1.0)
    assert (multi.csa, multi.taps, multi.local_weight, multi.map_maximum) == ((6, 24), (6, 12, 18, 24), 1.0, 4.0)
    assert official.prompts.deep_layers == tuple(range(2, 10))
    assert {name for name, _ in official.named_parameters()} == {
        "prompts.normal_context",
        "prompts.abnormal_context",
        *(f"prompts.deep_tokens.{i}" for i in range(8)),
    }


def test_presets_fit_a_tower_of_any_depth():
    for layers in (1, 2, 3, 6, 12, 13, 32):
        config = make_config()
        vision = VisionConfig(128, layers, 2, 14, 42)
        small = Backbone(ClipConfig("any", 48, vision, config.text), ClipTokenizer(700))
        for preset in ("official", "multi"):
            method = AnomalyClip(small, AnomalyClipConfig(preset=preset))
            assert method.taps[-1] == layers
            assert method.csa[1] == layers


def test_it_is_headclip_without_head_weights_and_joint_score(backbone):
    """The same settings, spelt out for HeadCLIP, give the same numbers, first values of the prompts included."""
    images = torch.randn(2, 3, 42, 56, generator=torch.Generator().manual_seed(5))
    method = AnomalyClip(backbone, AnomalyClipConfig(preset="multi"))
    twin = HeadClip(
        backbone,
        HeadClipConfig(
            csa_layers=method.csa,
            aggregation="taps",
            taps=method.taps,
            tap_fusion="sum",
            head_weights=False,
            deep_half=True,
            alpha=0.0,
        ),
    )
    with torch.no_grad():
        one, other = method.score_pixels(images), twin.score_pixels(images)
    assert torch.equal(one.anomaly_map, other.anomaly_map)
    assert torch.equal(one.score, other.score)
    assert torch.equal(one.score, one.global_score)


@pytest.mark.parametrize(
    "change",
    [{"preset": "multi"}, {"similarity": "qq"}, {"similarity": "kk"}, {"n_context": 6}, {"sigma": 0.0}],
    ids=str,
)
def test_settings_change_the_map(backbone, change):
    images = torch.randn(1, 3, 42, 42, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        one, other = (create_method("anomalyclip", backbone, c).score_pixels(images) for c in ({}, change))
    assert (one.anomaly_map - other.anomaly_map).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"preset": "best"}, "official, multi"),
        ({"similarity": "qk"}, "vv, qq or kk"),
        ({"taps": [0]}, "from 1 to 3"),
        ({"taps": [2, 2]}, "different layers"),
        ({"csa_layers": [1, 2], "taps": [3]}, "cannot be tapped"),
        ({"deep_layers": [3]}, "the text tower has 2"),
    ],
)
def test_wrong_settings_say_what_is_right(backbone, change, words):
    with pytest.raises(InputError, match=words):
        create_method("anomalyclip", backbone, change)


def test_an_official_checkpoint(backbone, tmp_path):
    state = official_state()
    method, info = load_checkpoint(saved(tmp_path, state), backbone)
    assert isinstance(method, AnomalyClip)
    assert (info.method, info.training, info.backbone_hash) == ("anomalyclip", {"source": "official"}, backbone.hash)
    assert torch.equal(method.prompts.normal_context, state["ctx_pos"][0, 0])
    assert torch.equal(method.prompts.abnormal_context, state["ctx_neg"][0, 0])
    assert torch.equal(method.prompts.deep_tokens[0], state["compound_prompts_text.0"])
    assert method.prompts.deep_layers == (2,)


def test_an_official_checkpoint_of_other_lengths(backbone, tmp_path):
    method, _ = load_checkpoint(saved(tmp_path, official_state(words=7, tokens=2)), backbone, {"preset": "multi"})
    assert method.prompts.normal_context.shape == (7, 64)
    assert method.prompts.deep_tokens[0].shape == (2, 64)
    assert method.config.preset == "multi"
    assert load_checkpoint(saved(tmp_path, official_state(deep=0)), backbone)[0].prompts.deep_layers == ()


@pytest.mark.parametrize("preset", ["official", "multi"])
def test_kept_features_give_the_same_loss(backbone, preset):
    data = SyntheticTrainingSet(seed=1, count=4, size=42)
    batch = replace(collate([data[i] for i in range(4)]), numbers=[0, 1, 2, 3])
    losses = []
    for keep in (False, True):
        method = AnomalyClip(backbone, AnomalyClipConfig(preset=preset))
        losses.append(Trainer(method, data, TrainConfig(keep_features=keep)).losses(batch).total)
    close(losses[0], losses[1], atol=1e-4, rtol=1e-4)


def test_a_detector_takes_an_official_checkpoint(tmp_path, recwarn):
    path = saved(tmp_path, official_state())
    detector = Detector(make_backbone(make_config()), path, device="cpu", image_size=42, settings={"alpha": 0.25})
    assert detector.method.name == "anomalyclip"
    assert detector.describe()["config"]["alpha"] == 0.25
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("ctx_neg"), "no ctx_neg"),
        (lambda s: s.update(ctx_pos=torch.zeros(12, 64)), r"ctx_pos has shape \(12, 64\)"),
        (lambda s: s.update(ctx_neg=torch.zeros(1, 1, 5, 64)), "differ in shape"),
        (lambda s: s.update({"compound_prompts_text.2": torch.zeros(4, 64)}), r"\[0, 2\]; some are missing"),
        (lambda s: s.update({"compound_prompts_text.0": torch.zeros(4, 32)}), r"should have shape \(4, 64\)"),
        (lambda s: s.update({"compound_prompts_text.1": torch.zeros(4, 64)}), "the text tower has 2"),
        (lambda s: s.update(official_state(width=768)), "768 wide.*64 wide.*ViT-L-14-336"),
    ],
)
def test_bad_official_checkpoints_say_what_is_wrong(backbone, tmp_path, change, words):
    state = official_state()
    change(state)
    with pytest.raises(CheckpointError, match=rf"(?s)epoch_15\.pth.*{words}"):
        load_checkpoint(saved(tmp_path, state), backbone)


@pytest.mark.parametrize("setting", [{"n_context": 5}, {"deep_layers": []}])
def test_settings_cannot_contradict_an_official_checkpoint(backbone, tmp_path, setting):
    with pytest.raises(CheckpointError, match="leave those settings out"):
        load_checkpoint(saved(tmp_path, official_state()), backbone, setting)


@pytest.mark.parity
def test_golden_prompts_through_the_official_file(tmp_path):
    """The golden prompts, written as the authors write them, give the golden text vectors, map and score."""
    golden, config = golden_io.load("anomalyclip"), golden_io.config()
    tower = golden_backbone()
    state = {key: value for key, value in golden.items() if key.startswith(("ctx_", "compound_", "tokenized_"))}
    wanted = {"taps": config["last"], "csa_layers": [config["dual_blocks_1based"][0], config["vision_layers"]]}
    method, _ = load_checkpoint(saved(tmp_path, state), tower, wanted)
    direct, size = anomalyclip(tower, "last"), config["eval_sizes"][-1]
    with torch.no_grad():
        close(method.text_vectors(), golden["text.features"], atol=1e-5, rtol=0)
        scores, same = method.score_pixels(pixels(size)), direct.score_pixels(pixels(size))
    close(scores.anomaly_map, golden[f"s{size}.last.map_smooth"], atol=2e-5, rtol=0)
    close(scores.score, golden[f"s{size}.last.image_score"], atol=1e-5, rtol=0)
    assert torch.equal(scores.anomaly_map, same.anomaly_map)
