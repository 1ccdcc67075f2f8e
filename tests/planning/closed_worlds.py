"""Small models and tasks with known answers, to plan in."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mbrl_bilevel.protocols import RewardFunction, Trajectories


@dataclass
class ClosedTask:
    """A task from two functions."""

    reward: RewardFunction | None = None
    ends: Callable[[Tensor], Tensor] | None = None
    env_id: str = "Closed-v0"
    observation_names: tuple[str, ...] = ()

    def terminated(self, next_obs: Tensor) -> Tensor:
        if self.ends is None:
            return torch.zeros(next_obs.shape[:-1], dtype=torch.bool)
        return self.ends(next_obs)


@dataclass
class LinearModel:
    """next = A obs + B action, without noise; remembers the candidates of every call."""

    A: Tensor
    B: Tensor
    candidates: list[Tensor] = field(default_factory=list)

    def trajectories(
        self, obs: Tensor, actions: Tensor, generator: torch.Generator
    ) -> Trajectories:
        self.candidates.append(actions)
        states = [obs[:, None].expand(-1, actions.shape[1], -1)]
        for t in range(actions.shape[2]):
            states.append(states[-1] @ self.A.T + actions[:, :, t] @ self.B.T)
        return Trajectories(torch.stack(states, dim=2)[None], None)


@dataclass
class Recorded:
    """Always the same trajectories, whatever the actions."""

    observations: Tensor
    rewards: Tensor | None = None

    def trajectories(
        self, obs: Tensor, actions: Tensor, generator: torch.Generator
    ) -> Trajectories:
        return Trajectories(self.observations, self.rewards)
