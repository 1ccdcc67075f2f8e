"""What is known of an environment besides its dynamics."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from mbrl_bilevel.envs.task_functions import Rewards, Terminations
from mbrl_bilevel.envs.termination import non_finite
from mbrl_bilevel.protocols import RewardFunction

TerminationFunction = Callable[[Float[Tensor, "*s o"]], Bool[Tensor, "*s"]]


@dataclass(frozen=True)
class Task:
    """A task by its functions of observations (`mbrl_bilevel.protocols.Task`).

    `observation_names` has one name for each dimension; those of velocities begin with "vel_".
    `reference_scores` are the returns of a random and of an expert policy over 1,000 steps, the 0
    and 100 of a normalised score (D4RL, Fu et al. 2020, measured in the v2 tasks), or None.
    `reward_rmse` is the root mean square error of an approximate reward function; 0: exact.

    The functions may return whatever `Rewards` and `Terminations` take; those of a task return one
    float and one boolean for each state.
    """

    env_id: str
    reward: RewardFunction | None
    terminated: TerminationFunction
    observation_names: tuple[str, ...]
    reference_scores: tuple[float, float] | None = None
    reward_rmse: float = 0.0

    @property
    def never_ends(self) -> bool:
        """Whether no finite observation ends an episode."""
        return getattr(self.terminated, "function", self.terminated) is non_finite

    def __post_init__(self) -> None:
        if self.reward is not None and not isinstance(self.reward, Rewards):
            object.__setattr__(self, "reward", Rewards(self.env_id, self.reward))
        if not isinstance(self.terminated, Terminations):
            object.__setattr__(self, "terminated", Terminations(self.env_id, self.terminated))
