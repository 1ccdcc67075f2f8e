"""Gradients of an ensemble, clipped member by member."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def clip_by_member(parameters: Iterable[nn.Parameter], max_norm: float) -> Float[Tensor, "e"]:
    """Scales every member's gradient to a norm of at most `max_norm`; returns the norms before.

    A norm over the whole ensemble would let one member's outlier slow the others.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
    scale = (max_norm / (norm + 1e-12)).clamp(max=1.0)
    for g in gradients:
        g.mul_(scale.view(-1, *[1] * (g.ndim - 1)))
    return norm
