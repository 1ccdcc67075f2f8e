"""Learned environments small enough to know everything about: a pendulum and a walk."""

import math
from typing import Any

import torch
from gymnasium.spaces import Box
from torch import Tensor

from mbrl_bilevel.envs.learned_vector_env import LearnedVectorEnv
from mbrl_bilevel.envs.tasks import Task, get_task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import Covariance, ModelSettings
from mbrl_bilevel.protocols import NextStep

PENDULUM = get_task("Pendulum-v1")
TORQUE = Box(-2.0, 2.0, (1,))
UNIT = Box(-1.0, 1.0, (2,))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pendulum_model(covariance: Covariance = "diagonal", **kwargs: Any) -> DynamicsModel:
    """Untrained, of Pendulum-v1's sizes."""
    return DynamicsModel(
        3,
        1,
        ModelSettings(members=3, hidden=(8,), covariance=covariance),
        generator=seeded(),
        **kwargs,
    )


def pendulum_starts(count: int = 50) -> Tensor:
    angle = 2 * math.pi * torch.rand(count, generator=seeded(1))
    return torch.stack([angle.cos(), angle.sin(), torch.zeros(count)], -1)


def pendulum(model: DynamicsModel | None = None, **kwargs: Any) -> LearnedVectorEnv:
    settings: dict[str, Any] = {"num_envs": 4, "time_limit": 200, "action_space": TORQUE}
    settings |= {"task": PENDULUM, "starts": pendulum_starts()}
    return LearnedVectorEnv(model or pendulum_model(), **(settings | kwargs))


class Walk(DynamicsModel):
    """next = obs + act exactly, in the plane."""

    def __init__(self) -> None:
        super().__init__(2, 2, ModelSettings(members=2, hidden=(2,)), generator=seeded())

    def sample(
        self,
        obs: Tensor,
        act: Tensor,
        generator: torch.Generator,
        member: Tensor | None = None,
        *,
        check_starts: bool = True,
    ) -> NextStep:
        return NextStep(obs + act, None)


class WalkEnv(LearnedVectorEnv):
    """Unsure of a step by (1 + |obs|) / 5 in each dimension, each up to 1."""

    def _sample(self, obs: Tensor, act: Tensor) -> tuple[NextStep, Tensor]:
        unsure = (0.2 * (1 + obs.abs())).clamp(max=1.0).norm(dim=-1)
        return self.model.sample(obs, act, self.generator), self.uncertainty_penalty * unsure


def walk_reward(obs: Tensor, act: Tensor, next_obs: Tensor) -> Tensor:
    return obs[..., 0] + 2 * act[..., 1] + 3 * next_obs[..., 0]


def walked_out(next_obs: Tensor) -> Tensor:
    return next_obs[..., 0].abs() > 2


WALK = Task("Walk-v0", walk_reward, walked_out, ("x", "y"))


def walk(model: DynamicsModel | None = None, **kwargs: Any) -> LearnedVectorEnv:
    settings: dict[str, Any] = {"num_envs": 5, "time_limit": 7, "action_space": UNIT}
    settings |= {"task": WALK, "starts": torch.tensor([[0.5, -0.25]])}
    return WalkEnv(model or Walk(), **(settings | kwargs))
