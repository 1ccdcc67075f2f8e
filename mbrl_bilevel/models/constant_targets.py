"""Targets that are constant in the training part, which no model learns from."""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl_bilevel.data.standardizer import is_constant
from mbrl_bilevel.errors import InputError

NAMED = 5  # names in a warning; the rest is counted


def informative_targets(targets: Float[Tensor, "b n"]) -> Int[Tensor, "k"]:
    """The targets that are not constant over the training part, in order.

    Raises:
        InputError: there is none.
    """
    informative = torch.nonzero(~is_constant(targets)).squeeze(-1)
    if len(informative) == 0:
        raise InputError(
            f"all {targets.shape[1]} targets (changes of the observation, and the reward if it is "
            f"learned) are constant over {len(targets)} training transitions: there is nothing to "
            "learn; collect data in which something changes"
        )
    return informative


def warn_of_constant(names: Sequence[str], targets: int) -> None:
    """Says which of so many targets are constant in the training part, if any is."""
    if names:
        warnings.warn(
            f"{len(names)} of {targets} targets are constant in the training part; they are "
            f"predicted as that constant and left out of every loss and figure: {listed(names)}",
            stacklevel=3,
        )


def warn_of_constant_actions(action: Float[Tensor, "b a"]) -> None:
    """Says which dimensions of the actions never change, so that nobody can learn what they do."""
    still = torch.nonzero(is_constant(action)).squeeze(-1).tolist()
    if still:
        warnings.warn(
            f"{len(still)} of {action.shape[1]} action dimensions are constant in the training "
            f"part ({listed([f'action {i}' for i in still])}): the model cannot know what they "
            "do, and no planner or policy can be trusted with them; collect data in which they "
            "vary",
            stacklevel=3,
        )


def listed(names: Sequence[str]) -> str:
    """A handful of names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
