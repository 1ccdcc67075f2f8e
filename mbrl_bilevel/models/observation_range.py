"""The range of observations that a model was trained on, and what starts outside of it."""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def reachable(
    obs: Float[Tensor, "*s o"],
    lowest: Float[Tensor, "o"],
    highest: Float[Tensor, "o"],
    reach: Float[Tensor, "o"],
) -> tuple[Float[Tensor, "*s o"], Float[Tensor, "*s o"]]:
    """Bounds of what may follow `obs`: the range, in the dimensions in which `obs` lies inside it.

    In the others the bounds are `reach` on both sides of `obs`: a start outside the range is moved
    on by changes like those of the training data, and not thrown back to the edge of the range.
    """
    outside = (obs < lowest) | (obs > highest)
    return torch.where(outside, obs - reach, lowest), torch.where(outside, obs + reach, highest)


def clamp_to_reachable(
    after: Float[Tensor, "*s o"],
    obs: Float[Tensor, "*s o"],
    lowest: Float[Tensor, "o"],
    highest: Float[Tensor, "o"],
    reach: Float[Tensor, "o"],
) -> Float[Tensor, "*s o"]:
    """`after`, clamped to the bounds of `reachable`, in two thirds of the time."""
    inside = obs.clamp(lowest, highest) == obs
    near = after.clamp(obs - reach, obs + reach)
    return torch.where(inside, after.clamp(lowest, highest), near)


def warn_of_starts_outside(
    obs: Float[Tensor, "*s o"],
    lowest: Float[Tensor, "o"],
    highest: Float[Tensor, "o"],
    names: Sequence[str],
) -> bool:
    """Whether any start lies outside the range, which a UserWarning then says by its worst one.

    Waits for the device once: call it where a plan or an episode begins, not at every step.
    """
    rows = obs.reshape(-1, obs.shape[-1])
    outside = (rows < lowest) | (rows > highest)
    if not bool(outside.any()):
        return False
    distance = torch.maximum(lowest - rows, rows - highest) / (highest - lowest).clamp_min(1e-30)
    row, o = divmod(int(distance.masked_fill(~outside, -1.0).argmax()), rows.shape[1])
    warnings.warn(
        f"{int(outside.any(-1).sum())} of {len(rows)} starts lie outside the range of the model's "
        f"training data, for example {names[o]} = {float(rows[row, o]):.6g} where the range is "
        f"{float(lowest[o]):.6g} to {float(highest[o]):.6g}: what the model predicts there is "
        "extrapolated; train on data that reach there (warned of once)",
        stacklevel=4,
    )
    return True
