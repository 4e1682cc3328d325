"""Several streams from one pass: each equals a pass of its own."""

from __future__ import annotations

import pytest
import torch

from headclip.clip.streams import Stream, run_streams
from headclip.clip.vision import VisionRequest
from headclip.errors import InputError
from tiny_clip import make_backbone, make_config

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def tower():
    return make_backbone(make_config()).vision


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 56, 42, generator=torch.Generator().manual_seed(1))


def weights(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))


STREAMS = {
    "plain": Stream(VisionRequest()),
    "plain, tapped": Stream(VisionRequest(taps=(1, 3))),
    "csa": Stream(VisionRequest(csa=(2, 3), taps=(1, 2, 3))),
    "csa, fewer taps": Stream(VisionRequest(csa=(2, 3), taps=(3,))),
    "csa, shorter": Stream(VisionRequest(csa=(2, 2), taps=(2,))),
    "csa, everywhere": Stream(VisionRequest(csa=(1, 3), taps=(3,))),
    "csa and its own": Stream(VisionRequest(csa=(2, 3), taps=(3,), plain=(1, 2, 3))),
    "its own alone": Stream(VisionRequest(plain=(3,))),
    "without base": Stream(VisionRequest(csa=(2, 3), taps=(2, 3), with_base=False)),
    "query-query": Stream(VisionRequest(csa=(2, 3), taps=(3,), similarity="qq")),
    "sharper": Stream(VisionRequest(csa=(2, 3), taps=(3,), scale=1.0)),
    "weighted": Stream(VisionRequest(csa=(2, 3), taps=(3,)), weights(2, 1)),
    "weighted, the same": Stream(VisionRequest(csa=(2, 3), taps=(2,)), weights(2, 1)),
    "weighted otherwise": Stream(VisionRequest(csa=(2, 3), taps=(2, 3)), weights(2, 2)),
    "weighted, one layer": Stream(VisionRequest(csa=(2, 2), taps=(1, 2)), weights(1, 3)),
}


def check_equal(tower, pixels, streams) -> None:
    for stream, found in zip(streams, run_streams(tower, pixels, streams), strict=True):
        alone = tower(pixels, stream.request, stream.head_weights)
        close(found.cls, alone.cls, atol=1e-5, rtol=1e-5)
        assert found.grid == alone.grid
        assert found.local.keys() == alone.local.keys()
        for tap, tokens in alone.local.items():
            close(found.local[tap], tokens, atol=1e-5, rtol=1e-5)
        assert found.plain.keys() == alone.plain.keys()
        for layer, tokens in alone.plain.items():
            close(found.plain[layer], tokens, atol=1e-5, rtol=1e-5)


def test_each_stream_equals_a_pass_of_its_own(tower, pixels):
    check_equal(tower, pixels, list(STREAMS.values()))


@pytest.mark.parametrize("name", STREAMS)
def test_a_single_stream_equals_the_tower(tower, pixels, name):
    check_equal(tower, pixels, [STREAMS[name]])


def test_the_layers_run_once_and_equal_projections_too(tower, pixels, monkeypatch):
    calls = {"project": 0, "out": 0}
    for block in tower.blocks:
        for name, part in (("project", block.attn.project), ("out", block.attn.out.forward)):
            target = block.attn if name == "project" else block.attn.out

            def counted(*given, name=name, part=part):
                calls[name] += 1
                return part(*given)

            monkeypatch.setattr(target, "project" if name == "project" else "forward", counted)
    names = ("plain", "csa", "csa, fewer taps", "csa, everywhere", "weighted", "weighted, the same")
    run_streams(tower, pixels, [STREAMS[name] for name in names])
    assert calls["project"] == 3
    # the global stream 3; no weights: layers 1-3; the two that are weighted alike: layers 2 and 3
    assert calls["out"] == 3 + 3 + 2


def test_what_cannot_be_shared_is_refused(tower, pixels):
    bilinear, bicubic = (Stream(VisionRequest(interpolation=name)) for name in ("bilinear", "bicubic"))
    with pytest.raises(InputError, match="position embeddings"):
        run_streams(tower, pixels, [bilinear, bicubic])
    native = pixels[:, :, :42, :42]
    check_equal(tower, native, [bilinear, bicubic])  # nothing is resized
    with pytest.raises(InputError, match="at least one stream"):
        run_streams(tower, pixels, [])
    with pytest.raises(InputError, match="none that keeps"):
        run_streams(tower, pixels, [Stream(VisionRequest(csa=(1, 3), keep_heads=True))])
    with pytest.raises(InputError, match="tower of 3 layers"):
        run_streams(tower, pixels, [bilinear, Stream(VisionRequest(csa=(1, 9)))])
