"""Small models and tasks with known answers, to plan in."""

import math
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
    disagreement: Tensor | None = None

    def trajectories(
        self, obs: Tensor, actions: Tensor, generator: torch.Generator
    ) -> Trajectories:
        return Trajectories(self.observations, self.rewards, self.disagreement)


# A double integrator with a step of 0.2: observation (position, speed), action force.
A = torch.tensor([[1.0, 0.2], [0.0, 1.0]], dtype=torch.float64)
B = torch.tensor([[0.02], [0.2]], dtype=torch.float64)
START = torch.tensor([[1.0, 0.5], [-0.4, 1.0], [0.3, -0.8]], dtype=torch.float64)


def quadratic(obs: Tensor, act: Tensor, next_obs: Tensor) -> Tensor:
    return -next_obs.square().sum(-1) - 0.3 * act.square().sum(-1)


def lq_return(obs: Tensor, plan: Tensor) -> Tensor:
    """Returns of plans [b t a] under the true dynamics, step by step."""
    total = torch.zeros(len(obs), dtype=obs.dtype)
    for t in range(plan.shape[1]):
        after = obs @ A.T + plan[:, t] @ B.T
        total += quadratic(obs, plan[:, t], after)
        obs = after
    return total


def lq_optimum(obs: Tensor, horizon: int) -> Tensor:
    """The optimal return -x^T P x, by the Riccati recursion backwards from the last step."""
    R, Q = torch.tensor([[0.3]], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    P = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(horizon):
        S = Q + P  # the reward is paid on the next state
        gain = torch.linalg.solve(R + B.T @ S @ B, B.T @ S @ A)
        P = A.T @ S @ (A - B @ gain)
    return -torch.einsum("bi,ij,bj->b", obs, P, obs)


@dataclass
class Poisoned:
    """The linear model, not a number wherever the first action is above `threshold`."""

    threshold: float
    hits: int = 0

    def trajectories(
        self, obs: Tensor, actions: Tensor, generator: torch.Generator
    ) -> Trajectories:
        states = LinearModel(A, B).trajectories(obs, actions, generator).observations
        hit = actions[..., 0, 0] > self.threshold
        self.hits += int(hit.sum())
        states[:, :, :, 2:] = states[:, :, :, 2:].masked_fill(hit[..., None, None], math.nan)
        return Trajectories(states, None)
