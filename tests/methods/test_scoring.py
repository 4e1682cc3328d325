"""The map operators and scores against scipy, torch and plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from headclip.methods import scoring
from headclip.methods.scoring import gaussian_operator, grid_to_map, joint_score, similarity, top_share_mean


@pytest.mark.parametrize(("size", "sigma"), [(518, 4.0), (64, 4.0), (10, 4.0), (3, 8.0), (33, 0.7)])
def test_gaussian_is_scipys(size, sigma):
    values = np.random.default_rng(0).random((size, size))
    operator = gaussian_operator(size, sigma).numpy()
    np.testing.assert_allclose(operator @ values @ operator.T, scipy.ndimage.gaussian_filter(values, sigma), atol=1e-12)


@pytest.mark.parametrize(("grid", "size"), [((37, 37), (518, 518)), ((5, 11), (80, 176)), ((1, 3), (16, 48))])
def test_map_is_bilinear_then_gaussian(grid, size):
    values = torch.rand(2, *grid, generator=torch.Generator().manual_seed(0))
    up = F.interpolate(values[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(grid_to_map(values, size), up, atol=1e-5, rtol=0)
    smooth = np.stack([scipy.ndimage.gaussian_filter(image, 4.0) for image in up.double().numpy()])
    torch.testing.assert_close(grid_to_map(values, size, 4.0), torch.from_numpy(smooth).float(), atol=1e-5, rtol=0)


def test_output_resolution_is_a_resize_of_the_smoothed_map():
    values = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    at_tower = grid_to_map(values, (256, 256), 4.0)
    resized = F.interpolate(at_tower[:, None], size=(500, 1260), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(grid_to_map(values, (256, 256), 4.0, (500, 1260)), resized, atol=1e-5, rtol=0)


def test_constant_stays_constant():
    flat = torch.full((1, 7, 9), 0.3)
    torch.testing.assert_close(grid_to_map(flat, (98, 126), 4.0, (33, 500)), torch.full((1, 33, 500), 0.3))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.001, 1.0))
def test_top_share_mean(seed, share):
    values = torch.rand(2, 13, 17, generator=torch.Generator().manual_seed(seed))
    count = max(1, int(13 * 17 * share))
    expected = np.sort(values.flatten(1).numpy(), axis=1)[:, -count:].mean(axis=1)
    np.testing.assert_allclose(top_share_mean(values, share).numpy(), expected, rtol=1e-5)


def test_joint_score_weighs_the_local_part_by_alpha():
    one, two = torch.tensor([0.2]), torch.tensor([0.8])
    assert joint_score(one, two, 0.0).item() == pytest.approx(0.2)
    assert joint_score(one, two, 1.0).item() == pytest.approx(0.8)
    assert joint_score(one, two, 0.25).item() == pytest.approx(0.35)


def test_similarity_is_a_softmax_of_cosines():
    text = F.normalize(torch.randn(2, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    features = 5 * torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(1))
    cosine = F.cosine_similarity(features[:, :, None], text, dim=-1)
    torch.testing.assert_close(similarity(features, text, 0.07), (cosine / 0.07).softmax(-1))
    torch.testing.assert_close(similarity(features, text.expand(3, -1, -1), 0.07), (cosine / 0.07).softmax(-1))


def test_operators_first_built_in_inference_mode_still_train():
    with torch.inference_mode():
        grid_to_map(torch.rand(1, 3, 5), (45, 75), 3.0)
    values = torch.rand(1, 3, 5, requires_grad=True)
    grid_to_map(values, (45, 75), 3.0).sum().backward()
    assert values.grad is not None


def test_smoothing_a_map_at_its_own_size_equals_scipy():
    values = torch.rand(2, 40, 31, generator=torch.Generator().manual_seed(1))
    expected = np.stack([scipy.ndimage.gaussian_filter(value.numpy(), 4.0) for value in values])
    torch.testing.assert_close(grid_to_map(values, (40, 31), 4.0), torch.from_numpy(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("largest", [2**20, 0])  # kept and not
def test_operators_made_while_judging_serve_gradients_too(monkeypatch, largest):
    monkeypatch.setattr(scoring, "LARGEST_KEPT", largest)
    values = torch.rand(1, 43, 29)  # a size that nobody else smooths
    with torch.inference_mode():
        grid_to_map(values, (43, 29), 3.3)
    grid_to_map(values.requires_grad_(), (43, 29), 3.3).sum().backward()
    assert values.grad is not None


def test_images_of_many_sizes_leave_no_large_operators_behind():
    scoring._kept_operator.cache_clear()
    for side in range(4000, 4020):
        grid_to_map(torch.rand(1, 518, 37), (518, 518), 4.0, (side, side))
    assert scoring._kept_operator.cache_info().currsize == 20  # of the columns, 37 patches each
