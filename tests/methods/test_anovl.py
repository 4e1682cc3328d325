"""AnoVL's own parts: tiles, copies, adaptation. test_registry.py holds what every method promises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headclip.errors import InputError
from headclip.inference.detector import Detector
from headclip.methods.anovl import AnoVl, AnoVlConfig, pool
from headclip.methods.anovl_adaptation import Draws, adapt, draw
from headclip.methods.anovl_tiles import COPIES, Tiles, augmented_copies, moved
from headclip.methods.base import create_method
from tiny_clip import make_backbone, make_config

close = torch.testing.assert_close
NAMES = ["bottle"]


@pytest.fixture(scope="module")
def backbone():
    return make_backbone(make_config("gelu"))


def image(height: int, width: int, count: int = 1, seed: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def methods(backbone):
    """Built once: each describes its category with 924 sentences."""
    found = {
        "visa": AnoVl(backbone),
        "mvtec": AnoVl(backbone, AnoVlConfig(preset="mvtec")),
        "kept": AnoVl(backbone, AnoVlConfig(preset="mvtec", augment=False, keep_optimiser=True)),
    }
    found["visa"].text_vectors(NAMES)
    for method in found.values():
        method._known.update(found["visa"]._known)
    return found


def judge(method: AnoVl, pixels: torch.Tensor):
    with torch.no_grad():
        return method.score_pixels(pixels, method.text_vectors(NAMES)[0])


# --- tiles and copies


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_tiles_cover_any_image_and_join_to_it(height, width):
    tiles = Tiles.squares((height, width))
    assert len(tiles.corners) == math.ceil(max(height, width) / min(height, width))
    pixels = torch.arange(2.0 * height * width).reshape(2, 1, height, width)
    parts = tiles.cut(pixels)
    assert parts.shape[-2:] == (min(height, width),) * 2
    close(tiles.join(parts), pixels)


def test_overlapping_tiles_are_averaged():
    tiles = Tiles.squares((2, 3))
    joined = tiles.join(torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])[None])
    assert joined[0, 0].tolist() == [[0.0, 0.5, 1.0]] * 2


def test_portrait_tiles_are_landscape_tiles_turned():
    assert Tiles.squares((90, 40)).corners == tuple((x, y) for y, x in Tiles.squares((40, 90)).corners)


def test_a_square_image_is_one_tile(methods):
    assert Tiles.squares((56, 56)) == Tiles.whole((56, 56))
    assert methods["visa"].tokens(image(56, 56)).views.shape[1] == 1


@pytest.mark.parametrize(("height", "width"), [(126, 42), (42, 97), (70, 42)])
def test_any_aspect_ratio(methods, height, width):
    """The published tiling fails for portrait images and beyond 2 : 1; sides need not be whole patches."""
    scores = judge(methods["visa"], image(height, width))
    assert scores.anomaly_map.shape == (1, height, width)
    assert torch.isfinite(scores.anomaly_map).all()
    assert scores.anomaly_map.std() > 0


def test_a_move_by_nothing_and_by_right_angles():
    square, wide = image(30, 30), image(20, 50)
    close(moved(wide), wide, atol=1e-4, rtol=0)
    turned = moved(square, math.pi / 2)
    assert any(torch.allclose(turned, torch.rot90(square, sign, (-2, -1)), atol=1e-4) for sign in (-1, 1))
    close(moved(wide, math.pi), wide.flip(-1, -2), atol=1e-3, rtol=0)


def test_a_shift_moves_by_a_share_of_half_the_side():
    pixels = image(21, 41)
    close(moved(pixels, shift=(0.2, 0.0))[..., :30], pixels[..., 4:34], atol=1e-4, rtol=0)
    close(moved(pixels, shift=(0.0, 0.2))[..., :15, :], pixels[..., 2:17, :], atol=1e-4, rtol=0)


def test_copies():
    pixels = image(42, 42, count=2)
    copies = augmented_copies(pixels)
    assert copies.shape == (2, COPIES, 3, 42, 42)
    assert COPIES == 22
    assert torch.equal(copies[:, 0], pixels)
    flat = copies[0].flatten(1)
    differences = torch.cdist(flat, flat) + 1e9 * torch.eye(COPIES)
    assert differences.min() > 1.0  # no two alike


# --- sentences


def test_sentences(methods):
    normal, abnormal = methods["visa"].sentences("metal_nut")
    assert (len(normal), len(abnormal)) == (462, 462)
    assert normal[0] == "a cropped industrial photo of the normal metal_nut"
    assert len(set(normal) | set(abnormal)) == 924
    assert not any("a industrial" in sentence for sentence in normal)
    assert any("textural photo" in sentence for sentence in methods["visa"].sentences("wood")[0])
    assert methods["visa"].sentences("macaroni2")[0][0].endswith("normal macaroni")


# --- adaptation


def adaptation(count: int, text_adapter: bool) -> dict:
    generator = torch.Generator().manual_seed(2)
    text = torch.nn.functional.normalize(torch.randn(count, 2, 8, generator=generator), dim=-1)
    sentences = torch.nn.functional.normalize(torch.randn(count, 12, 8, generator=generator), dim=-1)
    return {
        "features": torch.randn(count, 10, 8, generator=generator),
        "text": text,
        "prompts": sentences if text_adapter else None,
        "draws": draw(12 if text_adapter else 8, 8, 10, steps=5, noise_std=0.055, seed=1),
        "probabilities": lambda cosines: cosines.softmax(dim=-1),
        "rate": 1e-2,
    }


@pytest.mark.parametrize("text_adapter", [False, True])
def test_adaptation_lowers_its_loss(text_adapter):
    given = adaptation(3, text_adapter)
    draws: Draws = given["draws"]
    same = draws.noise[:1].expand_as(draws.noise)  # the same noise in each step, so that the losses compare
    losses = adapt(**given | {"draws": Draws(draws.weight, draws.bias, same)})[1]
    assert losses.shape == (5, 3)
    assert (losses[-1] < losses[0]).all()


@pytest.mark.parametrize("text_adapter", [False, True])
def test_a_stack_of_adapters_equals_one_after_the_other(text_adapter):
    whole = adaptation(3, text_adapter)
    together = adapt(**whole)[0]
    for i in range(3):
        one = slice(i, i + 1)
        prompts = None if whole["prompts"] is None else whole["prompts"][one]
        alone = adapt(**whole | {"features": whole["features"][one], "text": whole["text"][one], "prompts": prompts})
        close(alone[0][0], together[i], atol=1e-5, rtol=0)


def test_adaptation_against_plain_autograd():
    """One image with a linear layer and the steps written out, the way the equations read."""
    given = adaptation(1, text_adapter=False)
    draws: Draws = given["draws"]
    layer = torch.nn.Linear(8, 8)
    layer.load_state_dict({"weight": draws.weight, "bias": draws.bias})
    optimiser = torch.optim.AdamW(layer.parameters(), lr=given["rate"])
    features, text = given["features"][0], given["text"][0]

    def probability(values: torch.Tensor) -> torch.Tensor:
        changed = 0.5 * values + 0.5 * layer(values / values.norm(dim=-1, keepdim=True))
        return (changed / changed.norm(dim=-1, keepdim=True) @ text.T).softmax(dim=-1)

    for noise in draws.noise:
        clean, noisy = probability(features), probability(features + noise)
        entropy = -(clean * clean.log()).sum(dim=-1).mean()
        loss = entropy + 0.5 * (-noisy[:, 1].log() - clean[:, 0].log()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    unit = features / features.norm(dim=-1, keepdim=True)
    close(adapt(**given)[0][0], (0.5 * features + 0.5 * layer(unit)).detach(), atol=1e-5, rtol=0)


def test_no_image_learns_from_another(methods):
    """By default the order of the images is without effect; with the published optimiser it is not."""
    first, second = image(56, 56), image(56, 56, seed=4)
    fresh = judge(methods["visa"], second).anomaly_map
    judge(methods["visa"], first)
    assert torch.equal(judge(methods["visa"], second).anomaly_map, fresh)

    kept = methods["kept"]
    kept.forget()
    alone = judge(kept, second).anomaly_map
    kept.forget()
    judge(kept, first)
    assert (judge(kept, second).anomaly_map - alone).abs().max() > 1e-6
    kept.forget()
    assert torch.equal(judge(kept, second).anomaly_map, alone)


def test_the_seed_decides(backbone, methods):
    other = AnoVl(backbone, AnoVlConfig(seed=7))
    other._known.update(methods["visa"]._known)
    pixels = image(56, 56)
    assert (judge(other, pixels).anomaly_map - judge(methods["visa"], pixels).anomaly_map).abs().max() > 1e-5


@pytest.mark.parametrize("name", ["visa", "mvtec"])
def test_it_adapts_where_autograd_is_off(backbone, methods, name):
    pixels = image(56, 56)
    expected = judge(methods[name], pixels).anomaly_map
    with torch.inference_mode():
        inference = methods[name].score_pixels(pixels, methods[name].text_vectors(NAMES)[0]).anomaly_map
    close(inference.clone(), expected, atol=1e-6, rtol=0)
    assert not list(methods[name].parameters())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in backbone.parameters())


def test_presets_fill_in_what_is_left_open():
    visa, mvtec = AnoVlConfig(), AnoVlConfig(preset="mvtec", augment=False)
    assert (visa.tiling, visa.adapter, visa.loss_on, visa.augment) == (True, "linear", "pixels", False)
    assert (mvtec.tiling, mvtec.adapter, mvtec.loss_on, mvtec.augment) == (False, "text", "tokens", False)


def test_the_border_of_the_pooled_map_is_repeated():
    values = torch.zeros(1, 1, 3, 3)
    values[..., 0, 0] = 9.0
    assert pool(values, 3)[0, 0, 0, 0] == 4.0  # the corner and its three copies, of nine
    assert torch.equal(pool(values, 1), values)


def test_text_vectors_of_somebody_else_are_refused(backbone, methods):
    method, pixels = methods["mvtec"], image(56, 56, count=2)
    with pytest.raises(InputError, match="give what its text_vectors gave"):
        method.score_pixels(pixels, torch.randn(2, 48))
    with pytest.raises(InputError, match="3 categories were given for 2 images"):
        method.score_pixels(pixels, torch.randn(3, 2, 48))
    plain = backbone.vision(pixels, method.request)
    with pytest.raises(InputError, match="take tokens from its own"):
        method.score(plain, torch.randn(2, 48), (56, 56))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "btad"}, "preset must be one of visa, mvtec"),
        ({"adapter": "conv"}, "text or linear"),
        ({"loss_on": "image"}, "tokens or pixels"),
        ({"pool": 2}, "odd number"),
        ({"steps": -1}, "steps must not be negative"),
        ({"rate": 0}, "rate must be positive"),
        ({"noise_std": -1}, "noise_std must not be negative"),
        ({"top_share": 0}, r"top_share must lie in \(0, 1\]"),
    ],
)
def test_wrong_settings(backbone, values, message):
    with pytest.raises(InputError, match=message):
        create_method("anovl", backbone, values)


# --- through a detector


@pytest.mark.parametrize(("preset", "kept"), [("visa", True), ("mvtec", False)])
def test_a_detector_keeps_the_aspect_that_tiles_need(backbone, preset, kept):
    """An image of 1 : 3 enters the tower as squares beside one another, or squeezed where nothing is cut."""
    settings = {"preset": preset, "augment": False, "adapt": False}
    detector = Detector(backbone, device="cpu", image_size=84, method="anovl", settings=settings)
    pixels = torch.randint(0, 256, (40, 120, 3), generator=torch.Generator().manual_seed(2)).byte().numpy()
    seen = []
    original = backbone.vision.forward
    backbone.vision.forward = lambda given, *rest: seen.append(tuple(given.shape)) or original(given, *rest)
    try:
        (found,) = detector.predict_arrays([pixels])
    finally:
        del backbone.vision.forward
    assert seen == [(4, 3, 42, 42) if kept else (1, 3, 84, 84)]
    assert found.anomaly_map.shape == (40, 120)
    assert detector.describe()["keep_aspect"] is kept
    assert detector.input_size(40, 120) == ((42, 140) if kept else (84, 84))


def test_a_method_without_tiles_leaves_the_aspect_to_the_backbone(backbone):
    from dataclasses import replace

    for wish in (False, True):
        other = make_backbone(replace(make_config("gelu"), keep_aspect=wish))
        assert Detector(other, device="cpu", image_size=84, method="clip").keep_aspect is wish
