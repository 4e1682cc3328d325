"""What every registered method promises; a new one is tested from the moment it registers."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from headclip.errors import BackboneError, CheckpointError, InputError
from headclip.inference.detector import Detector
from headclip.methods import Scores, TrainableMethod, create_method, list_methods
from headclip.methods.base import Method, method_class
from headclip.methods.checkpoint import load_checkpoint, save_checkpoint
from headclip.training.batches import collate
from headclip.training.sets import SyntheticTrainingSet
from headclip.training.train_config import TrainConfig
from headclip.training.trainer import Trainer
from tiny_clip import make_backbone, make_config

SIZE = (70, 56)  # the grid need not be square
NAMES = list_methods()
TRAINABLE = [name for name in NAMES if issubclass(method_class(name), TrainableMethod)]
TRAINING_FREE = [name for name in NAMES if name not in TRAINABLE]
WITH_CATEGORY = [name for name in NAMES if method_class(name).uses_category]
each_method = pytest.mark.parametrize("name", NAMES)
close = torch.testing.assert_close


@pytest.fixture(scope="module")
def backbone():
    return make_backbone(make_config())


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def batch():
    data = SyntheticTrainingSet(seed=1, count=4, size=56)
    return collate([data[i] for i in range(4)])


def judge(method: Method, pixels: torch.Tensor, **options) -> Scores:
    with torch.no_grad():
        return method.eval().score_pixels(pixels, **options)


def check(scores: Scores, count: int, size: tuple[int, int], maximum: float) -> None:
    assert scores.anomaly_map.shape == (count, *size)
    assert scores.anomaly_map.min() >= -1e-6
    assert scores.anomaly_map.max() <= maximum + 1e-5
    for value in (scores.score, scores.global_score, scores.local_score):
        assert value.shape == (count,)
        assert ((value >= 0) & (value <= 1)).all()


def differing_tensors(one: dict, other: dict) -> list[str]:
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_the_published_methods_are_there():
    assert {"headclip", "anomalyclip", "clip", "clip_ac", "coop", "linear_heads"} <= set(NAMES)


@each_method
def test_it_says_what_it_is(name):
    cls = method_class(name)
    assert cls.name == name
    assert cls.summary
    assert bool(cls.learns) == (name in TRAINABLE)


@each_method
@pytest.mark.parametrize("output", [None, (33, 150)])
def test_shapes_and_ranges(backbone, pixels, name, output):
    method = create_method(name, backbone)
    check(judge(method, pixels, output=output), len(pixels), output or SIZE, method.map_maximum)


@each_method
def test_scores_are_not_constant(backbone, pixels, name):
    scores = judge(create_method(name, backbone), pixels)
    assert scores.anomaly_map.flatten(1).std(dim=1).min() > 0
    assert scores.score.std() > 0


@each_method
def test_one_text_vector_for_each_category(backbone, name):
    method = create_method(name, backbone)
    with torch.no_grad():
        default, three = method.text_vectors(), method.text_vectors(["metal_nut", "wood", "metal_nut"])
    width = 0 if not method.needs_text else backbone.config.embed_dim
    assert default.shape == (1, 2, width)
    if not method.uses_category:
        assert torch.equal(three, default)
        return
    assert three.shape == (3, 2, width)
    assert torch.equal(three[0], three[2])
    assert (three[0] - three[1]).abs().max() > 1e-4
    close(three.norm(dim=-1), torch.ones(3, 2))


@pytest.mark.parametrize("name", WITH_CATEGORY)
def test_a_list_without_a_category_is_refused(backbone, name):
    with pytest.raises(InputError, match="no category"):
        create_method(name, backbone).text_vectors([])


@each_method
def test_a_seed_gives_the_same_scores_again(pixels, name):
    one, other = (judge(create_method(name, make_backbone(make_config())), pixels) for _ in range(2))
    assert torch.equal(one.anomaly_map, other.anomaly_map)
    assert torch.equal(one.score, other.score)


@each_method
def test_one_image_alone_equals_the_same_in_a_batch(backbone, pixels, name):
    together = judge(create_method(name, backbone), pixels)
    for index in range(len(pixels)):
        alone = judge(create_method(name, backbone), pixels[index : index + 1])
        close(alone.anomaly_map[0], together.anomaly_map[index], atol=2e-5, rtol=0)
        close(alone.score[0], together.score[index], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", WITH_CATEGORY)
def test_each_image_may_have_its_own_category(backbone, pixels, name):
    method = create_method(name, backbone)
    names = ["bottle", "wood", "metal_nut"]
    with torch.no_grad():
        text = method.text_vectors(names)
    mixed = judge(method, pixels, text=text)
    for index in range(len(names)):
        alone = judge(method, pixels[index : index + 1], text=text[index])
        close(alone.anomaly_map[0], mixed.anomaly_map[index], atol=2e-5, rtol=0)
        close(alone.score[0], mixed.score[index], atol=2e-5, rtol=0)


@each_method
def test_scoring_touches_no_parameter(pixels, name):
    backbone = make_backbone(make_config())
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    method = create_method(name, backbone)
    learnt = {key: value.clone() for key, value in method.state_dict().items()}
    judge(method, pixels)
    assert not differing_tensors(before, backbone.state_dict())
    assert not differing_tensors(learnt, method.state_dict())
    assert all(parameter.grad is None for parameter in backbone.parameters())


@each_method
def test_its_own_parameters_are_apart_from_the_towers(backbone, name):
    method = create_method(name, backbone)
    towers = {id(parameter) for parameter in backbone.parameters()}
    assert not towers & {id(parameter) for parameter in method.parameters()}
    assert bool(method.trainable()) == (name in TRAINABLE)


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_training_step_moves_the_method_alone(name, batch):
    backbone = make_backbone(make_config())
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    method = create_method(name, backbone)
    assert isinstance(method, TrainableMethod)
    grouped = [id(p) for group in method.parameter_groups().values() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in method.trainable().values())
    first = {key: value.clone() for key, value in method.state_dict().items()}
    trainer = Trainer(method, batch, TrainConfig(**method.training_defaults))
    losses = trainer.step(batch)
    assert torch.isfinite(losses.total)
    assert not differing_tensors(before, backbone.state_dict())
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert differing_tensors(first, method.state_dict())
    assert trainer.step(batch).total != losses.total


@pytest.mark.parametrize("name", TRAINABLE)
def test_images_without_masks_can_be_learnt_from(backbone, name, batch):
    method = create_method(name, backbone)
    unmarked = type(batch)(batch.images, batch.masks, batch.labels, torch.zeros_like(batch.has_mask), batch.categories)
    losses = Trainer(method, batch, TrainConfig()).losses(unmarked)
    assert losses.local == 0
    losses.total.backward()
    assert any((p.grad != 0).any() for p in method.trainable().values() if p.grad is not None)


@pytest.mark.parametrize("name", TRAINABLE)
def test_pixel_maps_are_probabilities(backbone, pixels, name):
    method = create_method(name, backbone)
    with torch.no_grad():
        maps = method.pixel_maps(method.tokens(pixels), method.text_vectors()[0], SIZE)
    for values in maps:
        assert values.shape == (len(pixels), 2, *SIZE)
        close(values.sum(dim=1), torch.ones(len(pixels), *SIZE))


@each_method
def test_a_checkpoint_goes_there_and_back(backbone, pixels, name, tmp_path):
    method = create_method(name, backbone)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    save_checkpoint(tmp_path / "a.safetensors", method)
    loaded, info = load_checkpoint(tmp_path / "a.safetensors", backbone)
    assert info.method == name
    assert loaded.config == method.config
    one, other = judge(method, pixels), judge(loaded, pixels)
    assert torch.equal(one.anomaly_map, other.anomaly_map)
    assert torch.equal(one.score, other.score)


@each_method
def test_the_joint_score_is_an_option(backbone, pixels, name, tmp_path):
    """alpha 0 is the image score alone, alpha 1 the map alone, and the map itself does not change."""
    save_checkpoint(tmp_path / "a.safetensors", create_method(name, backbone))
    none, full = (
        judge(load_checkpoint(tmp_path / "a.safetensors", backbone, {"alpha": alpha})[0], pixels)
        for alpha in (0.0, 1.0)
    )
    close(none.score, none.global_score)
    close(full.score, full.local_score)
    assert torch.equal(none.anomaly_map, full.anomaly_map)
    assert (none.score - full.score).abs().max() > 1e-6


@each_method
def test_a_backbone_without_a_text_tower(pixels, name):
    backbone = make_backbone(make_config(text=False))
    if method_class(name).needs_text:
        with pytest.raises(BackboneError, match="no text tower"):
            create_method(name, backbone)
    else:
        method = create_method(name, backbone)
        check(judge(method, pixels), len(pixels), SIZE, method.map_maximum)


@each_method
def test_wrong_settings_name_the_right_ones(backbone, name):
    with pytest.raises(InputError, match=f"{method_class(name).config_class.__name__} has .*alpha"):
        create_method(name, backbone, {"no_such": 1})
    with pytest.raises(InputError, match="alpha must lie in"):
        create_method(name, backbone, {"alpha": 2})
    with pytest.raises(InputError):
        create_method(name, backbone, {"alpha": "much"})


@each_method
def test_wrong_layers_name_the_depth(backbone, name):
    known = {item.name for item in fields(method_class(name).config_class)}
    if "taps" in known:
        extra = {"aggregation": "taps"} if "aggregation" in known else {}
        with pytest.raises(InputError, match="3"):
            create_method(name, backbone, {"taps": [9], **extra})
    if "csa_layers" in known:
        with pytest.raises(InputError, match="tower of 3 layers"):
            create_method(name, backbone, {"csa_layers": [1, 9]})


@pytest.mark.parametrize("name", WITH_CATEGORY)
@pytest.mark.parametrize("category", ["", "  ", "a {} b"])
def test_a_wrong_category_is_refused(backbone, name, category):
    with pytest.raises(InputError, match="category"):
        create_method(name, backbone).text_vectors([category])


@each_method
def test_references_only_where_there_is_a_few_shot_variant(backbone, pixels, name):
    method = create_method(name, backbone)
    if not method.takes_references:
        with pytest.raises(InputError, match="no few-shot variant"):
            method.set_references(pixels[:1])
        method.set_references(None)
        return
    plain = judge(method, pixels)
    generator = torch.Generator().manual_seed(5)
    normal = [pixels[:1] + 0.05 * torch.randn(pixels[:1].shape, generator=generator) for _ in range(3)]
    method.set_references(normal[: method.least_references])
    few = judge(method, pixels)
    check(few, len(pixels), SIZE, method.map_maximum)
    assert not torch.equal(few.score, plain.score)
    lower = few.score - plain.score
    assert lower[0] < lower[1:].min()  # what the normal images are like looks more normal than the others
    if method.least_references > 1:
        with pytest.raises(InputError, match="at least two"):
            method.set_references(normal[:1])
    method.set_references(None)
    assert torch.equal(judge(method, pixels).score, plain.score)


@each_method
@pytest.mark.filterwarnings("ignore:no checkpoint")
def test_a_detector_runs_it(backbone, name):
    detector = Detector(make_backbone(make_config()), device="cpu", image_size=56, method=name, category="bottle")
    image = torch.randint(0, 256, (40, 60, 3), generator=torch.Generator().manual_seed(0)).byte().numpy()
    one, other, bottle = detector.predict_arrays([image] * 3, ["bottle", "wood", "bottle"])
    assert one.anomaly_map.shape == (40, 60)
    assert one.score == pytest.approx(bottle.score, abs=1e-6)
    assert detector.predict_arrays([image])[0].score == pytest.approx(one.score, abs=2e-5)
    assert (abs(one.score - other.score) > 1e-7) == method_class(name).uses_category
    assert detector.describe()["category"] == ("bottle" if method_class(name).uses_category else None)
    with pytest.raises(InputError, match="2 categories were given for 1 images"):
        detector.predict_arrays([image], ["a", "b"])


@pytest.mark.parametrize("name", TRAINABLE)
def test_an_untrained_detector_warns_and_names_the_command(name):
    with pytest.warns(UserWarning, match=f"headclip train --method {name}"):
        Detector(make_backbone(make_config()), device="cpu", image_size=56, method=name)


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_a_training_free_detector_does_not_warn(name, recwarn):
    Detector(make_backbone(make_config()), device="cpu", image_size=56, method=name)
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    backbone = make_backbone(make_config())
    save_checkpoint(tmp_path / "a.safetensors", create_method("coop", backbone))
    with pytest.raises(InputError, match="is a checkpoint of coop, not of headclip"):
        Detector(backbone, tmp_path / "a.safetensors", device="cpu", method="headclip")


def test_unknown_names_list_the_known(backbone):
    with pytest.raises(InputError, match=r"unknown method 'winclop'.*headclip"):
        create_method("winclop", backbone)


@pytest.mark.parametrize("suffix", ["pth", "pt"])
def test_a_foreign_pth_is_refused_without_running_it(backbone, tmp_path, suffix):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "ran").touch, ())

    path = tmp_path / f"a.{suffix}"
    torch.save({"model": Trap()}, path)
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        load_checkpoint(path, backbone)
    assert not (tmp_path / "ran").exists()
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="not a published checkpoint"):
        load_checkpoint(path, backbone)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / f"none.{suffix}", backbone)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@each_method
def test_cuda_agrees_with_the_cpu(pixels, name):
    here = judge(create_method(name, make_backbone(make_config())), pixels)
    there = create_method(name, make_backbone(make_config()).to("cuda")).to("cuda")
    scores = judge(there, pixels.to("cuda"))
    close(scores.anomaly_map.cpu(), here.anomaly_map, atol=2e-3, rtol=0)
    close(scores.score.cpu(), here.score, atol=2e-3, rtol=0)
