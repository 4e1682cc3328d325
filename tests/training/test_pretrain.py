"""Pretraining in miniature: it learns, it resumes, and what it writes can be loaded."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from headclip.clip.backbone import Backbone
from headclip.clip.initialise import grow
from headclip.clip.tokenizer import ClipTokenizer
from headclip.clip.weights import load_backbone, save_backbone
from headclip.data.synthetic.photographs import Photographs
from headclip.errors import InputError
from headclip.training.files import load_torch, save_torch
from headclip.training.pretrain import Pretrainer
from headclip.training.pretrain_config import PretrainConfig
from headclip.training.pretrain_data import RenderStream
from headclip.training.pretrain_losses import contrastive_loss, patch_targets
from tiny_clip import make_config

SIZES = {"early_sizes": ((42, 42),), "late_sizes": ((42, 70), (56, 56))}


def pretrainer(photographs=None, **changes):
    config = make_config("gelu")
    settings = PretrainConfig(**{"images": 32, "batch_size": 4, "warmup": 2, "precision": "fp32", **SIZES, **changes})
    backbone = Backbone(config, ClipTokenizer(config.text.vocab_size))
    return Pretrainer(backbone, settings, photographs=photographs)


def test_batches_depend_on_the_seed_and_the_number_alone():
    def stream(start, seed=1):
        return RenderStream(
            seed=seed,
            batch_size=3,
            early=(2, ((42, 42),)),
            late_sizes=((42, 70),),
            start=start,
            stop=4,
            defect_rate=0.5,
        )

    whole, rest = list(stream(0)), list(stream(2))
    assert [tuple(b.images.shape[-2:]) for b in whole] == [(42, 42), (42, 42), (42, 70), (42, 70)]
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one.images, other.images)
        assert one.captions == other.captions
        assert one.pairs == other.pairs
    assert not torch.equal(whole[0].images, next(iter(stream(0, seed=2))).images)


def test_repeating_one_batch_lowers_every_loss():
    trainer = pretrainer(rate=2e-3)
    batch = RenderStream(
        seed=1, batch_size=8, early=(1, ((56, 56),)), late_sizes=((56, 56),), start=0, stop=1, defect_rate=0.5
    ).batch(0)
    first = trainer.losses(batch)
    for _ in range(25):
        last = trainer.advance(batch)
    assert last.contrast < first.contrast
    assert last.patch < first.patch
    assert last.pair < first.pair


def test_a_stopped_run_resumes_to_the_same_weights(tmp_path):
    whole = pretrainer()
    assert whole.run(tmp_path / "whole", workers=0)
    cut = pretrainer()

    def stop(step, losses):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut.run(tmp_path / "cut", workers=0, progress=stop)
    resumed = pretrainer()
    resumed.restore(tmp_path / "cut" / "state.pt")
    assert resumed.step == 3
    assert resumed.run(tmp_path / "cut", workers=0)
    for name, value in whole.average.items():
        torch.testing.assert_close(value, resumed.average[name], atol=1e-6, rtol=1e-5)
    log = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == whole.config.steps == 8


def test_other_settings_are_not_resumed(tmp_path):
    pretrainer().run(tmp_path, workers=0, stop_seconds=0)
    with pytest.raises(InputError, match=r"other settings \(rate\)"):
        pretrainer(rate=1.0).restore(tmp_path / "state.pt")


def test_a_state_of_before_an_architecture_could_say_more_is_resumed(tmp_path):
    pretrainer().run(tmp_path, workers=0, stop_seconds=0)
    state = load_torch(tmp_path / "state.pt")
    del state["architecture"]["least_side"]
    save_torch(state, tmp_path / "state.pt")
    again = pretrainer()
    again.restore(tmp_path / "state.pt")
    assert again.step == 1


def test_a_stopped_run_can_be_made_longer_or_shorter(tmp_path):
    begun = pretrainer(images=32)
    begun.run(tmp_path, workers=0, stop_seconds=0)
    shorter = pretrainer(images=8)
    shorter.restore(tmp_path / "state.pt")
    assert begun.step == shorter.step == 1
    assert shorter.run(tmp_path, workers=0)
    assert shorter.step == 2


def test_a_run_goes_on_with_the_photographs_it_began_with(tmp_path):
    for number in range(3):
        pixels = np.random.default_rng(number).integers(90, 130, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    photographs = Photographs(tmp_path, 1.0)
    begun = pretrainer(photographs=photographs)
    begun.run(tmp_path / "run", workers=0, stop_seconds=0)
    with pytest.raises(InputError, match="other photographs, or none"):
        pretrainer().restore(tmp_path / "run" / "state.pt")
    goes_on = pretrainer(photographs=photographs)
    goes_on.restore(tmp_path / "run" / "state.pt")
    assert goes_on.run(tmp_path / "run", workers=0)


def test_the_averaged_model_can_be_saved_and_loaded(tmp_path):
    trainer = pretrainer(images=8)
    trainer.run(tmp_path, workers=0)
    model = trainer.averaged_backbone()
    save_backbone(model, tmp_path / "model", torch.float32)
    loaded = load_backbone(str(tmp_path / "model"))
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_the_rate_warms_up_and_falls():
    trainer = pretrainer(images=400, warmup=10)
    rates = [trainer.rate(step) for step in range(100)]
    assert rates[9] == max(rates) == trainer.config.rate
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.05 * trainer.config.rate


def test_patch_targets_are_coverage():
    masks = torch.zeros(1, 28, 28, dtype=torch.bool)
    masks[0, :14, :14] = True
    masks[0, 14:, 14:16] = True
    target = patch_targets(masks, (2, 2))
    torch.testing.assert_close(target[0], torch.tensor([[1.0, 0.0], [0.0, 4 * 2 / 14]]))


def test_equal_captions_are_both_right():
    images = F.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    texts = images.clone()
    texts[1] = texts[0]
    images[1] = images[0]
    loss = contrastive_loss(images, texts, torch.tensor(100.0), ["a", "a", "b"])
    assert loss.item() == pytest.approx(2 / 3 * torch.tensor(2.0).log().item(), abs=0.05)


def test_dice_can_be_left_out():
    batch = RenderStream(
        seed=1, batch_size=4, early=(1, ((56, 56),)), late_sizes=((56, 56),), start=0, stop=1, defect_rate=0.0
    ).batch(0)
    plain, with_dice = pretrainer(dice_weight=0.0).losses(batch).patch, pretrainer().losses(batch).patch
    assert 0 < plain < with_dice  # no picture has a defect, and Dice still asks for lower patches


def test_a_deeper_tower_starts_as_the_shallower_one():
    shallow = pretrainer().backbone
    vision = replace(shallow.config.vision, layers=shallow.config.vision.layers + 2)
    deep = grow(shallow, replace(shallow.config, vision=vision))
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(deep.vision(pixels).cls, shallow.vision(pixels).cls)
    assert deep.vision.blocks[-1].attn.qkv.weight.abs().max() > 0


def test_what_a_tower_cannot_grow_into():
    shallow = pretrainer().backbone
    vision = shallow.config.vision
    with pytest.raises(InputError, match="more than the number of vision layers"):
        grow(shallow, replace(shallow.config, vision=replace(vision, width=2 * vision.width)))
    with pytest.raises(InputError, match="vision layers, more than"):
        grow(shallow, replace(shallow.config, vision=replace(vision, layers=vision.layers - 1)))


def test_a_run_that_diverges_keeps_its_last_sound_weights(tmp_path, monkeypatch):
    trainer = pretrainer()
    losses = trainer.losses

    def diverging(batch):
        found = losses(batch)
        return replace(found, total=found.total * float("nan")) if trainer.step == 2 else found

    monkeypatch.setattr(trainer, "losses", diverging)
    with pytest.raises(InputError, match=r"the gradient is nan in step 3 .*lower the learning rate"):
        trainer.run(tmp_path, workers=0)
    state = load_torch(tmp_path / "state.pt")
    assert state["step"] == 2
    assert all(torch.isfinite(value).all() for value in [*state["model"].values(), *state["average"].values()])


def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(tmp_path, monkeypatch):
    whole = pretrainer()
    whole.run(tmp_path / "whole", workers=0)
    cut = pretrainer()
    first = cut.optimisers[0]
    step, calls = first.step, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return step(*args, **kwargs)

    monkeypatch.setattr(first, "step", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # xdist's processes ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            cut.run(tmp_path / "cut", workers=0)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert cut.step == 3
    resumed = pretrainer()
    resumed.restore(tmp_path / "cut" / "state.pt")
    resumed.run(tmp_path / "cut", workers=0)
    for name, value in whole.average.items():
        torch.testing.assert_close(value, resumed.average[name], atol=1e-6, rtol=1e-5)
