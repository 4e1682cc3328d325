"""Kept features give what the tower gives."""

from __future__ import annotations

import torch

from headclip.clip.vision import VisionRequest
from headclip.training.features import FeatureStore, frozen_pass
from tiny_clip import make_backbone, make_config

close = torch.testing.assert_close


def test_accumulating_kept_heads_equals_a_pass():
    backbone = make_backbone(make_config())
    pixels = torch.randn(2, 3, 42, 56, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(2, 2, generator=torch.Generator().manual_seed(1))
    for with_base in (True, False):
        request = VisionRequest(csa=(2, 3), taps=(1, 2, 3), with_base=with_base)
        kept = frozen_pass(backbone.vision, pixels, request)
        with torch.no_grad():
            direct = backbone.vision(pixels, request, weights)
        again = backbone.vision.accumulate(kept, request, weights)
        assert again.local.keys() == direct.local.keys() == {1, 2, 3}
        for tap, value in direct.local.items():
            close(again.local[tap], value)
        close(again.cls, direct.cls)
        assert again.grid == direct.grid


def test_the_store_gives_back_each_image_in_any_order():
    backbone = make_backbone(make_config())
    pixels = torch.randn(3, 3, 42, 42, generator=torch.Generator().manual_seed(0))
    request = VisionRequest(csa=(2, 3), taps=(3,))
    store = FeatureStore(torch.float32)
    assert not store.has([0])
    store.put([7, 8, 9], frozen_pass(backbone.vision, pixels, request))
    assert store.has([9, 7])
    kept = store.get([9, 7], torch.device("cpu"), torch.float32)
    alone = frozen_pass(backbone.vision, pixels[[2, 0]], request)
    close(kept.heads[3], alone.heads[3])
    close(kept.base, alone.base)
    assert store.bytes == 4 * 3 * (128 + 3 * 10 * 128)
