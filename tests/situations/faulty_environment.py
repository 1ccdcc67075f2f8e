"""An environment that returns what a test tells it to."""

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box

STEPS = 20


class Faulty(gymnasium.Env):
    """A point that is pushed about; its observation is an array of its own, used again and again.

    `answer(steps since the reset, (observation, reward, terminated, truncated))` may change what a
    step returns, and may write into the observation.
    """

    answer: ClassVar[Callable[[int, tuple[Any, ...]], tuple[Any, ...]]] = staticmethod(
        lambda count, step: step
    )
    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        self.own = self.np_random.uniform(-0.5, 0.5, 2)
        return self.own, {}

    def step(self, action):
        self.count += 1
        self.own[1] += 0.1 * action[0]
        self.own[0] += 0.1 * self.own[1]
        reward = -float(self.own[0] ** 2)
        action[:] = np.nan  # the environment's own business
        return *type(self).answer(self.count, (self.own, reward, False, False)), {}


IDS = ("Faulty-v0", "ByClass-v0", "Endless-v0")


def register() -> None:
    """Makes gymnasium know the environment: by name, by its class, and without a time limit."""
    here = f"{__name__}:Faulty"
    gymnasium.register("Faulty-v0", entry_point=here, max_episode_steps=STEPS)
    gymnasium.register("ByClass-v0", entry_point=Faulty, max_episode_steps=STEPS)
    gymnasium.register("Endless-v0", entry_point=here)
