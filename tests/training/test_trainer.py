"""Training: what moves, what must not, resuming, and folders as training sets."""

from __future__ import annotations

import json
import math
import multiprocessing
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from data.volume_files import write_tiff
from headclip.cli.app import app
from headclip.clip.weights import save_backbone
from headclip.errors import InputError
from headclip.methods import create_method
from headclip.methods.checkpoint import learnt_hash, load_checkpoint, read_info
from headclip.methods.headclip import HeadClip, HeadClipConfig
from headclip.training.losses import DEFECT_WEIGHT, joint_loss, local_loss
from headclip.training.sets import FolderTrainingSet, SyntheticTrainingSet, open_labelled
from headclip.training.train_config import TrainConfig
from headclip.training.trainer import Trainer, log_path, state_path
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


@pytest.mark.parametrize("kept", [{}, {"keep_features": True}], ids=["passes", "kept"])
def test_neighbours_leave_what_is_learnt_alone(backbone, rendered, tmp_path, kept):
    learnt = []
    for weight in (0.0, 0.5):
        method = HeadClip(backbone, HeadClipConfig(sigma=1.0, neighbour_weight=weight))
        Trainer(method, rendered, TrainConfig(epochs=1, **kept)).run(tmp_path / f"{weight}.safetensors")
        learnt.append(method.state_dict())
        assert read_info(tmp_path / f"{weight}.safetensors").config["neighbour_weight"] == weight
    assert all(torch.equal(value, learnt[1][name]) for name, value in learnt[0].items())


@pytest.mark.parametrize("kept", [{}, {"keep_features": True}], ids=["passes", "kept"])
def test_a_refiner_learns_beside_the_rest(backbone, rendered, tmp_path, kept):
    learnt = []
    for channels in (0, 4):
        method = HeadClip(backbone, HeadClipConfig(sigma=1.0, refiner=channels, stream_layers=(2,)))
        before = {name: value.clone() for name, value in method.state_dict().items()}
        Trainer(method, rendered, TrainConfig(epochs=1, **kept)).run(tmp_path / f"{channels}.safetensors")
        learnt.append(method.state_dict())
    close = torch.testing.assert_close
    for name, value in learnt[0].items():
        close(learnt[1][name], value)
    changed = {name for name, value in learnt[1].items() if not torch.equal(value, before[name])}
    assert {"refiner.leave.weight", "refiner.enter.weight"} <= changed


class StopError(Exception):
    pass


def last_loss(out):
    return json.loads(log_path(out).read_text().splitlines()[-1])["total"]


def kept_trainer(data, method="headclip", seed=111, **changes):
    """A trainer of any method on a backbone of its own, and a list that grows by the images of each tower pass."""
    backbone, seen = make_backbone(make_config()), []
    forward = backbone.vision.forward
    backbone.vision.forward = lambda pixels, *rest: seen.append(len(pixels)) or forward(pixels, *rest)
    config = TrainConfig(**{"epochs": 3, "seed": seed, **changes})
    return Trainer(create_method(method, backbone, {"sigma": 1.0, "seed": seed}), data, config), seen


@pytest.mark.parametrize(("dtype", "loss", "moved"), [("fp16", 1e-4, 0.05), ("int8", 5e-3, 0.5)])
@pytest.mark.parametrize("method", ["headclip", "anomalyclip", "coop", "linear_heads"])
def test_kept_features_train_to_nearly_the_same(rendered, tmp_path, method, dtype, loss, moved):
    """The losses agree to `loss`, and the parameters to a share `moved` of the way that they went."""
    plain, _ = kept_trainer(rendered, method)
    kept, seen = kept_trainer(rendered, method, keep_features=str(tmp_path / "features"), features_dtype=dtype)
    first = {name: value.clone() for name, value in plain.method.state_dict().items()}
    plain.run(tmp_path / "plain.safetensors")
    kept.run(tmp_path / "kept.safetensors")
    assert sum(seen) == len(rendered), "the tower must run once an image"
    assert last_loss(tmp_path / "kept.safetensors") == pytest.approx(
        last_loss(tmp_path / "plain.safetensors"), rel=loss
    )
    for name, value in plain.method.state_dict().items():
        way = (value - first[name]).norm()
        assert (kept.method.state_dict()[name] - value).norm() < moved * way, name


