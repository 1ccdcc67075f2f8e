"""Bounds of the actions that a planner may choose."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.errors import InputError


def action_bounds(
    low: Sequence[float] | np.ndarray | Tensor, high: Sequence[float] | np.ndarray | Tensor
) -> tuple[Float[Tensor, "a"], Float[Tensor, "a"]]:
    """Both bounds as tensors [a], in the environment's units.

    Raises:
        InputError: unequal lengths, a bound that is not finite, or a low one not below its high.
    """
    lower, upper = torch.as_tensor(low), torch.as_tensor(high)
    if lower.ndim != 1 or lower.shape != upper.shape or not len(lower):
        raise InputError(
            f"action bounds of shapes {list(lower.shape)} and {list(upper.shape)}: "
            "both must be vectors of the same length"
        )
    if not (lower.isfinite().all() and upper.isfinite().all()):
        raise InputError(
            f"action bounds {lower.tolist()} to {upper.tolist()}: planners need finite bounds; "
            "rescale the actions of the environment"
        )
    if not (lower < upper).all():
        raise InputError(
            f"action bounds {lower.tolist()} to {upper.tolist()}: each low must be below its high"
        )
    return lower, upper


def rounded_inward(
    low: Float[Tensor, "a"], high: Float[Tensor, "a"], like: Tensor
) -> tuple[Float[Tensor, "a"], Float[Tensor, "a"]]:
    """Both bounds in the dtype and on the device of `like`, not an ulp outside of what they were.

    Raises:
        InputError: no number of that dtype lies between them.
    """
    lower, upper = low.to(like), high.to(like)
    infinite = torch.full_like(lower, torch.inf)
    below = lower.double() < low.to(like.device, torch.float64)
    above = upper.double() > high.to(like.device, torch.float64)
    lower = torch.where(below, lower.nextafter(infinite), lower)
    upper = torch.where(above, upper.nextafter(-infinite), upper)
    if bool((lower > upper).any()):
        raise InputError(
            f"action bounds {low.tolist()} to {high.tolist()}: no number of {like.dtype} lies "
            "between them; subtract the offset of the actions by a wrapper in the environment"
        )
    return lower, upper
