"""The benchmarks' arithmetic of costs agrees with what PyTorch counts in a pass."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from headclip.clip.vision import VisionRequest
from headclip.methods.headclip import proportional_csa
from tiny_clip import make_backbone, make_config

SOURCE = Path(__file__).parents[2] / "benchmarks" / "towers.py"


@pytest.fixture(scope="module")
def towers():
    spec = importlib.util.spec_from_file_location("towers", SOURCE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["towers"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["towers"]


@pytest.mark.parametrize("kind", ["all tokens", "class token", "dual", "stand-in"])
def test_flops(towers, kind):
    tower, size = make_backbone(make_config()).vision, 56
    first, last = proportional_csa(tower.config.layers)
    requests = {
        "all tokens": VisionRequest(taps=(tower.config.layers,)),
        "class token": VisionRequest(),
        "dual": VisionRequest(csa=(first, last), taps=(last,)),
    }
    pixels = torch.randn(1, 3, size, size)
    with (
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):  # it knows products, not fused kernels
        if kind == "stand-in":
            towers.AnomalyClipStandIn(tower, size, 48)(pixels)
        else:
            tower(pixels, requests[kind])
    extra = 2 * 17 * 128 * 48 + 2 * 16 * 48 * 2 if kind == "stand-in" else 0  # projection, similarity
    assert counter.get_total_flops() - extra == pytest.approx(towers.flops(tower.config, size, kind), rel=1e-9)


def test_the_stand_in_computes_the_dual_stream(towers):
    """Fused or not, the local stream is the same function: CSA layers of the official code in ours."""
    backbone = make_backbone(make_config())
    tower, size = backbone.vision, 56
    stand_in = towers.AnomalyClipStandIn(tower, size, 48)
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    request = VisionRequest(csa=(stand_in.first, tower.config.layers), taps=(tower.config.layers,))
    tokens = tower(pixels, request)
    x, _ = tower.embed(pixels)
    local = x
    for layer, block in enumerate(tower.blocks, start=1):
        if layer < stand_in.first:
            x = local = block(x)
        else:
            plain, consistent = stand_in.doubled(block, x)
            local, x = local + consistent, block.add_mlp(x + plain)
    torch.testing.assert_close(local, tokens.local[tower.config.layers], atol=1e-5, rtol=1e-4)
    assert stand_in(pixels).shape == (2, size, size)