def test_a_second_seed_and_another_method_never_run_the_tower(rendered, tmp_path):
    place = tmp_path / "features"
    first, seen = kept_trainer(rendered, epochs=1, keep_features=place)
    first.run(tmp_path / "first.safetensors")
    assert sum(seen) == len(rendered)
    for number, changes in enumerate(({"seed": 7}, {"batch_size": 3, "rate": 0.1}, {"method": "coop"})):
        again, seen = kept_trainer(rendered, epochs=2, keep_features=place, **changes)
        again.run(tmp_path / f"{number}.safetensors")
        assert not seen, changes
    again, _ = kept_trainer(rendered, epochs=1, keep_features=str(place))
    again.run(tmp_path / "again.safetensors")
    for name, value in first.method.state_dict().items():
        assert torch.equal(value, again.method.state_dict()[name]), name


@pytest.mark.parametrize("place", ["memory", "folder"])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_stopped_run_with_kept_features_resumes_to_the_same(rendered, tmp_path, place, steps):
    def run(name):
        place_ = "memory" if place == "memory" else tmp_path / name
        return kept_trainer(rendered, keep_features=place_, epochs=2)

    whole, _ = run("one")
    whole.run(tmp_path / "whole.safetensors")
    out, seen = tmp_path / "cut.safetensors", []

    def stop(progress):
        seen.append(progress)
        if len(seen) > steps:
            raise StopError

    with pytest.raises(StopError):
        run("two")[0].run(out, save_seconds=0, progress=stop)
    resumed, passes = run("two" if steps == 4 else "moved")  # where they lie makes no difference
    resumed.restore(state_path(out))
    resumed.run(out)
    assert sum(passes) == {("folder", 4): 0, ("memory", 4): 12}.get((place, steps), len(rendered))
    for name, value in whole.method.state_dict().items():  # a pass over other images together rounds in another way
        torch.testing.assert_close(resumed.method.state_dict()[name], value, atol=1e-4, rtol=1e-3)


def test_a_row_that_is_damaged_meanwhile_is_computed_anew(rendered, tmp_path):
    place = tmp_path / "features"
    kept_trainer(rendered, epochs=1, keep_features=place)[0].run(tmp_path / "a.safetensors")
    for path in place.rglob("heads-*.rows"):
        content = bytearray(path.read_bytes())
        content[10] ^= 1
        path.write_bytes(content)
    again, seen = kept_trainer(rendered, epochs=1, keep_features=place)
    again.run(tmp_path / "b.safetensors")
    assert seen == [1]
    # a pass over other images together rounds in another way
    assert last_loss(tmp_path / "b.safetensors") == pytest.approx(last_loss(tmp_path / "a.safetensors"), rel=1e-6)


@pytest.mark.parametrize("when", ["at once", "later"])
def test_without_room_the_tower_runs_in_every_epoch(rendered, tmp_path, monkeypatch, when):
    usage = namedtuple("usage", "total used free")
    asked = []

    def disk_usage(path):
        asked.append(path)
        return usage(0, 0, 0 if when == "at once" or len(asked) > 2 else 2**40)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    plain, _ = kept_trainer(rendered, epochs=2)
    plain.run(tmp_path / "plain.safetensors")

    def run():
        kept, seen = kept_trainer(rendered, epochs=2, keep_features=tmp_path / "features")
        kept.run(tmp_path / "kept.safetensors")
        return seen

    with pytest.warns(UserWarning, match=r"kept features need .* are free; the tower runs in every epoch instead"):
        seen = run()
    assert sum(seen) == 2 * len(rendered)
    assert last_loss(tmp_path / "kept.safetensors") == pytest.approx(
        last_loss(tmp_path / "plain.safetensors"), rel=1e-3
    )


def test_masks_come_back_as_they_were(rendered):
    run, _ = kept_trainer(rendered, keep_features=True, epochs=1)
    first = {number: batch for batch in run.loader(0) for number in [tuple(batch.numbers)] if run.remember(batch)}
    for batch in run.loader(0):
        assert batch.images is None
        assert torch.equal(batch.masks, first[tuple(batch.numbers)].masks)
        assert batch.categories == first[tuple(batch.numbers)].categories
        assert torch.equal(run.images(batch, [0]), first[tuple(batch.numbers)].images[:1])


