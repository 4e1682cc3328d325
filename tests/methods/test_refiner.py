"""What must hold of the map that is drawn finer than patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headclip.clip.cells import NUMBERS, cells_a_side, picture_cells
from headclip.clip.streams import run_streams
from headclip.errors import InputError
from headclip.inference.detector import Detector
from headclip.methods.checkpoint import load_checkpoint, save_checkpoint
from headclip.methods.headclip import HeadClip, HeadClipConfig
from headclip.methods.refiner import Refiner
from headclip.runs.facts import as_facts, changed_settings
from tiny_clip import make_backbone, make_config, stirred

close = torch.testing.assert_close
SIZE = (42, 56)


@pytest.fixture(scope="module")
def backbone():
    return make_backbone(make_config())


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(5))


def judge(method, pixels, output=None):
    with torch.no_grad():
        return method.score_pixels(pixels, output=output)


@pytest.mark.parametrize("patch", [14, 16, 32, 7])
def test_cells_are_means_and_deviations(patch):
    side = patch // cells_a_side(patch)
    pixels = torch.randn(2, 3, 2 * patch, 3 * patch, generator=torch.Generator().manual_seed(0))
    found = picture_cells(pixels, patch)
    assert found.shape == (2, NUMBERS, 2 * cells_a_side(patch), 3 * cells_a_side(patch))
    here = pixels[1, :, side : 2 * side, :side].double()  # the cell in the second row, first column
    close(found[1, :3, 1, 0].double(), here.mean(dim=(1, 2)), atol=1e-5, rtol=0)
    close(found[1, 3, 1, 0].double(), here.mean(dim=0).std(correction=0), atol=2e-3, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"stream_layers": (1, 3)}, {"aggregation": "layers", "tap_fusion": "sum"}])
def test_before_it_has_learnt_it_draws_the_patches(backbone, pixels, settings):
    method = HeadClip(backbone, HeadClipConfig(refiner=6, top_level="patches", **settings))
    plain = HeadClip(backbone, HeadClipConfig(top_level="patches", **settings))
    drawn, found = judge(method, pixels), judge(plain, pixels)
    assert method.finer == 2  # cells of 7 px in patches of 14
    close(drawn.score, found.score)
    with torch.no_grad():
        tokens = method.tokens(pixels)
        patches = method.patch_map(tokens, method.text_vectors()[0])
        logits = (patches / method.map_maximum).logit()[:, None]
        expected = torch.nn.functional.interpolate(logits, scale_factor=2, mode="bilinear")[:, 0].sigmoid()
        close(method.drawn(tokens, patches), expected * method.map_maximum)
        close(plain.drawn(tokens, patches), patches)


def test_it_changes_the_map_and_not_the_score_of_patches(backbone, pixels):
    method = HeadClip(backbone, HeadClipConfig(refiner=6, top_level="patches"))
    before = judge(method, pixels)
    after = judge(stirred(method), pixels)
    assert (after.anomaly_map - before.anomaly_map).abs().max() > 0.1
    assert torch.equal(after.score, before.score)
    assert after.anomaly_map.min() >= 0
    assert after.anomaly_map.max() <= 1
    assert judge(method, pixels, (20, 30)).anomaly_map.shape == (3, 20, 30)
    of_pixels = stirred(HeadClip(backbone, HeadClipConfig(refiner=6)))
    plain = HeadClip(backbone, HeadClipConfig())
    assert not torch.allclose(judge(of_pixels, pixels).local_score, judge(plain, pixels).local_score)


def test_one_image_does_not_change_another(backbone, pixels):
    method = stirred(HeadClip(backbone, HeadClipConfig(refiner=6)))
    together = judge(method, pixels)
    for index in range(len(pixels)):
        close(judge(method, pixels[index : index + 1]).anomaly_map[0], together.anomaly_map[index])


def test_what_differs_within_a_patch_shows(backbone):
    """Two cells of one patch get different values where the picture differs between them."""
    method = stirred(HeadClip(backbone, HeadClipConfig(refiner=6, sigma=0.0)))
    even = torch.zeros(1, 3, *SIZE)
    dotted = even.clone()
    dotted[..., 14:21, 14:21] = 2.0
    with torch.no_grad():
        tokens = method.tokens(even)
        patches = method.patch_map(tokens, method.text_vectors()[0])
        tokens.cells = picture_cells(dotted, 14)
        seen = method.drawn(tokens, patches)
        tokens.cells = picture_cells(even, 14)
        unseen = method.drawn(tokens, patches)
    change = (seen - unseen).abs()[0]
    assert change[2, 2] > 1e-3
    assert change[2, 2] > 3 * change[0, -1]


def test_nothing_that_it_learns_reaches_the_map_of_patches(backbone, pixels):
    method = stirred(HeadClip(backbone, HeadClipConfig(refiner=6, stream_layers=(2,))))
    tokens, text = method.tokens(pixels), method.text_vectors()[0]
    *rest, drawn = method.pixel_maps(tokens, text, SIZE)
    assert len(rest) == 2
    drawn[:, 1].mean().backward()
    for name, value in method.named_parameters():
        assert (value.grad is not None and bool(value.grad.any())) == name.startswith("refiner."), name


def test_a_shared_pass_sees_the_cells(backbone, pixels):
    method = stirred(HeadClip(backbone, HeadClipConfig(refiner=6)))
    plain = HeadClip(backbone, HeadClipConfig())
    with torch.no_grad():
        found, other = run_streams(backbone.vision, pixels, [method.stream(), plain.stream()])
        shared = method.score(found, method.text_vectors()[0], SIZE)
    assert other.cells is None
    close(shared.anomaly_map, judge(method, pixels).anomaly_map)


def test_a_checkpoint_keeps_it(backbone, pixels, tmp_path):
    method = stirred(HeadClip(backbone, HeadClipConfig(refiner=6, stream_layers=(2,))))
    save_checkpoint(tmp_path / "it.safetensors", method)
    again, info = load_checkpoint(tmp_path / "it.safetensors", backbone)
    assert info.config["refiner"] == 6
    assert torch.equal(judge(again, pixels).anomaly_map, judge(method, pixels).anomaly_map)
    without, _ = load_checkpoint(tmp_path / "it.safetensors", backbone, {"refiner": 0})
    assert without.finer == 1
    assert not torch.allclose(judge(without, pixels).anomaly_map, judge(method, pixels).anomaly_map, atol=0.01)
    with torch.no_grad():
        close(without.text_vectors(), method.text_vectors())


def test_one_can_be_added_to_a_checkpoint(backbone, pixels, tmp_path):
    plain = HeadClip(backbone, HeadClipConfig(head_init=0.7))
    save_checkpoint(tmp_path / "plain.safetensors", plain)
    method, _ = load_checkpoint(tmp_path / "plain.safetensors", backbone, {"refiner": 6, "top_level": "patches"})
    assert method.finer == 2
    assert torch.equal(method.head_weight, plain.head_weight)
    found = judge(method, pixels).anomaly_map
    assert found.isfinite().all()


def test_a_seed_gives_the_same_first_values(backbone):
    first, second, other = (HeadClip(backbone, HeadClipConfig(refiner=6, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first.refiner.enter.weight, second.refiner.enter.weight)
    assert not torch.equal(first.refiner.enter.weight, other.refiner.enter.weight)
    plain = HeadClip(backbone, HeadClipConfig(seed=1))  # what else is learnt starts as without
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in plain.state_dict().items())


@pytest.mark.filterwarnings("ignore:no checkpoint")
def test_peers_count_in_what_is_drawn(backbone):
    rng = np.random.default_rng(0)
    usual = rng.integers(60, 180, (42, 42, 3))
    images = [(usual + rng.integers(0, 9, usual.shape)).astype(np.uint8) for _ in range(6)]
    images[0][:14, :14] = 255
    settings = {"refiner": 6, "sigma": 0.0}
    detector = Detector(backbone, method="headclip", settings=settings, device="cpu", precision="fp32", image_size=42)
    stirred(detector.method)
    alone = detector.predict_arrays(images[:1])[0].anomaly_map
    detector.set_peers(images[1:], 3.0)
    beside = detector.predict_arrays(images[:1])[0].anomaly_map
    odds = [found.astype(np.float64) / (1 - found.astype(np.float64)) for found in (alone, beside)]
    assert not np.allclose(odds[0], odds[1], rtol=0.05)


def test_runs_and_calibrations_from_before_there_was_one_fit_a_method_without(backbone):
    now = Detector(backbone, method="headclip", device="cpu").describe()
    before = {**now, "config": {name: value for name, value in now["config"].items() if name != "refiner"}}
    assert now["config"]["refiner"] == 0
    assert changed_settings(as_facts(before), as_facts(now)) == []
    other = {**now, "config": {**now["config"], "refiner": 6}}
    assert changed_settings(as_facts(before), as_facts(other)) == [("config.refiner", None, 6)]


def test_channels_below_zero():
    with pytest.raises(InputError, match="refiner"):
        HeadClipConfig(refiner=-1)


def test_it_learns_where_in_a_patch():
    """Marked are dark cells, while every patch has the same value."""
    generator = torch.Generator().manual_seed(0)
    refiner = Refiner(8, 14, 8, generator)
    cells = torch.randn(16, NUMBERS, 8, 8, generator=generator)
    cells[:, -1] = cells[:, -1].abs()
    marked = (cells[:, 0] < -1).float()
    logits, tokens = torch.zeros(16, 4, 4), torch.zeros(16, 16, 8)
    optimiser = torch.optim.Adam(refiner.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(refiner(logits, cells, [tokens]), marked)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(2), abs=1e-5)
    assert losses[-1] < 0.2
