"""A point on a line, pushed about: a real environment that costs microseconds a step."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from mbrl_bilevel.envs.tasks import Task

LIMIT, STEPS = 1.5, 20


class Point(gymnasium.Env):
    """x and its velocity; pushes between -1 and 0.5, noisy; it ends beyond |x| = 1.5."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 0.5, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-0.5, 0.5, 2).astype(np.float32)
        return self.state, {}

    def step(self, action):
        x, velocity = self.state
        velocity = velocity + 0.3 * float(action[0]) + 0.05 * self.np_random.standard_normal()
        self.state = np.array([x + 0.3 * velocity, velocity], np.float32)
        reward, beyond = -float(self.state[0] ** 2), bool(abs(self.state[0]) > LIMIT)
        return self.state, reward, beyond, False, {"reward_position": reward}


def point():
    """With its time limit."""
    return gymnasium.wrappers.TimeLimit(Point(), STEPS)


def reward(obs, act, next_obs):
    return -next_obs[..., 0].square()


def terminated(next_obs):
    return next_obs[..., 0].abs() > LIMIT


TASK = Task("Point-v0", reward, terminated, ("x", "vel_x"))
