"""Training: what moves, what must not, resuming, and folders as training sets."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from headclip.errors import InputError
from headclip.methods.checkpoint import load_checkpoint
from headclip.methods.headclip import HeadClip, HeadClipConfig
from headclip.training.losses import joint_loss, local_loss
from headclip.training.sets import FolderTrainingSet, SyntheticTrainingSet
from headclip.training.trainer import TrainConfig, Trainer, log_path, state_path
from tiny_clip import make_backbone, make_config

SIZE = 42


@pytest.fixture
def backbone():
    return make_backbone(make_config())


@pytest.fixture(scope="module")
def rendered():
    return SyntheticTrainingSet(seed=1, count=20, size=SIZE)


def trainer(backbone, data, **changes):
    config = TrainConfig(**{"epochs": 2, "batch_size": 8, **changes})
    return Trainer(HeadClip(backbone, HeadClipConfig(sigma=1.0)), data, config)


def test_towers_stay_and_every_head_moves(backbone, rendered, tmp_path):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    run = trainer(backbone, rendered)
    first = {name: value.detach().clone() for name, value in run.method.trainable().items()}
    run.run(tmp_path / "a.safetensors")
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    after = run.method.trainable()
    assert (after["head_weight"] != first["head_weight"]).all()
    assert all((after[name] != first[name]).any() for name in first)


def test_losses_fall(backbone, rendered, tmp_path):
    trainer(backbone, rendered, epochs=6, rate=5e-3).run(tmp_path / "a.safetensors")
    log = [json.loads(line) for line in log_path(tmp_path / "a.safetensors").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2, 3, 4, 5, 6]
    assert log[-1]["total"] < log[0]["total"]


def test_kept_features_train_to_nearly_the_same(rendered, tmp_path):
    plain = trainer(make_backbone(make_config()), rendered, epochs=3)
    kept = trainer(make_backbone(make_config()), rendered, epochs=3, keep_features=True)
    passes = []
    vision = kept.method.backbone.vision
    forward = vision.forward
    vision.forward = lambda *arguments: passes.append(1) or forward(*arguments)
    plain.run(tmp_path / "plain.safetensors")
    kept.run(tmp_path / "kept.safetensors")
    assert len(passes) == kept.batches, "the tower must run once an image"
    for name, value in plain.method.state_dict().items():
        torch.testing.assert_close(kept.method.state_dict()[name], value, atol=3e-3, rtol=0.02)
    first, other = (
        json.loads(log_path(tmp_path / f"{n}.safetensors").read_text().splitlines()[-1]) for n in ("plain", "kept")
    )
    assert other["total"] == pytest.approx(first["total"], rel=1e-3)


class StopError(Exception):
    pass


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_stopped_run_resumes_to_the_same_parameters(rendered, tmp_path, steps):
    whole = trainer(make_backbone(make_config()), rendered)
    whole.run(tmp_path / "whole.safetensors")
    out, seen = tmp_path / "cut.safetensors", []

    def stop(progress):
        seen.append(progress)
        if len(seen) > steps:
            raise StopError

    with pytest.raises(StopError):
        trainer(make_backbone(make_config()), rendered).run(out, save_seconds=0, progress=stop)
    assert not out.exists()
    resumed = trainer(make_backbone(make_config()), rendered)
    resumed.restore(state_path(out))
    assert (resumed.epoch - 1) * resumed.batches + resumed.batch == steps
    resumed.run(out)
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[name]), name
    logs = [
        [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in log_path(p).read_text().splitlines()]
        for p in (tmp_path / "whole.safetensors", out)
    ]
    assert logs[0] == logs[1]
    assert not state_path(out).exists()


def test_resume_with_other_settings_is_refused(backbone, rendered, tmp_path):
    out = tmp_path / "a.safetensors"

    def stop(progress):
        raise StopError

    run = trainer(backbone, rendered)
    with pytest.raises(StopError):
        run.run(out, save_seconds=-1, progress=lambda p: stop(p) if p.batch > 1 else None)
    with pytest.raises(InputError, match="training differ"):
        trainer(backbone, rendered, rate=1.0).restore(state_path(out))


def test_checkpoint_says_where_it_came_from(backbone, rendered, tmp_path):
    info = trainer(backbone, rendered, epochs=1).run(tmp_path / "a.safetensors")
    assert info.data["name"] == "synthetic"
    assert info.data["images"] == 20
    assert info.training["seed"] == 111
    method, again = load_checkpoint(tmp_path / "a.safetensors", backbone)
    assert again.data == info.data
    assert isinstance(method, HeadClip)


def save_image(path, value, mask=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 60, 3), value, np.uint8) if mask is None else mask).save(path)


@pytest.fixture
def mvtec(tmp_path):
    root = tmp_path / "widgets"
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:50] = 255
    for i in range(3):
        save_image(root / "test" / "good" / f"{i}.png", 100 + i)
        save_image(root / "test" / "bent" / f"{i}.png", 180 + i)
        save_image(root / "ground_truth" / "bent" / f"{i}_mask.png", 0, mask)
    return root


def test_folder_set(mvtec, backbone, tmp_path):
    data = FolderTrainingSet(mvtec, SIZE)
    assert len(data) == 6
    items = [data[i] for i in range(6)]
    assert [item.label for item in items] == [int(item.mask.any()) for item in items]
    assert all(item.image.shape == (3, SIZE, SIZE) and item.has_mask for item in items)
    facts = data.describe()
    assert facts["name"] == "widgets"
    assert len(facts["files"]) == 6
    trainer(backbone, data, epochs=1).run(tmp_path / "a.safetensors")


def test_a_broken_training_image_is_left_out_with_a_word(mvtec, caplog):
    (mvtec / "test" / "good" / "0.png").write_bytes(b"")
    assert len(FolderTrainingSet(mvtec, SIZE)) == 5
    assert "0.png" in caplog.text


def test_without_masks_only_the_image_loss_counts(backbone, tmp_path):
    for i in range(2):
        save_image(tmp_path / "set" / "good" / f"{i}.png", 90 + i)
        save_image(tmp_path / "set" / "bad" / f"{i}.png", 190 + i)
    data = FolderTrainingSet(tmp_path / "set", SIZE)
    assert [data[i].has_mask for i in range(4)] == [data[i].label == 0 for i in range(4)]
    trainer(backbone, data, epochs=1, batch_size=1).run(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kept", ["good", "nothing"])
def test_folders_that_cannot_be_trained_on(tmp_path, kept):
    folder = tmp_path / "set"
    save_image(folder / ("good" if kept == "good" else "") / "0.png", 90)
    with pytest.raises(InputError, match="normal images only" if kept == "good" else "no labels"):
        FolderTrainingSet(folder, SIZE)


def test_local_weight_and_taps():
    maps = [torch.rand(2, 1, 8, 8) for _ in range(2)]
    pairs = [torch.cat([1 - p, p], dim=1) for p in maps]
    masks, labels = torch.zeros(2, 8, 8), torch.tensor([0, 1])
    loss = joint_loss(torch.zeros(2, 2), pairs, labels, masks, 4.0)
    expected = sum(local_loss(p, masks) for p in pairs)
    torch.testing.assert_close(loss.total, 4 * expected + loss.image)
    torch.testing.assert_close(joint_loss(torch.zeros(2, 2), pairs, labels, masks, 4.0, True).local, expected / 2)
