"""Many futures of Pendulum-v1 at once."""

import numpy as np
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from jaxtyping import Float, Shaped
from numpy import ndarray


class PendulumSimulator:
    """Pendulum-v1, whose dynamics are one line (gymnasium's classic control)."""

    def __init__(self, env: PendulumEnv) -> None:
        self.env = env

    def present(self) -> Float[ndarray, "3"]:
        """The observation of the environment's present state."""
        return self._observe(np.asarray(self.env.state))

    def starts(self, obs: Float[ndarray, "n 3"]) -> Float[ndarray, "n 2"]:
        """Angles and speeds that show these observations."""
        return np.stack([np.arctan2(obs[:, 1], obs[:, 0]), obs[:, 2]], axis=-1)

    def simulate(
        self, actions: Shaped[ndarray, "n t 1"], starts: Float[ndarray, "n 2"] | None = None
    ) -> tuple[Float[ndarray, "n t+1 3"], Float[ndarray, "n t"]]:
        """Observations and rewards of sequences of actions, from the present state or `starts`."""
        env, (n, horizon, _) = self.env, actions.shape
        torque = actions[..., 0].clip(-env.max_torque, env.max_torque)
        # in the action's own precision, as `step` does
        push, cost = 3.0 / (env.m * env.l**2) * torque, 0.001 * torque**2
        states = np.empty((n, horizon + 1, 2))
        states[:, 0] = env.state if starts is None else starts
        for t in range(horizon):
            angle, speed = states[:, t, 0], states[:, t, 1]
            fall = 3 * env.g / (2 * env.l) * np.sin(angle)
            speed = (speed + (fall + push[:, t]) * env.dt).clip(-env.max_speed, env.max_speed)
            states[:, t + 1, 0], states[:, t + 1, 1] = angle + speed * env.dt, speed
        angle, speed = states[:, :-1, 0], states[:, :-1, 1]
        angle = (angle + np.pi) % (2 * np.pi) - np.pi
        return self._observe(states), -(angle**2 + 0.1 * speed**2 + cost)

    @staticmethod
    def _observe(state: Float[ndarray, "*s 2"]) -> Float[ndarray, "*s 3"]:
        angle, speed = state[..., 0], state[..., 1]
        return np.stack([np.cos(angle), np.sin(angle), speed], axis=-1)
