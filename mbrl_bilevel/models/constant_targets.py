"""Targets that are constant in the training part, or nearly so."""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl_bilevel.data.standardizer import is_constant
from mbrl_bilevel.errors import InputError

SPARSE_ABOVE = 0.5  # share of the rows in which a sparse target has one and the same value
ROWS = 50_000  # at most, that are looked at for it
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
            f"predicted as that constant and left out of every loss and metric: {listed(names)}",
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


def sparse_targets(targets: Float[Tensor, "b n"]) -> Bool[Tensor, "n"]:
    """Which targets have one value in more than half of the rows, as contact forces have.

    They have no density: a deviation that depends on the input can make their likelihood as large
    as its bounds allow.
    """
    rows = targets[:: -(-len(targets) // ROWS)]
    return (rows == rows.median(0).values).double().mean(0) > SPARSE_ABOVE


def warn_of_sparse(names: Sequence[str], targets: int) -> None:
    """Says which of so many targets are sparse, if any is."""
    if names:
        warnings.warn(
            f"{len(names)} of {targets} targets that vary are sparse (one value in more than half "
            "of the training rows); their noise is taken to be the same for every input: "
            f"{listed(names)}",
            stacklevel=3,
        )


def listed(names: Sequence[str]) -> str:
    """A handful of names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
