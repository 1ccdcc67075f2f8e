"""The protocols that hold the toolkit together.

The core knows these shapes of things and nothing of the tasks, agents or commands built on them.
Shape notation: b batch, n samples (candidate sequences), t time, p particles, e members,
o observation, a action.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

RewardFunction = Callable[
    [Float[Tensor, "*s o"], Float[Tensor, "*s a"], Float[Tensor, "*s o"]], Float[Tensor, "*s"]
]


@runtime_checkable
class Task(Protocol):
    """What a planner must know of an environment beyond its dynamics.

    `reward(obs, act, next_obs)` works on batches of tensors in the environment's own units; it is
    None where the reward cannot be read from observations and must be learned.
    """

    @property
    def env_id(self) -> str:
        """The gymnasium id of the environment."""
        ...

    @property
    def reward(self) -> RewardFunction | None:
        """r(obs, act, next_obs), or None."""
        ...

    @property
    def observation_names(self) -> Sequence[str]:
        """One name for each dimension of the observation."""
        ...

    def terminated(self, next_obs: Float[Tensor, "*s o"]) -> Bool[Tensor, "*s"]:
        """Whether an episode ends in each next observation."""
        ...


class NextStep(NamedTuple):
    """What a model says follows: `reward` is None where the model has no reward head."""

    observation: Float[Tensor, "*s o"]
    reward: Float[Tensor, "*s"] | None


class Trajectories(NamedTuple):
    """Imagined (or simulated) futures of candidate action sequences, one per particle.

    `observations[..., 0, :]` is the start; `rewards` is None where the model has no reward head.
    `disagreement` of members about the next observation, in training standard deviations, is None
    where the model has no members or was not asked for it. `actions` are those that were taken,
    where each particle has its own (see `ActionPrior`); None stands for those that were given.
    """

    observations: Float[Tensor, "p b n t+1 o"]
    rewards: Float[Tensor, "p b n t"] | None
    disagreement: Float[Tensor, "b n t"] | None = None
    actions: Float[Tensor, "p b n t a"] | None = None


@runtime_checkable
class ActionPrior(Protocol):
    """Where sequences are drawn around a policy: the action for a state and a deviation.

    A trajectory model with a prior takes sequences of deviations in place of actions.
    """

    def __call__(
        self, obs: Float[Tensor, "*s o"], deviation: Float[Tensor, "*s a"]
    ) -> Float[Tensor, "*s a"]:
        """Actions within their bounds, in own units."""
        ...


@runtime_checkable
class TransitionModel(Protocol):
    """What imagines transitions for a policy: a learned model, or the physics in its place."""

    @property
    def env_id(self) -> str | None:
        """The id of the environment, where it is known."""
        ...

    @property
    def obs_dim(self) -> int:
        """Dimensions of an observation."""
        ...

    @property
    def act_dim(self) -> int:
        """Dimensions of an action."""
        ...

    @property
    def learn_reward(self) -> bool:
        """Whether `sample` returns rewards."""
        ...

    @property
    def lowest(self) -> Float[Tensor, "o"]:
        """The lowest observations that a step leads to, in its dtype and on its device."""
        ...

    def cast(self, values: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The same values in its dtype."""
        ...

    def check_starts(self, obs: Float[Tensor, "*s o"]) -> None:
        """Warns of observations that it should not start from."""
        ...

    def sample(
        self,
        obs: Float[Tensor, "b o"],
        act: Float[Tensor, "b a"],
        generator: torch.Generator,
        *,
        check_starts: bool = True,
    ) -> NextStep:
        """One step from each row."""
        ...


@runtime_checkable
class TrajectoryModel(Protocol):
    """Anything that a planner can look ahead with: a learned model or the simulator itself."""

    def trajectories(
        self,
        obs: Float[Tensor, "b o"],
        actions: Float[Tensor, "b n t a"],
        generator: torch.Generator,
    ) -> Trajectories:
        """Futures of every sequence of actions from every observation, in own units."""
        ...


@runtime_checkable
class Planner(Protocol):
    """Chooses action sequences for a batch of environments; warm-started between calls."""

    def __call__(
        self,
        model: TrajectoryModel,
        task: Task,
        obs: Float[Tensor, "b o"],
        generator: torch.Generator,
    ) -> Float[Tensor, "b t a"]:
        """The chosen actions of each environment, from now to the horizon."""
        ...

    def reset(self) -> None:
        """Forgets the last plan."""
        ...


@runtime_checkable
class Agent(Protocol):
    """What acts in a real environment, one observation at a time."""

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The action [a] for an observation [o], both in the environment's units."""
        ...

    def reset(self) -> None:
        """Begins a new episode."""
        ...
