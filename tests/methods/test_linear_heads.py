"""Linear heads: their size, what they read, and that they need no language."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from headclip.clip.backbone import Backbone
from headclip.clip.config import ClipConfig, VisionConfig
from headclip.errors import InputError
from headclip.methods import create_method
from headclip.methods.linear_heads import LinearHeads, LinearHeadsConfig
from headclip.training.batches import collate
from headclip.training.sets import SyntheticTrainingSet
from headclip.training.train_config import TrainConfig
from headclip.training.trainer import Trainer
from tiny_clip import make_backbone, make_config

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def backbone():
    return make_backbone(make_config(text=False))


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 42, 56, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("space", "count"), [("projected", 15_360), ("tokens", 20_480)])
def test_fifteen_to_twenty_thousand_numbers_on_vit_large(space, count):
    with torch.device("meta"):
        large = Backbone(ClipConfig("large", 768, VisionConfig(1024, 24, 16, 14, 336), None))
    method = LinearHeads(large, LinearHeadsConfig(space=space))
    assert method.taps == (8, 12, 16, 20, 24)
    assert sum(parameter.numel() for parameter in method.parameters()) == count


def test_no_text_is_read(backbone, images):
    method = LinearHeads(backbone)
    assert method.text_vectors(["bottle"]).shape == (1, 2, 0)
    with torch.no_grad():
        scores = method.score_pixels(images)
    assert scores.anomaly_map.shape == (2, 42, 56)


def test_each_layer_and_task_has_heads_of_its_own(backbone, images):
    """A patch head moves the map of its layer alone; an image head moves the score and no map."""
    method = LinearHeads(backbone)
    assert method.image_heads.shape == method.patch_heads.shape == (3, 2, 48)
    text = method.text_vectors()[0]
    with torch.no_grad():
        tokens = method.tokens(images)
        maps, logits = method.patch_probabilities(tokens, text), method.image_logits(tokens, text)
        method.patch_heads[1].neg_()
        moved = method.patch_probabilities(tokens, text)
        assert [torch.equal(a, b) for a, b in zip(maps, moved, strict=True)] == [True, False, True]
        assert torch.equal(method.image_logits(tokens, text), logits)
        method.image_heads[0].neg_()
        assert not torch.equal(method.image_logits(tokens, text), logits)
        assert all(torch.equal(a, b) for a, b in zip(method.patch_probabilities(tokens, text), moved, strict=True))


def test_logits_are_cosines_of_the_towers_own_tokens(backbone, images):
    method = LinearHeads(backbone)
    with torch.no_grad():
        tokens = method.tokens(images)
        ours = method.image_logits(tokens, method.text_vectors()[0])
        expected = []
        for index, tap in enumerate(method.taps):
            cls = backbone.vision.project(tokens.local[tap][:, 0])
            expected.append(F.cosine_similarity(cls[:, None], method.image_heads[index][None], dim=-1) / 0.07)
    close(ours, torch.stack(expected).mean(dim=0), atol=1e-5, rtol=0)
    close(tokens.local[3][:, 0], tokens.cls)  # the last tap's CLS token is that of the whole tower


def test_the_length_of_a_head_does_not_matter(backbone, images):
    method = LinearHeads(backbone)
    with torch.no_grad():
        before = method.score_pixels(images)
        method.image_heads.mul_(7)
        method.patch_heads.mul_(0.1)
        after = method.score_pixels(images)
    close(before.anomaly_map, after.anomaly_map)
    close(before.score, after.score)


def test_heads_of_a_seed_differ_by_task(backbone):
    method, again, other = (
        LinearHeads(backbone),
        LinearHeads(backbone),
        LinearHeads(backbone, LinearHeadsConfig(seed=1)),
    )
    assert torch.equal(method.image_heads, again.image_heads)
    assert not torch.equal(method.image_heads, other.image_heads)
    assert not torch.equal(method.image_heads, method.patch_heads)


def test_every_layer_has_a_loss_and_they_fall(backbone):
    data = SyntheticTrainingSet(seed=1, count=8, size=42)
    batch = collate([data[i] for i in range(8)])
    trainer = Trainer(LinearHeads(backbone), batch, TrainConfig(rate=1e-2))
    first = trainer.step(batch)
    tokens = trainer.method.tokens(torch.randn(1, 3, 42, 42))
    assert len(trainer.method.pixel_maps(tokens, torch.zeros(2, 0), (42, 42))) == 3
    for _ in range(10):
        last = trainer.step(batch)
    assert last.local < first.local
    assert last.image < first.image


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"taps": [4]}, "from 1 to 3"),
        ({"taps": [1, 1]}, "different layers"),
        ({"space": "pixels"}, "projected or tokens"),
        ({"csa_layers": [1, 2], "taps": [3]}, "cannot be tapped"),
    ],
)
def test_wrong_settings_say_what_is_right(backbone, change, words):
    with pytest.raises(InputError, match=words):
        create_method("linear_heads", backbone, change)


def test_the_local_stream_is_an_option(backbone, images):
    with torch.no_grad():
        plain, local = (
            LinearHeads(backbone, LinearHeadsConfig(csa_layers=csa, taps=(2, 3))).score_pixels(images)
            for csa in (None, (2, 3))
        )
    assert (plain.anomaly_map - local.anomaly_map).abs().max() > 1e-5
