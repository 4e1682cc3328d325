"""Packed towers: the same results but for rounding, and the same weights again."""

from __future__ import annotations

import pytest
import torch

from headclip.clip.backbone import hash_tensors
from headclip.clip.blocks import ROWS
from headclip.clip.hardware import has_packed_products
from headclip.clip.packed import is_packed, pack_tower, unpack_tower
from headclip.clip.vision import VisionRequest
from headclip.inference.detector import Detector
from headclip.inference.device import set_precision
from tiny_clip import make_backbone, make_config

REQUEST = VisionRequest(csa=(1, 2), taps=(2,))

needs_packing = pytest.mark.skipif(not has_packed_products(), reason="the CPU has no AVX-512, or torch no oneDNN")


def pixels(batch=2, side=42):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


@needs_packing
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_tower_says_the_same(activation, dtype):
    if dtype == torch.bfloat16 and not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("the CPU has no bf16")
    tower = make_backbone(make_config(activation)).freeze().vision.to(dtype)
    with torch.no_grad():
        plain = tower(pixels().to(dtype), REQUEST)
        packed = pack_tower(tower)(pixels().to(dtype), REQUEST)
    assert is_packed(tower)
    close = {"rtol": 0, "atol": 2e-5 if dtype == torch.float32 else 0.1}
    torch.testing.assert_close(packed.cls, plain.cls, **close)
    torch.testing.assert_close(packed.local[2], plain.local[2], **close)


@needs_packing
def test_weights_come_back_to_the_last_bit():
    tower = make_backbone(make_config("gelu")).freeze().vision
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    size = tower.size
    pack_tower(tower)
    assert hash_tensors(tower.state_dict()) == hash_tensors(before)
    assert tower.size == size == sum(value.numel() for value in before.values())
    unpack_tower(tower)
    assert not is_packed(tower)
    after = tower.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@needs_packing
def test_many_tokens_go_through_in_parts():
    tower = make_backbone(make_config("quick_gelu")).freeze().vision
    many = pixels(batch=ROWS // 4, side=42)
    with torch.no_grad():
        plain = tower(many, REQUEST).cls
        torch.testing.assert_close(pack_tower(tower)(many, REQUEST).cls, plain, rtol=0, atol=2e-5)


@needs_packing
def test_gradients_flow_through_a_packed_tower_to_what_enters():
    tower = make_backbone(make_config("gelu")).freeze().vision
    grads = []
    for change in (lambda tower: tower, pack_tower):
        given = pixels().requires_grad_()
        change(tower)(given, REQUEST).cls.square().sum().backward()
        grads.append(given.grad)
    assert grads[0].abs().max() > 0
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-3, atol=1e-5)


def test_towers_that_learn_are_left_alone():
    tower = make_backbone(make_config("gelu")).vision.requires_grad_(True)
    assert not is_packed(pack_tower(tower))


def test_a_compiled_tower_keeps_the_layers_it_was_compiled_with():
    tower = make_backbone(make_config("gelu")).freeze().vision
    tower.compile()
    assert not is_packed(pack_tower(tower))


def test_a_cpu_without_the_instructions_keeps_its_tower(monkeypatch):
    monkeypatch.setattr("headclip.clip.packed.has_packed_products", lambda: False)
    assert not is_packed(pack_tower(make_backbone(make_config("gelu")).freeze().vision))


@needs_packing
@pytest.mark.filterwarnings("ignore:no checkpoint")
def test_a_detector_packs_and_another_precision_begins_with_the_exact_weights():
    backbone = make_backbone(make_config("gelu")).freeze()
    exact = backbone.vision.blocks[0].mlp.fc.weight.clone()
    detector = Detector(backbone, method="headclip", device="cpu", precision="fp32")
    assert is_packed(detector.backbone.vision)
    layer = backbone.vision.blocks[0].mlp.fc
    Detector(backbone, method="headclip", device="cpu", precision="fp32")
    assert backbone.vision.blocks[0].mlp.fc is layer  # nothing is done twice
    set_precision(backbone, "bf16", torch.device("cpu"))
    assert not is_packed(backbone.vision)
    assert torch.equal(backbone.vision.blocks[0].mlp.fc.weight, exact.bfloat16())
