"""Test-time adaptation of AnoVL (Deng et al., 2023): a small adapter learns from the image that it is to judge.

f' = f / 2 + A(f / |f|) / 2 for each patch feature f. A few steps of AdamW sharpen the probabilities of the image's own
patches (entropy), and tell them (as normal) from the same patches under noise (as abnormal). Nothing outlives the
image, unless the published code's habit is asked for, which keeps the optimiser's state from one image to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

HARD_WEIGHT = 0.5
Probabilities = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Draws:
    """The random numbers of one image's adaptation: weight (outputs, E), bias (outputs,), noise (steps, n, E)."""

    weight: Tensor
    bias: Tensor
    noise: Tensor


def draw(outputs: int, width: int, patches: int, *, steps: int, noise_std: float, seed: int) -> Draws:
    """First values of the adapter, U(-1/sqrt(E), 1/sqrt(E)) as torch starts a linear layer, and the noise.

    Each image gets the same, so that none depends on those before it or beside it.
    """
    generator = torch.Generator().manual_seed(seed)
    bound = width**-0.5
    weight = torch.empty(outputs, width).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(outputs).uniform_(-bound, bound, generator=generator)
    return Draws(weight, bias, noise_std * torch.randn(steps, patches, width, generator=generator))


def apply_adapter(features: Tensor, weight: Tensor, bias: Tensor, prompts: Tensor | None) -> Tensor:
    """Half the feature and half what the adapter makes of its direction.

    Args:
        features: (B, n, E). weight: (B, outputs, E). bias: (B, outputs).
        prompts: (B, outputs, E) unit vectors of the single sentences: the outputs, after tanh, are their coefficients;
            None: the outputs are the new feature itself, and outputs = E.
    """
    changed = F.normalize(features, dim=-1) @ weight.transpose(1, 2) + bias[:, None]  # (B, n, outputs)
    if prompts is not None:
        changed = changed.tanh() @ prompts
    return (features + changed) / 2


def cosines(features: Tensor, text: Tensor) -> Tensor:
    """(B, n, E) and (B, 2, E) -> (B, n, 2)."""
    return F.normalize(features, dim=-1) @ text.transpose(1, 2)


def adaptation_loss(clean: Tensor, noisy: Tensor) -> Tensor:
    """(B,) losses of probabilities (B, m, 2), order normal, abnormal: the entropy of the clean ones, and half the cost
    of taking the clean ones for normal and the noisy ones for abnormal."""
    entropy = -(clean * clean.log()).sum(dim=-1).mean(dim=1)
    told = -(noisy[..., 1].log() + clean[..., 0].log()).mean(dim=1)
    return entropy + HARD_WEIGHT * told


def adapt(
    features: Tensor,
    text: Tensor,
    prompts: Tensor | None,
    draws: Draws,
    probabilities: Probabilities,
    *,
    rate: float,
    state: dict[str, Any] | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Adapt to each image of a batch on its own and return its features, adapted.

    AdamW works element by element, so that one optimiser over a stack of adapters does what one for each would.

    Args:
        features: (B, n, E) patches, not of unit length. text: (B, 2, E). prompts: as for `apply_adapter`, or None.
        probabilities: cosines (B, n, 2) to the probabilities (B, m, 2) that the loss looks at.
        state: of an earlier call's optimiser, to go on from; it must have been for as many images.

    Returns:
        Adapted features (B, n, E), losses (steps, B), and the optimiser's state.
    """
    batch = len(features)
    with torch.inference_mode(False), torch.enable_grad():
        # clones: tensors made in inference mode cannot take part in autograd
        features, text = features.detach().clone(), text.detach().float().clone()
        prompts = None if prompts is None else prompts.detach().float().clone()
        first = (draws.weight, draws.bias)
        weight, bias = (
            value.clone().to(features).expand(batch, *value.shape).clone().requires_grad_() for value in first
        )
        optimiser = torch.optim.AdamW([weight, bias], lr=rate)
        if state is not None:
            optimiser.load_state_dict(state)
        losses = []
        for noise in draws.noise.clone().to(features):
            both = torch.cat([features, features + noise])  # (2 B, n, E)
            doubled = None if prompts is None else prompts.repeat(2, 1, 1)
            changed = apply_adapter(both, weight.repeat(2, 1, 1), bias.repeat(2, 1), doubled)
            clean, noisy = probabilities(cosines(changed, text.repeat(2, 1, 1))).chunk(2)
            loss = adaptation_loss(clean, noisy)
            optimiser.zero_grad()
            loss.sum().backward()
            optimiser.step()
            losses.append(loss.detach())
    with torch.no_grad():
        adapted = apply_adapter(features, weight, bias, prompts).detach()
    return adapted, torch.stack(losses) if losses else features.new_zeros(0, batch), optimiser.state_dict()
