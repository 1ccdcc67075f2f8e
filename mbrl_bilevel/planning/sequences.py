"""Action sequences: shifted in time, chosen by index, held for several steps."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def shift(plan: Float[Tensor, "*s d a"]) -> Float[Tensor, "*s d a"]:
    """The plan one decision later; its last is repeated."""
    return torch.cat([plan[..., 1:, :], plan[..., -1:, :]], dim=-2)


def take(
    candidates: Float[Tensor, "b n d a"], index: Int[Tensor, "b k"]
) -> Float[Tensor, "b k d a"]:
    """Every environment's own choice among its candidates."""
    return candidates.take_along_dim(index[:, :, None, None], dim=1)


def hold(decisions: Float[Tensor, "*s d a"], steps: int, horizon: int) -> Float[Tensor, "*s t a"]:
    """Each decision repeated for `steps` steps, the last for what the `horizon` leaves."""
    if steps == 1:
        return decisions
    return decisions.repeat_interleave(min(steps, horizon), dim=-2)[..., :horizon, :]