def test_methods_inside_the_tower_cannot_keep_anything(rendered):
    with pytest.raises(InputError, match="adaclip needs the tower anew"):
        Trainer(create_method("adaclip", make_backbone(make_config())), rendered, TrainConfig(keep_features=True))
    with pytest.raises(InputError, match="fp16 or int8"):
        TrainConfig(features_dtype="fp8")


@pytest.mark.parametrize(("steps", "schedule"), [(1, "constant"), (3, "constant"), (3, "cosine"), (4, "constant")])
def test_a_stopped_run_resumes_to_the_same_parameters(rendered, tmp_path, steps, schedule):
    whole = trainer(make_backbone(make_config()), rendered, schedule=schedule)
    whole.run(tmp_path / "whole.safetensors")
    out, seen = tmp_path / "cut.safetensors", []

    def stop(progress):
        seen.append(progress)
        if len(seen) > steps:
            raise StopError

    with pytest.raises(StopError):
        trainer(make_backbone(make_config()), rendered, schedule=schedule).run(out, save_seconds=0, progress=stop)
    assert not out.exists()
    resumed = trainer(make_backbone(make_config()), rendered, schedule=schedule)
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
    with pytest.raises(InputError, match="training differ") as caught:
        trainer(backbone, rendered, rate=1.0).restore(state_path(out))
    assert "training.rate was 0.001, now 1.0" in str(caught.value)


def test_resume_at_another_image_size_is_refused(backbone, tmp_path):
    for label, value in (("good", 60), ("bad", 200)):
        save_image(tmp_path / "parts" / label / "0.png", value)

    def of_size(size):
        return trainer(backbone, FolderTrainingSet(tmp_path / "parts", size))

    def stop(progress):
        raise StopError

    out = tmp_path / "a.safetensors"
    with pytest.raises(StopError):
        of_size(SIZE).run(out, save_seconds=0, progress=lambda p: stop(p) if p.epoch > 1 else None)
    with pytest.raises(InputError, match=r"image_size was \[42, 42\], now \[28, 28\]"):
        of_size(28).restore(state_path(out))
    of_size(SIZE).restore(state_path(out))
    state = torch.load(state_path(out), weights_only=True)
    del state["settings"]["image_size"]  # as earlier versions wrote it
    torch.save(state, state_path(out))
    of_size(SIZE).restore(state_path(out))


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


def test_a_stack_is_left_out_of_training_with_a_word(mvtec, caplog):
    whole = len(FolderTrainingSet(mvtec, SIZE))
    write_tiff(mvtec / "test/good/stack.tif", [np.full((32, 40), value, np.uint8) for value in (10, 200)])
    assert len(FolderTrainingSet(mvtec, SIZE)) == whole
    assert "stack.tif (a TIFF of 2 pages" in caplog.text


def test_an_empty_mask_of_an_anomalous_image_is_not_trained_on(mvtec, caplog):
    save_image(mvtec / "ground_truth" / "bent" / "1_mask.png", 0, np.zeros((40, 60), np.uint8))
    data = FolderTrainingSet(mvtec, SIZE)
    assert sorted((item.label, item.has_mask) for item in (data[i] for i in range(6))) == [
        *[(0, True)] * 3,
        (1, False),
        *[(1, True)] * 2,
    ]
    assert "1_mask.png is empty" in caplog.text


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


def test_the_pixel_cross_entropy_counts_defects_more_and_keeps_their_order():
    masks, labels = torch.zeros(1, 4, 4), torch.tensor([1])
    masks[0, 0, 0] = 1
    abnormal = torch.full((1, 1, 4, 4), 0.25)
    maps = [torch.cat([1 - abnormal, abnormal], dim=1)]
    loss = joint_loss(torch.zeros(1, 2), maps, labels, masks, 1.0, pixel="cross_entropy")
    expected = -(DEFECT_WEIGHT * math.log(0.25) + 15 * math.log(0.75)) / 16
    assert float(loss.local) == pytest.approx(expected, rel=1e-6)
    certain = torch.zeros(1, 2, 4, 4)
    certain[:, 1] = 1.0  # wrong on 15 pixels, and without a finite logarithm there
    assert torch.isfinite(joint_loss(torch.zeros(1, 2), [certain], labels, masks, 1.0, pixel="cross_entropy").total)


