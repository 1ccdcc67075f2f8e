"""Bounds of observations, as far as real ones keep to them."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl_bilevel.protocols import Task


def outside_bounds(space: Box, observations: Float[Tensor, "m o"]) -> Bool[Tensor, "o"]:
    """In which dimensions any observation lies outside the space."""
    low, high = bounds(space, observations)
    return ((observations < low) | (observations > high)).any(0)


def unbounded(space: Box, dimensions: Bool[Tensor, "o"]) -> Box:
    """The space without its bounds in some dimensions.

    Bounds that real observations leave are no bounds of the real environment: a model that is held
    inside them would be wrong there.
    """
    free = dimensions.cpu().numpy()
    low, high = np.where(free, -np.inf, space.low), np.where(free, np.inf, space.high)
    return Box(low.astype(space.dtype), high.astype(space.dtype), dtype=space.dtype.type)


def warn_of_bounds(
    env_id: str,
    names: Sequence[str],
    space: Box,
    observations: Float[Tensor, "m o"],
    dimensions: Bool[Tensor, "o"],
) -> None:
    """A UserWarning that names the dimensions, and how far observations get outside."""
    numbers = torch.nonzero(dimensions).squeeze(-1).tolist()
    seen = [(observations[:, i].min().item(), observations[:, i].max().item()) for i in numbers]
    shown = [
        f"{names[i]} from {low:g} to {high:g}, declared [{space.low[i]:g}, {space.high[i]:g}]"
        for i, (low, high) in zip(numbers[:3], seen, strict=False)
    ]
    more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
    warnings.warn(
        f"observations lie outside the observation space of {env_id} ({'; '.join(shown)}{more}): "
        "the model's futures have no bounds there; correct the space, or the observations if they "
        "are of another environment",
        stacklevel=3,
    )


def kept_bounds(task: Task, space: Box, starts: Float[Tensor, "m o"]) -> Box:
    """The space without bounds that starts do not keep to, of which there is a warning."""
    left = outside_bounds(space, starts)
    if not bool(left.any()):
        return space
    warn_of_bounds(task.env_id, task.observation_names, space, starts, left)
    return unbounded(space, left)


def bounds(space: Box, like: Tensor) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
    """Low and high [d] of a box, on the device and in the precision of `like`."""
    return torch.from_numpy(space.low).to(like), torch.from_numpy(space.high).to(like)
