"""CoOp: where its learnt words stand, what teaches them, and how categories enter."""

from __future__ import annotations

import pytest
import torch

from headclip.errors import HeadclipError, InputError
from headclip.methods import create_method
from headclip.methods.coop import CoOp, CoOpConfig
from headclip.training.batches import collate
from headclip.training.sets import SyntheticTrainingSet
from headclip.training.train_config import TrainConfig
from headclip.training.trainer import Trainer
from tiny_clip import make_backbone, make_config

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def backbone():
    return make_backbone(make_config())


@pytest.fixture(scope="module")
def batch():
    data = SyntheticTrainingSet(seed=1, count=8, size=42)
    return collate([data[i] for i in range(8)])


def test_context_of_real_words_gives_the_plain_sentences(backbone):
    """With the embeddings of "a photo of a" as context, the vectors are those of the written sentences."""
    ids = backbone.tokenizer(["a photo of a"])
    words = ids[:, 1 : ids.argmax()]
    method = CoOp(backbone, CoOpConfig(n_context=words.shape[1]))
    with torch.no_grad():
        method.context.copy_(backbone.text.token_embedding(words))
        vectors = method.text_vectors(["bottle", "metal_nut"])
    sentences = [
        f"a photo of a {state} {name}." for name in ("bottle", "metal nut") for state in ("normal", "anomalous")
    ]
    close(vectors.flatten(0, 1), backbone.encode_text(sentences), atol=1e-5, rtol=0)


def test_one_context_or_two(backbone):
    shared, apart = CoOp(backbone), CoOp(backbone, CoOpConfig(shared_context=False))
    assert {name: tuple(p.shape) for name, p in shared.named_parameters()} == {"context": (1, 16, 64)}
    assert apart.context.shape == (2, 16, 64)
    with torch.no_grad():
        apart.context.copy_(shared.context.expand(2, -1, -1))
        close(apart.text_vectors(["a", "b"]), shared.text_vectors(["a", "b"]))
        apart.context[1] += torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
        one, other = apart.text_vectors()[0], shared.text_vectors()[0]
    close(one[0], other[0])
    assert (one[1] - other[1]).abs().max() > 1e-3


def test_only_image_labels_teach_it(backbone, batch):
    losses = Trainer(CoOp(backbone), batch, TrainConfig()).losses(batch)
    assert losses.local == 0
    assert torch.equal(losses.total, losses.image)


def test_the_loss_falls(backbone, batch):
    trainer = Trainer(CoOp(backbone), batch, TrainConfig(rate=1e-2))
    first = trainer.step(batch).total
    for _ in range(8):
        last = trainer.step(batch).total
    assert last < first


def test_categories_of_a_batch_are_used(backbone, batch):
    trainer = Trainer(CoOp(backbone), batch, TrainConfig())
    batch.categories[:] = ["object"] * 8
    plain = trainer.losses(batch).total
    batch.categories[:] = [f"part {i % 3}" for i in range(8)]
    assert trainer.losses(batch).total != plain
    batch.categories[:] = ["object"] * 8
    close(trainer.losses(batch).total, plain)


@pytest.mark.parametrize(
    ("change", "words"), [({"n_context": 0}, "at least 1"), ({"endings": ["bad {}."]}, "two, normal and abnormal")]
)
def test_wrong_settings_say_what_is_right(backbone, change, words):
    with pytest.raises(InputError, match=words):
        create_method("coop", backbone, change)


def test_a_context_that_leaves_no_room(backbone):
    with pytest.raises(HeadclipError, match="does not fit"):
        CoOp(backbone, CoOpConfig(n_context=80)).text_vectors()
