"""Real rollouts, stepped once for each task and policy and shared by the tests."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from mbrl_bilevel.agents.behaviour import load_policy
from mbrl_bilevel.envs.make import make_env


@dataclass(frozen=True)
class Rollout:
    """Transitions of a real environment in float64, with the `info` of each step."""

    obs: Tensor
    act: Tensor
    next_obs: Tensor
    reward: Tensor
    terminated: Tensor
    info: list[dict[str, Any]]

    def term(self, *names: str) -> Tensor:
        """The sum of the named entries of `info`, step by step."""
        total = [sum(float(step[name]) for name in names) for step in self.info]
        return torch.tensor(total, dtype=torch.float64)


def step_through(
    env: gymnasium.Env, steps: int, policy: Callable[[np.ndarray], np.ndarray] | None
) -> Rollout:
    """`steps` steps, reset wherever an episode ends."""
    rows: list[tuple] = []
    obs, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(steps):
        act = env.action_space.sample() if policy is None else policy(obs)
        next_obs, reward, terminated, truncated, info = env.step(act)
        rows.append((obs, act, next_obs, float(reward), bool(terminated), info))
        obs = env.reset()[0] if terminated or truncated else next_obs
    obs_, act_, next_obs_, reward_, terminated_, info_ = zip(*rows, strict=True)
    observations, actions, successors = (
        torch.from_numpy(np.array(x, dtype=np.float64)) for x in (obs_, act_, next_obs_)
    )
    return Rollout(
        observations,
        actions,
        successors,
        torch.tensor(reward_, dtype=torch.float64),
        torch.tensor(terminated_),
        list(info_),
    )


@lru_cache
def random_rollout(env_id: str, steps: int = 2500) -> Rollout:
    """Uniformly random actions."""
    return step_through(make_env(env_id), steps, None)


@lru_cache
def behaviour_rollout(env_id: str, name: str, steps: int = 2500) -> Rollout:
    """Actions sampled from a shipped policy."""
    policy, generator = load_policy(env_id, name), np.random.default_rng(0)
    return step_through(make_env(env_id), steps, lambda obs: policy(obs[None], generator)[0])


def simulator(env_id: str) -> Any:
    """The bare environment after a reset, to set and read MuJoCo's state."""
    env = make_env(env_id).unwrapped
    env.reset(seed=0)
    return env


def r_squared(predicted: Tensor, real: Tensor) -> float:
    return 1 - ((predicted - real).square().mean() / real.var()).item()


def rmse(predicted: Tensor, real: Tensor) -> float:
    return (predicted - real).square().mean().sqrt().item()
