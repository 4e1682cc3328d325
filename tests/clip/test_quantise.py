"""8-bit towers: near the exact ones, and refused where they cannot run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from headclip.clip import quantise
from headclip.clip.quantise import QuantisedLinear, check_int8, is_quantised, quantise_rows, quantise_tower
from headclip.clip.streams import Stream, run_streams
from headclip.clip.vision import VisionRequest
from headclip.errors import InputError
from headclip.inference.detector import Detector
from headclip.inference.device import set_precision
from tiny_clip import make_backbone, make_config

REQUEST = VisionRequest(csa=(2, 3), taps=(3,))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def able(monkeypatch):
    """Results are the same on any CPU; only the speed needs the instructions."""
    monkeypatch.setattr(quantise, "has_fast_int8", lambda: True)


def pixels(seed: int = 1) -> torch.Tensor:
    return torch.randn(2, 3, 56, 42, generator=torch.Generator().manual_seed(seed))


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def test_rows_keep_their_largest_value_and_lose_half_a_step():
    x = torch.randn(5, 33, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1, 50, 1e4, 0])[:, None]
    values, scales = quantise_rows(x)
    back = values * scales
    assert (back - x).abs().le(scales / 2 * 1.001).all()
    assert values[:4].abs().amax(dim=1).eq(127).all()
    assert torch.equal(back[4], torch.zeros(33))


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 7, 512])
def test_linear_is_the_product_of_what_was_rounded(monkeypatch, rows):
    monkeypatch.setattr(quantise, "ROWS", rows)
    torch.manual_seed(0)
    layer = nn.Linear(40, 24)
    eight = QuantisedLinear(layer)
    x = torch.randn(2, 9, 40)
    values, scales = quantise_rows(x.reshape(-1, 40))
    expected = nn.functional.linear(values * scales, eight.weight, layer.bias).unflatten(0, (2, 9))
    torch.testing.assert_close(eight(x), expected)
    torch.testing.assert_close(eight(x, slice(5, 11)), expected[..., 5:11])
    assert relative(eight(x), layer(x)) < 0.02
    assert eight(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_both_streams_stay_near(activation):
    backbone = make_backbone(make_config(activation))
    weights = torch.rand(2, 2)
    exact = backbone.vision(pixels(), REQUEST, weights)
    quantise_tower(backbone.vision)
    found = backbone.vision(pixels(), REQUEST, weights)
    for one, other in ((found.cls, exact.cls), (found.local[3], exact.local[3])):
        assert 0 < relative(one, other) < 0.05
    shared = run_streams(backbone.vision, pixels(), [Stream(REQUEST, weights), Stream(VisionRequest())])
    torch.testing.assert_close(shared[0].local[3], found.local[3])
    torch.testing.assert_close(shared[1].cls, found.cls)


def test_what_stays_in_floats_takes_the_dtype_asked_for_and_scales_do_not():
    tower = quantise_tower(make_backbone(make_config()).vision, torch.bfloat16)
    assert {value.dtype for value in tower.parameters()} == {torch.bfloat16}
    assert {value.dtype for value in tower.buffers()} == {torch.int8, torch.float32}
    before = tower.blocks[0].attn.qkv
    assert quantise_tower(tower).blocks[0].attn.qkv is before
    assert tower(pixels().bfloat16(), REQUEST).cls.isfinite().all()


def test_where_it_cannot_run(monkeypatch):
    with pytest.raises(InputError, match="int8 runs on the CPU, not on cuda"):
        check_int8(torch.device("cuda"))
    monkeypatch.setattr(quantise, "has_fast_int8", lambda: False)
    with pytest.raises(InputError, match="needs a CPU with AVX-512 VNNI or AMX"):
        Detector(make_backbone(make_config()), device="cpu", precision="int8", method="clip")


def test_detector_in_int8():
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    exact = Detector(make_backbone(make_config()), device="cpu", precision="fp32", method="winclip", image_size=42)
    backbone = make_backbone(make_config())
    found = Detector(backbone, device="cpu", precision="int8", method="winclip", image_size=42)
    assert (found.precision, found.describe()["precision"]) == ("int8", "int8")
    assert is_quantised(backbone.vision)
    assert found.describe()["backbone_hash"] == exact.describe()["backbone_hash"]
    assert torch.equal(found.text, exact.text)
    one, other = found.predict_arrays([image])[0], exact.predict_arrays([image])[0]
    assert 0 < abs(one.anomaly_map - other.anomaly_map).max() < 0.1


def test_a_tower_that_lost_its_exact_weights_says_so():
    backbone = make_backbone(make_config())
    Detector(backbone, device="cpu", precision="int8", method="clip")
    assert Detector(backbone, device="cpu", method="clip").precision == "int8"
    with pytest.raises(InputError, match="in int8 already; load it again to use it in fp32"):
        Detector(backbone, device="cpu", precision="fp32", method="clip")


@pytest.mark.parametrize("first", ["fp32", "bf16"])
def test_the_hash_is_that_of_the_exact_weights_whatever_the_precision(first):
    expected = make_backbone(make_config("gelu")).freeze().hash
    backbone = make_backbone(make_config("gelu")).freeze()
    set_precision(backbone, first, CPU)
    assert backbone.hash == expected


def test_a_tower_that_lost_digits_is_not_called_exact():
    backbone = make_backbone(make_config("gelu")).freeze()
    set_precision(backbone, "bf16", CPU)
    assert [set_precision(backbone, name, CPU) for name in ("bf16", "auto")] == ["bf16", "bf16"]
    for name in ("fp32", "int8"):
        with pytest.raises(InputError, match=f"in bf16 already; load it again to use it in {name}"):
            set_precision(backbone, name, CPU)
