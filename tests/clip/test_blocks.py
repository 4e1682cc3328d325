"""An MLP that works in parts says what it says at once."""

import pytest
import torch

from headclip.clip.blocks import ACTIVATIONS, ROWS, Mlp


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("shape", [(3,), (2, 7), (2, ROWS + 3), (1, ROWS), (0, 7)])
def test_mlp_in_parts_equals_the_whole(activation, shape):
    torch.manual_seed(0)
    mlp = Mlp(8, 24, activation).requires_grad_(False)
    x = torch.randn(*shape, 8)
    given = x.clone()
    whole = mlp.proj(mlp.activation(mlp.fc(x)))
    torch.testing.assert_close(mlp(x), whole, rtol=1e-5, atol=1e-6)
    assert torch.equal(x, given)


def test_gradients_reach_what_learns():
    mlp = Mlp(8, 24, "quick_gelu").requires_grad_(False)
    x = torch.randn(2, 5, 8, requires_grad=True)
    mlp(x).sum().backward()
    assert x.grad is not None
    mlp.requires_grad_(True)
    mlp(x.detach()).sum().backward()
    assert mlp.fc.weight.grad is not None
