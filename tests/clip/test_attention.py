"""Attention in blocks equals the fused kernel, whatever the blocks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from headclip.clip import attention
from headclip.clip.attention import attend, attend_in_blocks, attend_in_products


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
    for name in ("attend_in_blocks", "attend_in_products"):
        way = getattr(attention, name)
        monkeypatch.setattr(attention, name, lambda *args, name=name, way=way: taken.append(name) or way(*args))
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
    assert way(q, k, learning) == ["attend_in_products"]
    with torch.no_grad():
        assert way(q, k, learning) == ["attend_in_blocks"]
    monkeypatch.setattr(attention, "fused_bf16_is_slow", lambda: False)
    assert way(q, k, v) == way(q, k, learning) == []


def test_products_agree_with_the_fused_kernel_in_values_and_gradients():
    fused = [x.clone().requires_grad_() for x in heads(2, 40, torch.float32)]
    plain = [x.detach().clone().requires_grad_() for x in fused]
    expected, found = F.scaled_dot_product_attention(*fused, scale=0.3), attend_in_products(*plain, 0.3)
    torch.testing.assert_close(found, expected)
    for result in (expected, found):
        result.square().sum().backward()
    for one, other in zip(fused, plain, strict=True):
        torch.testing.assert_close(other.grad, one.grad)


def test_gradients_pass(monkeypatch):
    monkeypatch.setattr(attention, "fused_bf16_is_slow", lambda: True)
    q, k, v = heads(1, 300, torch.bfloat16)
    v = v.clone().requires_grad_()
    attend(q, k, v).sum().backward()
    assert v.grad is not None
    assert torch.isfinite(v.grad).all()


def test_causal_attention_stays_causal(monkeypatch):
    monkeypatch.setattr(attention, "fused_bf16_is_slow", lambda: True)
    q, k, v = heads(1, 300, torch.bfloat16)
    later = v.clone()
    later[:, :, 100:] = 0
    assert torch.equal(attend(q, k, v, causal=True)[:, :, :100], attend(q, k, later, causal=True)[:, :, :100])
