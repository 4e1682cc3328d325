"""Detail filters: what they add to a patch's embedding, how a tower gets them, and how they are kept on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from headclip.clip.backbone import Backbone
from headclip.clip.config import ClipConfig, VisionConfig
from headclip.clip.detail import Detail
from headclip.clip.initialise import grow, initialise, signed_filters
from headclip.clip.layouts import expected_shapes, infer_config, to_openai, to_ours
from headclip.clip.weights import load_backbone, save_backbone
from headclip.errors import BackboneError, InputError
from tiny_clip import assert_same, make_backbone, make_config


def with_detail(filters: int = 6, text: bool = True, rarity: bool = False) -> ClipConfig:
    vision = VisionConfig(64, 3, 1, 16, 48, activation="gelu", detail=filters, rarity=rarity)
    return replace(make_config("gelu", text=text), vision=vision)


def pixels(height: int = 48, width: int = 80) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(3))


def cut(images: Tensor, patch: int) -> Tensor:
    """(B, 3, H, W) -> (B, rows, columns, 3, p, p)."""
    return images.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 1, 4, 5)


def test_patches_that_were_cut_out_give_the_same():
    detail = make_backbone(with_detail()).vision.detail
    assert detail is not None
    images = pixels()
    patches = cut(images, 16)
    alone = detail.answers(patches.flatten(0, 2)).view(len(images), -1, 6, 16)
    assert torch.allclose(detail.answers(images), alone, atol=1e-5)
    assert detail(alone).shape == (len(images), alone.shape[1], 64)


def test_what_finer_filters_answer_does_not_depend_on_the_sign():
    filters = signed_filters(12, 4, torch.Generator().manual_seed(0))
    detail = Detail(6, 12, 16)
    with torch.no_grad():
        detail.filters.weight.copy_(filters)
        detail.filters.bias.zero_()
        for pair in range(6):  # both signs of a wave, in all cells
            detail.mix.view(6, 12, 16)[pair, 2 * pair : 2 * pair + 2] = 1.0
    noise = 0.05 * torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    once, turned, twice = (detail(detail.answers(pixels)) for pixels in (noise, -noise, 2 * noise))
    assert torch.allclose(once, turned, rtol=0.25)  # first values are stirred a little
    assert bool((twice > 1.3 * once).all())


def test_a_tower_with_detail_begins_as_the_one_without():
    plain = make_backbone(replace(with_detail(), vision=replace(with_detail().vision, detail=0)))
    grown = grow(plain, with_detail())
    with torch.no_grad():
        assert torch.allclose(grown.vision(pixels()).cls, plain.vision(pixels()).cls, atol=1e-5)
        assert grown.vision.detail is not None
        grown.vision.detail.mix.fill_(0.01)
        assert not torch.allclose(grown.vision(pixels()).cls, plain.vision(pixels()).cls)
    with pytest.raises(InputError, match="detail filters"):
        grow(grown, plain.config)


def test_first_values_are_the_seeds():
    one, again = (initialise(Backbone(with_detail(text=False)), seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert bool(one["vision.detail.filters.weight"].any())
    assert not bool(one["vision.detail.mix"].any())


@pytest.mark.parametrize("rarity", [False, True])
def test_it_is_kept_in_a_folder(tmp_path: Path, rarity: bool):
    backbone = make_backbone(with_detail(rarity=rarity))
    save_backbone(backbone, tmp_path / "model", dtype=torch.float32)
    again = load_backbone(tmp_path / "model")
    assert again.config == backbone.config
    assert_same(again, backbone)


@pytest.mark.parametrize("rarity", [False, True])
def test_it_is_read_from_a_single_file(rarity: bool):
    config = with_detail(rarity=rarity)
    state = to_openai(make_backbone(config).state_dict())
    found = infer_config(state, name="tiny", activation="gelu")
    assert found.vision == config.vision
    assert to_ours(state, found).keys() == expected_shapes(config).keys()


@pytest.mark.parametrize(("patch", "filters"), [(14, 8), (16, -1), (16, 1.5), (16, "many")])
def test_impossible_ones_are_refused(patch: int, filters: object):
    values = with_detail().to_dict()
    values["vision"] |= {"patch_size": patch, "image_size": 3 * patch, "detail": filters}
    with pytest.raises(BackboneError, match="detail"):
        ClipConfig.from_dict(values)


def test_a_grown_tower_takes_over_how_images_are_prepared():
    plain = make_backbone(make_config("gelu"))
    wished = replace(plain.config, keep_aspect=True, least_side=0.7, default_image_size=70)
    grown = grow(plain, wished)
    assert grown.config == wished
    assert_same(grown, plain)
