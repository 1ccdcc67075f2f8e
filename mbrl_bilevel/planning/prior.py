"""Actions near a policy: its mean action in the state at hand, and a deviation from it."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

Policy = Callable[[Float[Tensor, "*s o"]], Float[Tensor, "*s a"]]


@dataclass(frozen=True)
class PolicyPrior:
    """a = clamp(pi(s) + deviation): what a planner that searches deviations acts by.

    `low` and `high` are the bounds [a] of actions, `policy` is pi, in the environment's units.
    """

    policy: Policy
    low: Float[Tensor, "a"]
    high: Float[Tensor, "a"]

    def __call__(
        self, obs: Float[Tensor, "*s o"], deviation: Float[Tensor, "*s a"]
    ) -> Float[Tensor, "*s a"]:
        return (self.policy(obs) + deviation).clamp(self.low, self.high)

    def largest_deviation(self) -> Float[Tensor, "a"]:
        """Half of the box: the bound of deviations, either way, that planners search within."""
        return (self.high - self.low) / 2