def test_an_unknown_pixel_loss_is_refused():
    with pytest.raises(InputError, match="focal_dice or cross_entropy"):
        TrainConfig(pixel_loss="hinge")


def test_only_some_learn(backbone, rendered, tmp_path):
    method = HeadClip(backbone, HeadClipConfig(sigma=1.0, refiner=4, stream_layers=(2,)))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    config = TrainConfig(epochs=1, only=("heads", "refiner"), keep_features=True)
    Trainer(method, rendered, config).run(tmp_path / "a.safetensors")
    changed = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert {"head_weight", "refiner.leave.weight"} <= changed
    assert {name.partition(".")[0] for name in changed} == {"head_weight", "refiner"}
    Trainer(method, rendered, TrainConfig(epochs=1)).run(tmp_path / "b.safetensors")  # and all again
    assert all(not torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_a_part_that_is_not_there(backbone, rendered):
    with pytest.raises(InputError, match="learns prompts, heads, and no refiner"):
        Trainer(HeadClip(backbone, HeadClipConfig()), rendered, TrainConfig(only=("refiner",)))


def test_the_command_goes_on_from_a_checkpoint(tmp_path):
    save_backbone(make_backbone(make_config()), tmp_path / "tiny")
    words = ["train", "--data", "synthetic", "--images", "4", "--image-size", "42", "--workers", "0", "--epochs", "1"]
    words += ["--device", "cpu", "--backbone", str(tmp_path / "tiny"), "--quiet"]
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    done = CliRunner().invoke(app, [*words, "--set", "alpha=0.3", "--out", str(first)])
    assert done.exit_code == 0, done.output
    more = ["--seed", "5", "--start-from", str(first), "--only", "refiner", "--set", "refiner=4", "--out", str(second)]
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code == 0, done.output
    values = [load_file(path) for path in (first, second)]
    assert all(torch.equal(value, values[1][name]) for name, value in values[0].items() if name != "text_vectors")
    assert values[1]["refiner.leave.weight"].any()
    info = read_info(second)
    assert (info.config["alpha"], info.config["refiner"]) == (0.3, 4)
    assert info.training["start_from"] == learnt_hash(first)
    assert info.config["seed"] == 111  # of the prompts that both have, whatever the order of images is
    assert info.data["earlier"] == read_info(first).data
    other = CliRunner().invoke(app, [*words, "--method", "coop", "--start-from", str(first), "--out", "c.safetensors"])
    assert "a checkpoint of headclip, not of coop" in str(other.exception)
    lacking = ["--start-from", str(first), "--set", "stream_layers=[2]", "--out", "c.safetensors"]
    lacking = CliRunner().invoke(app, [*words, *lacking])
    assert "with these settings (no stream_heads." in str(lacking.exception)
    assert "change fewer of them" in str(lacking.exception)


def test_a_cosine_ends_at_nothing(backbone, rendered, tmp_path):
    trainer = Trainer(HeadClip(backbone, HeadClipConfig()), rendered, TrainConfig(epochs=2, schedule="cosine"))
    rates = []
    step = trainer.optimiser.step
    trainer.optimiser.step = lambda: rates.append(trainer.optimiser.param_groups[0]["lr"]) or step()
    trainer.run(tmp_path / "a.safetensors")
    steps = 2 * trainer.batches
    expected = [1e-3 * (1 + math.cos(math.pi * done / steps)) / 2 for done in range(steps)]
    assert rates == pytest.approx(expected, rel=1e-9)
    assert read_info(tmp_path / "a.safetensors").training["schedule"] == "cosine"


def test_a_state_from_before_a_setting_resumes(backbone, rendered, tmp_path):
    run = trainer(backbone, rendered)
    state = run.state()
    del state["settings"]["training"]["schedule"]
    torch.save(state, tmp_path / "earlier.state")
    run.restore(tmp_path / "earlier.state")
    other = trainer(make_backbone(make_config()), rendered, schedule="cosine")
    with pytest.raises(InputError, match="schedule"):
        other.restore(tmp_path / "earlier.state")


def test_an_unknown_schedule_is_refused():
    with pytest.raises(InputError, match="constant or cosine"):
        TrainConfig(schedule="linear")


def test_the_command_keeps_features_on_disk(tmp_path):
    save_backbone(make_backbone(make_config()), tmp_path / "tiny")
    words = ["train", "--data", "synthetic", "--images", "4", "--image-size", "42", "--workers", "0", "--epochs", "2"]
    words += ["--device", "cpu", "--backbone", str(tmp_path / "tiny"), "--features-in", str(tmp_path / "features")]
    done = CliRunner().invoke(app, [*words, "--features-dtype", "int8", "--out", str(tmp_path / "a.safetensors")])
    assert done.exit_code == 0, done.output
    assert "int8" in done.output
    assert "an image" in done.output
    assert list((tmp_path / "features").rglob("heads-*.int8.rows"))
    assert str(tmp_path) not in json.dumps(read_info(tmp_path / "a.safetensors").training)


def test_what_evaluations_read_can_be_trained_on(tmp_path):
    for index, value in enumerate((60, 200)):
        save_image(tmp_path / "parts" / f"{index}.png", value)
    manifest = tmp_path / "parts/list.csv"
    manifest.write_text("image,label,category\n0.png,good,nut\n1.png,defect,nut\n")
    for source in (str(manifest), f"manifest={manifest}"):
        data = open_labelled(source, SIZE)
        assert [(item.label, item.category) for item in (data[0], data[1])] == [(0, "nut"), (1, "nut")]
        assert data.describe()["name"] == "list"
    with pytest.raises(InputError, match="no labels to train on"):  # nothing says that the list is meant
        open_labelled(str(tmp_path / "parts"), SIZE)
    manifest.rename(tmp_path / "parts/manifest.csv")
    assert len(open_labelled(str(tmp_path / "parts"), SIZE)) == 2

    save_image(tmp_path / "brain/no/a.png", 60)
    save_image(tmp_path / "brain/yes/b.png", 200)
    data = open_labelled(f"brainmri={tmp_path / 'brain'}", SIZE)
    assert data.describe()["name"] == "brainmri"  # by which an evaluation knows the set again
    save_image(tmp_path / "bad/yes/b.png", 200)
    with pytest.raises(InputError, match="nothing to tell apart"):
        open_labelled(f"brainmri={tmp_path / 'bad'}", SIZE)
    for source, words in (("nowhere", "NAME=PATH of a dataset"), ("sdd=/nowhere", "/nowhere does not exist")):
        with pytest.raises(InputError, match=words):
            open_labelled(source, SIZE)


@pytest.mark.parametrize(
    "values",
    [{"rate": math.nan}, {"rate": math.inf}, {"local_weight": -1}, {"local_weight": math.nan}, {"head_rate": -1}],
)
def test_numbers_that_nothing_can_be_learnt_with(values):
    with pytest.raises(InputError, match=r"learning rate|is a number from 0"):
        TrainConfig(**values)


def test_a_checkpoint_to_start_from_is_not_loaded_by_its_name():
    with pytest.raises(InputError, match="load the checkpoint with load_checkpoint"):
        TrainConfig(start_from="a.safetensors")
    assert TrainConfig(start_from="0" * 64).start_from == "0" * 64


def test_parts_that_learn_are_the_same_in_any_order():
    assert TrainConfig(only=("refiner", "heads")) == TrainConfig(only=("heads", "refiner", "heads"))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_vanishes_ends_the_run_with_its_name_and_no_process_left(mvtec, backbone, tmp_path, workers):
    data = FolderTrainingSet(mvtec, 42)
    run = trainer(backbone, data, batch_size=2)
    data.records[-1].path.unlink()
    with pytest.raises(
        InputError, match=f"^the training image .*{data.records[-1].path.name} cannot be read: the file"
    ) as error:
        run.run(tmp_path / "a.safetensors", workers=workers)
    assert "Traceback" not in str(error.value)
    assert multiprocessing.active_children() == []
