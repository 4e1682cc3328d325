"""Learning from a teacher in miniature: its tokens are a DINOv2's, they are learnt, and a run with one resumes."""

from __future__ import annotations

import pytest
import torch

from headclip.clip.backbone import Backbone
from headclip.clip.tokenizer import ClipTokenizer
from headclip.clip.weights import load_backbone, save_backbone
from headclip.errors import InputError
from headclip.training.pretrain import Pretrainer
from headclip.training.pretrain_config import PretrainConfig, read_recipe
from headclip.training.pretrain_data import RenderStream
from headclip.training.teacher import MEAN, STD, Teacher
from tiny_clip import make_config

SIZES = {"early_sizes": ((42, 42),), "late_sizes": ((42, 70), (56, 56))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=7
    )
    path = tmp_path_factory.mktemp("teacher")
    transformers.Dinov2Model(config).save_pretrained(path)
    return path


def pretrainer(folder, teacher=True, **changes):
    config = make_config("gelu")
    settings = {"images": 32, "batch_size": 4, "warmup": 2, "precision": "fp32", "teacher_blocks": (1, 3), **SIZES}
    settings |= changes
    return Pretrainer(
        Backbone(config, ClipTokenizer(config.text.vocab_size)),
        PretrainConfig(**settings),
        teacher=Teacher(folder, settings["teacher_blocks"], torch.float32) if teacher else None,
    )


def test_tokens_are_those_of_the_model_itself(folder):
    from transformers import Dinov2Model

    images = torch.randint(0, 256, (2, 3, 28, 42), dtype=torch.uint8)
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    whole = Dinov2Model.from_pretrained(folder).eval()
    with torch.no_grad():
        states = whole((images / 255 - mean) / std, output_hidden_states=True).hidden_states
    tokens = Teacher(folder, (1, 3), torch.float32).raw(images, (4, 6))  # 7 px a patch: the size stays
    torch.testing.assert_close(tokens, torch.cat([states[1], states[3]], dim=-1))


def test_channels_are_standardised(folder):
    teacher = Teacher(folder, (2,), torch.float32)
    images = torch.randint(0, 256, (40, 3, 28, 28), dtype=torch.uint8)
    teacher.standardise(images, (4, 4))
    patches = teacher(images, (4, 4)).patches
    torch.testing.assert_close(patches.mean((0, 1)), torch.zeros(24), atol=1e-4, rtol=0)
    torch.testing.assert_close(patches.flatten(0, 1).std(0), torch.ones(24), atol=1e-3, rtol=0)


def test_its_tokens_are_learnt(folder):
    trainer = pretrainer(folder, rate=2e-3)
    batch = RenderStream(
        seed=1, batch_size=8, early=(1, ((56, 56),)), late_sizes=((56, 56),), start=0, stop=1, defect_rate=0.5
    ).batch(0)
    first = trainer.losses(batch)
    for _ in range(25):
        last = trainer.advance(batch)
    assert last.teacher < 0.9 * first.teacher


def test_a_stopped_run_resumes_to_the_same_weights(folder, tmp_path):
    whole = pretrainer(folder)
    assert whole.run(tmp_path / "whole", workers=0)
    cut = pretrainer(folder)
    cut.run(tmp_path / "cut", workers=0, stop_seconds=0)
    assert cut.step == 1
    resumed = pretrainer(folder)
    resumed.restore(tmp_path / "cut" / "state.pt")
    assert resumed.run(tmp_path / "cut", workers=0)
    for name, value in whole.average.items():
        torch.testing.assert_close(value, resumed.average[name], atol=2e-5, rtol=1e-4)


def test_a_run_goes_on_as_it_began(folder, tmp_path):
    pretrainer(folder).run(tmp_path, workers=0, stop_seconds=0)
    with pytest.raises(InputError, match="with a teacher"):
        pretrainer(folder, teacher=False).restore(tmp_path / "state.pt")


def test_what_is_saved_holds_nothing_of_it(folder, tmp_path):
    trainer = pretrainer(folder, images=8)
    trainer.run(tmp_path, workers=0)
    save_backbone(trainer.averaged_backbone(), tmp_path / "model", torch.float32)
    plain = Backbone(make_config("gelu")).state_dict()
    assert load_backbone(tmp_path / "model").state_dict().keys() == plain.keys()


def test_wrong_teachers_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        Teacher(tmp_path, (1,))
    with pytest.raises(InputError, match="3 blocks"):
        Teacher(folder, (1, 4))


def test_recipes(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text('{"images": 96, "early_sizes": [[32, 48]], "teacher_blocks": [2]}', encoding="utf-8")
    config = read_recipe(path, images=None, rate=0.5)
    assert (config.images, config.rate, config.early_sizes, config.teacher_blocks) == (96, 0.5, ((32, 48),), (2,))
    path.write_text('{"image": 96}', encoding="utf-8")
    with pytest.raises(InputError, match="no such setting: image;"):
        read_recipe(path)
    path.write_text("images = 3", encoding="utf-8")
    with pytest.raises(InputError, match="cannot read the recipe"):
        read_recipe(path)


def test_the_rate_holds_before_it_decays(folder):
    trainer = pretrainer(folder, images=400, batch_size=4, warmup=10, decay_share=0.4)
    rates = [trainer.rate(step) for step in range(100)]
    assert set(rates[10:60]) == {trainer.config.rate}
    assert rates[60:] == sorted(rates[60:], reverse=True)
    assert rates[-1] < 0.05 * trainer.config.rate
