"""What ends an episode in every task."""

from jaxtyping import Bool, Float
from torch import Tensor

from mbrl_bilevel.finite import finite_rows


def non_finite(next_obs: Float[Tensor, "*s o"]) -> Bool[Tensor, "*s"]:
    """True where any entry is not finite; the whole rule of a task that never terminates.

    No simulation goes on from such an observation, and a rollout of a learned model must not.
    """
    return ~finite_rows(next_obs)


def outside(value: Float[Tensor, "*s"], low: float, high: float) -> Bool[Tensor, "*s"]:
    """True where `value` is not strictly between `low` and `high`; NaN is outside."""
    return ~((low < value) & (value < high))
