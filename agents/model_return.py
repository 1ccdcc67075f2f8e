"""The return of a differentiated rollout in a model, ended by a value (Kubo et al. 2025).

R = sum_{t<h} gamma^t m_t (r_t - alpha log pi_t) + gamma^h m_h (Q(s_h, a_h) - alpha log pi_h),
m_t = 1 until the rollout has terminated, 0 from there on
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Rollout(NamedTuple):
    """A differentiated rollout of h steps; `alive` is m of the module's docstring."""

    first: Float[Tensor, "b i"]  # standardised s_0 and unit a_0, which critics read
    last: Float[Tensor, "b i"]  # s_h and a_h
    rewards: Float[Tensor, "h b"]
    log_probs: Float[Tensor, "h+1 b"]
    alive: Float[Tensor, "h+1 b"]
    actions: list[Float[Tensor, "b a"]]


def model_return(
    rollout: Rollout,
    last_value: Float[Tensor, "b"],
    alpha: Float[Tensor, ""],
    discount: float,
    *,
    first_entropy: bool,
) -> Float[Tensor, "b"]:
    """R of the module's docstring, with `last_value` for Q(s_h, a_h)."""
    entropy = -alpha * rollout.log_probs
    if not first_entropy:
        entropy = torch.cat([torch.zeros_like(entropy[:1]), entropy[1:]])
    gains = torch.cat([rollout.rewards + entropy[:-1], (last_value + entropy[-1]).unsqueeze(0)])
    weight = discount ** torch.arange(len(gains), device=gains.device, dtype=gains.dtype)
    # Not by a product: what follows a termination may be anything, NaN included.
    counted = torch.where(rollout.alive > 0, gains, 0.0)
    return (weight.unsqueeze(-1) * counted).sum(0)
