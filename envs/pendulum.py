"""Rewards, terminations and names of the pendulums, inverted, double inverted and plain.

All functions are pure, take any leading shape and keep dtype and device. They hold for gymnasium's
tasks, whose arguments the keywords are called after.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl_bilevel.envs.termination import non_finite

INVERTED_PENDULUM_NAMES = ("x", "angle", "vel_x", "vel_angle")
INVERTED_DOUBLE_PENDULUM_NAMES = (
    *("x", "sin_angle1", "sin_angle2", "cos_angle1", "cos_angle2"),
    *("vel_x", "vel_angle1", "vel_angle2", "constraint_force_x"),
)
PENDULUM_NAMES = ("cos_angle", "sin_angle", "vel_angle")

POLE_LENGTH = 0.6  # metres, each pole of the double pendulum


def inverted_pendulum_terminated(next_obs: Float[Tensor, "*s 4"]) -> Bool[Tensor, "*s"]:
    """|angle| above 0.2 rad."""
    return non_finite(next_obs) | (next_obs[..., 1].abs() > 0.2)


def inverted_pendulum_reward(
    obs: Float[Tensor, "*s 4"], act: Float[Tensor, "*s 1"], next_obs: Float[Tensor, "*s 4"]
) -> Float[Tensor, "*s"]:
    """1 while the pole stands, else 0; exact."""
    return (~inverted_pendulum_terminated(next_obs)).to(next_obs.dtype)


def tip(
    obs: Float[Tensor, "*s 9"],
) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s"]]:
    """Position (x, y) in metres of the double pendulum's tip, from the poles' sines and cosines."""
    x, sin1, sin2, cos1, cos2 = obs[..., :5].unbind(-1)
    sin_sum, cos_sum = sin1 * cos2 + cos1 * sin2, cos1 * cos2 - sin1 * sin2
    return x + POLE_LENGTH * (sin1 + sin_sum), POLE_LENGTH * (cos1 + cos_sum)


def inverted_double_pendulum_terminated(next_obs: Float[Tensor, "*s 9"]) -> Bool[Tensor, "*s"]:
    """Tip at most 1 m high.

    The simulator looks at the tip in the last stage of its Runge-Kutta step, not at the end of the
    step that the observation shows. The two heights differ by some 1e-5 m, so a tip that close to
    1 m may differ: 1 of 60,000 steps of random actions, 3.5e-7 m below.
    """
    return non_finite(next_obs) | (tip(next_obs)[1] <= 1.0)


def inverted_double_pendulum_reward(
    obs: Float[Tensor, "*s 9"],
    act: Float[Tensor, "*s 1"],
    next_obs: Float[Tensor, "*s 9"],
    *,
    healthy_reward: float = 10.0,
) -> Float[Tensor, "*s"]:
    """10 while standing, minus penalties on the tip's position and on the poles' velocities.

    Penalties: 0.01 x^2 + (y - 2)^2 and 0.001 v1^2 + 0.005 v2^2. Right to 1e-4 in
    more than 99 % of random steps; the rest have a velocity beyond 10, which is observed clipped,
    or a cart at the end of its rail (see `inverted_double_pendulum_terminated` for the tip).
    """
    x, y = tip(next_obs)
    alive = healthy_reward * (~inverted_double_pendulum_terminated(next_obs)).to(next_obs.dtype)
    distance = 0.01 * x.square() + (y - 2).square()
    speed = 1e-3 * next_obs[..., 6].square() + 5e-3 * next_obs[..., 7].square()
    return alive - distance - speed


def pendulum_reward(
    obs: Float[Tensor, "*s 3"], act: Float[Tensor, "*s 1"], next_obs: Float[Tensor, "*s 3"]
) -> Float[Tensor, "*s"]:
    """-(angle^2 + 0.1 velocity^2 + 0.001 torque^2) of the state before the step; exact.

    The angle lies in [-pi, pi], 0 is upright; the torque counts clipped to [-2, 2].
    """
    cos, sin, speed = obs.unbind(-1)
    torque = act[..., 0].clamp(-2.0, 2.0)
    return -(torch.atan2(sin, cos).square() + 0.1 * speed.square() + 1e-3 * torque.square())
