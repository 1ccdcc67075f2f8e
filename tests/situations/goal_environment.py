"""A goal environment, whose observations are a Dict."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from mbrl_bilevel.envs.tasks import Task, register_task

NAMES = tuple(f"{part}[{i}]" for part in ("achieved_goal", "desired_goal") for i in range(2))


class Goal(gymnasium.Env):
    """A point in the plane that is pushed towards another."""

    def __init__(self) -> None:
        def plane() -> spaces.Box:
            return spaces.Box(-np.inf, np.inf, (2,), np.float64)

        parts = {"desired_goal": plane(), "achieved_goal": plane(), "observation": plane()}
        self.observation_space = spaces.Dict(parts)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def shown(self) -> dict[str, np.ndarray]:
        return {
            "desired_goal": self.goal.copy(),
            "observation": self.at - self.goal,
            "achieved_goal": self.at.copy(),
        }

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.at, self.goal = self.np_random.uniform(-1, 1, (2, 2))
        return self.shown(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        self.at = self.at + 0.1 * action
        return self.shown(), -float(np.square(self.at - self.goal).sum()), False, False, {}


def reward(obs, act, next_obs):
    return -(next_obs[..., 0:2] - next_obs[..., 2:4]).square().sum(-1)


def terminated(next_obs):
    return next_obs[..., 0].abs() > 1e6


TASK = Task("Goal-v0", reward, terminated, (*NAMES, "observation[0]", "observation[1]"))
gymnasium.register(
    "Goal-v0", entry_point="tests.situations.goal_environment:Goal", max_episode_steps=15
)
register_task(TASK)
