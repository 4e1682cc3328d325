"""Attention in blocks equals the fused kernel, whatever the blocks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from headclip.clip import attention
from headclip.clip.attention import attend, attend_in_blocks, attend_learning


def heads(batch: int, tokens: int, dtype: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values as a tower makes them: views of one projection, (B, heads, N, head_dim)."""
    joined = torch.randn(batch, tokens, 3 * 4 * 16, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return tuple(part.unflatten(-1, (4, 16)).transpose(1, 2) for part in joined.chunk(3, dim=-1))


@pytest.mark.parametrize("block", [10**7, 4 * 37 * 37, 37 * 37, 5 * 37, 1])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_blocks_of_any_size(monkeypatch, block, scale):
    monkeypatch.setattr(attention, "SCORES", block)
    q, k, v = heads(2, 37, torch.float32)
    torch.testing.assert_close(attend_in_blocks(q, k, v, scale), F.scaled_dot_product_attention(q, k, v, scale=scale))


def test_one_query():
    q, k, v = heads(2, 37, torch.float32)
    first = F.scaled_dot_product_attention(q[:, :, :1], k, v)
    torch.testing.assert_close(attend_in_blocks(q[:, :, :1], k, v), first)


def test_value_value_attention_in_bf16_is_as_near_as_the_rounding_of_its_scores():
    _, _, v = heads(1, 300, torch.bfloat16)
    exact = F.scaled_dot_product_attention(v.float(), v.float(), v.float(), scale=0.25)
    error = (attend_in_blocks(v, v, v, 0.25).float() - exact).abs()
    assert error.max() < 2e-2 * exact.abs().max()
    assert error.mean() < 2e-3 * exact.abs().max()


def test_each_way_has_its_place(monkeypatch):
    taken = []
    for name in ("attend_in_blocks", "attend_learning"):
        way = getattr(attention, name)
        monkeypatch.setattr(attention, name, lambda *args, name=name, way=way: taken.append(name) or way(*args))
    monkeypatch.setattr(attention, "has_fast_bf16", lambda device: True)
    monkeypatch.setattr(attention, "fused_bf16_is_slow", lambda: True)
    q, k, v = heads(1, 300, torch.bfloat16)
    learning = v.clone().requires_grad_()

    def way(*tensors):
        taken.clear()
        attend(*tensors)
        return taken

    assert way(q, k, v) == ["attend_in_blocks"]
    assert way(q, k[:, :, :64], v[:, :, :64]) == []  # few keys
    assert way(q.float(), k.float(), v.float()) == []
    assert way(q, k, learning) == ["attend_learning", "attend_in_blocks"]
    with torch.no_grad():
        assert way(q, k, learning) == ["attend_in_blocks"]
    monkeypatch.setattr(attention, "fused_bf16_is_slow", lambda: False)
    assert way(q, k, v) == []
    assert way(q, k, learning) == ["attend_learning"]
    monkeypatch.setattr(attention, "has_fast_bf16", lambda device: False)
    assert way(q, k, v) == way(q, k, learning) == []


def gradients(way, scale, dtype, *tensors):
    """The result of a way to attend, and what each tensor gets of a loss that weighs every entry differently."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in tensors]
    result = way(*leaves, scale=scale)
    (result.float() * torch.linspace(-1, 2, result.numel()).view(result.shape)).sum().backward()
    return [result, *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("block", [10**7, 3 * 40 * 40, 40 * 40, 1])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_gradients_by_blocks_are_those_of_the_fused_kernel(monkeypatch, block, scale):
    monkeypatch.setattr(attention, "LEARNING_SCORES", block)
    tensors = heads(2, 40, torch.float32)
    expected = gradients(F.scaled_dot_product_attention, scale, torch.float32, *tensors)
    for one, other in zip(gradients(attend_learning, scale, torch.float32, *tensors), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_where_queries_and_keys_differ_in_number_and_values_in_width():
    q, k, v = heads(2, 40, torch.float32)
    tensors = q[:, :, :7], k, torch.cat([v, v[..., :5]], dim=-1)
    expected = gradients(F.scaled_dot_product_attention, None, torch.float32, *tensors)
    for one, other in zip(gradients(attend_learning, None, torch.float32, *tensors), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_values_that_are_queries_and_keys_too_get_the_gradients_of_all_three():
    _, _, v = heads(2, 40, torch.float32)
    expected = gradients(lambda v, scale: F.scaled_dot_product_attention(v, v, v, scale=scale), 0.25, torch.float32, v)
    found = gradients(lambda v, scale: attend_learning(v, v, v, scale), 0.25, torch.float32, v)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_in_bf16_are_about_as_near_as_those_of_the_fused_kernel():
    tensors = heads(2, 145, torch.float32)
    exact = gradients(F.scaled_dot_product_attention, None, torch.float32, *tensors)
    fused = gradients(F.scaled_dot_product_attention, None, torch.bfloat16, *tensors)
    for one, other, right in zip(gradients(attend_learning, None, torch.bfloat16, *tensors), fused, exact, strict=True):
        assert (one - right).norm() < 1.5 * (other - right).norm()
        assert (one - right).norm() < 0.02 * right.norm()


def test_causal_attention_stays_causal(monkeypatch):
    monkeypatch.setattr(attention, "fused_bf16_is_slow", lambda: True)
    q, k, v = heads(1, 300, torch.bfloat16)
    later = v.clone()
    later[:, :, 100:] = 0
    assert torch.equal(attend(q, k, v, causal=True)[:, :, :100], attend(q, k, later, causal=True)[:, :, :100])
