"""Tokens times full-precision weights in bf16: what tokens have in common loses nothing."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from headclip.clip.mixed import mixed_linear


def example():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    x = (draw(2, 200, 64) + 4 * draw(64)).half()  # tokens with much in common, as those of a tower have
    return x, draw(48, 64), draw(48), draw(2, 200, 48)


def test_the_mean_token_is_nearly_exact():
    x, weight, bias, _ = example()
    exact = F.linear(x.double(), weight.double(), bias.double())
    rounded = F.linear(x.float(), weight.bfloat16().float(), bias)
    found = mixed_linear(x, weight, bias)
    assert found.dtype == torch.float32
    mean_error, rounded_error = ((y.double() - exact).mean(dim=1).norm() for y in (found, rounded))
    assert mean_error < 0.1 * rounded_error
    assert (found - exact).norm() < 3e-3 * exact.norm()


def test_gradients_reach_weight_and_bias_alone():
    x, weight, bias, gradient = example()
    weight.requires_grad_(True), bias.requires_grad_(True)
    F.linear(x.float(), weight, bias).backward(gradient)
    exact = weight.grad.clone(), bias.grad.clone()
    weight.grad = bias.grad = None
    mixed_linear(x, weight, bias).backward(gradient)
    assert (weight.grad - exact[0]).norm() < 5e-3 * exact[0].norm()
    torch.testing.assert_close(bias.grad, exact[1])
