"""What each MuJoCo task shows of simulated states and pays for them, as its `step` does.

All functions take whole arrays of states and keep to the order of gymnasium's own sums, with the
constants of the environment they are given, so that observations and rewards come out exact.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.inverted_double_pendulum_v5 import InvertedDoublePendulumEnv
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv
from gymnasium.envs.mujoco.pusher_v5 import PusherEnv
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv
from gymnasium.envs.mujoco.swimmer_v5 import SwimmerEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv
from jaxtyping import Float, Shaped
from numpy import ndarray

States = Mapping[str, Float[ndarray, "n s *field"]]
"""Fields of MjData by name in s states of n sequences: the present one, then one a step."""


@dataclass(frozen=True)
class Readout:
    """How to read observations and rewards from states.

    `derived` names the fields of MjData that the task reads besides qpos and qvel. MuJoCo leaves
    them as of the last evaluation of the dynamics within a step (the last Runge-Kutta stage, or the
    beginning of the last substep), so they cannot be had from the state after it.
    """

    observation: Callable[[Any, States], Float[ndarray, "n s o"]]
    reward: Callable[[Any, States, Shaped[ndarray, "n t a"]], Float[ndarray, "n t"]]
    derived: tuple[str, ...] = ()
    state: Callable[[Any, Float[ndarray, "n o"]], tuple[ndarray, ndarray]] | None = None
    """qpos and qvel that show given observations; None where observations do not tell them."""


def _observe(env: Any, states: States) -> Float[ndarray, "n s o"]:
    """Positions, without those along the ground unless asked for, and velocities."""
    skipped = env.observation_structure["skipped_qpos"]
    return np.concatenate([states["qpos"][..., skipped:], states["qvel"]], axis=-1)


def _observe_clipped(env: Any, states: States) -> Float[ndarray, "n s o"]:
    return _observe(env, {**states, "qvel": states["qvel"].clip(-10, 10)})


def _state(env: Any, obs: Float[ndarray, "n o"]) -> tuple[ndarray, ndarray]:
    """Positions that are not observed, along the ground, are 0: nothing depends on them."""
    skipped = env.observation_structure.get("skipped_qpos", 0)
    seen = env.model.nq - skipped
    qpos = np.concatenate([np.zeros((len(obs), skipped)), obs[:, :seen]], axis=-1)
    return qpos, obs[:, seen:]


def _observe_ant(env: Any, states: States) -> Float[ndarray, "n s o"]:
    if not env._include_cfrc_ext_in_observation:
        return _observe(env, states)
    forces = _ant_forces(env, states)[:, :, 1:]
    return np.concatenate([_observe(env, states), forces.reshape(*forces.shape[:2], -1)], axis=-1)


def _observe_inverted_pendulum(env: Any, states: States) -> Float[ndarray, "n s 4"]:
    return np.concatenate([states["qpos"], states["qvel"]], axis=-1)


def _observe_double_pendulum(env: Any, states: States) -> Float[ndarray, "n s 9"]:
    angles = states["qpos"][..., 1:]
    return np.concatenate(
        [
            states["qpos"][..., :1],
            np.sin(angles),
            np.cos(angles),
            states["qvel"].clip(-10, 10),
            states["qfrc_constraint"][..., :1].clip(-10, 10),
        ],
        axis=-1,
    )


def _observe_reacher(env: Any, states: States) -> Float[ndarray, "n s 10"]:
    angles = states["qpos"][..., :2]
    apart = _between(env, states, "fingertip", "target")[..., :2]
    parts = [np.cos(angles), np.sin(angles), states["qpos"][..., 2:], states["qvel"][..., :2]]
    return np.concatenate([*parts, apart], axis=-1)


def _observe_pusher(env: Any, states: States) -> Float[ndarray, "n s 23"]:
    bodies = [_position(env, states, name) for name in ("tips_arm", "object", "goal")]
    return np.concatenate([states["qpos"][..., :7], states["qvel"][..., :7], *bodies], axis=-1)


def _position(env: Any, states: States, body: str) -> Float[ndarray, "n s 3"]:
    return states["xpos"][:, :, env.model.body(body).id]


def _between(env: Any, states: States, one: str, other: str) -> Float[ndarray, "n s 3"]:
    return _position(env, states, one) - _position(env, states, other)


def _ant_forces(env: Any, states: States) -> Float[ndarray, "n s bodies 6"]:
    return states["cfrc_ext"].clip(*env._contact_force_range)


def _squared(action: Shaped[ndarray, "n t a"]) -> Shaped[ndarray, "n t"]:
    """|a|^2 in the action's own precision: `step` squares float32 actions in float32."""
    return np.square(action).sum(-1)


def _forward(env: Any, x: Float[ndarray, "n s"]) -> Float[ndarray, "n s-1"]:
    return env._forward_reward_weight * ((x[:, 1:] - x[:, :-1]) / env.dt)


def _reward_running(
    env: Any, states: States, action: Shaped[ndarray, "n t a"]
) -> Float[ndarray, "n t"]:
    """HalfCheetah, Swimmer."""
    return _forward(env, states["qpos"][..., 0]) - env._ctrl_cost_weight * _squared(action)


def _reward_hopper(
    env: Any, states: States, action: Shaped[ndarray, "n t a"]
) -> Float[ndarray, "n t"]:
    low, high = env._healthy_state_range
    rest = np.concatenate([states["qpos"][:, 1:, 2:], states["qvel"][:, 1:]], axis=-1)
    healthy = _upright(env, states) & ((low < rest) & (rest < high)).all(-1)
    return _reward_running(env, states, action) + healthy * env._healthy_reward


def _reward_walker(
    env: Any, states: States, action: Shaped[ndarray, "n t a"]
) -> Float[ndarray, "n t"]:
    return _reward_running(env, states, action) + _upright(env, states) * env._healthy_reward


def _upright(env: Any, states: States) -> Shaped[ndarray, "n t"]:
    (low, high), (least, most) = env._healthy_z_range, env._healthy_angle_range
    z, angle = states["qpos"][:, 1:, 1], states["qpos"][:, 1:, 2]
    return (low < z) & (z < high) & (least < angle) & (angle < most)


def _reward_ant(env: Any, states: States, action: Shaped[ndarray, "n t a"]) -> ndarray:
    z, (low, high) = states["qpos"][:, 1:, 2], env._healthy_z_range
    state = np.concatenate([states["qpos"][:, 1:], states["qvel"][:, 1:]], axis=-1)
    healthy = np.isfinite(state).all(-1) & (low <= z) & (z <= high)
    contact = env._contact_cost_weight * np.square(_ant_forces(env, states)[:, 1:]).sum((-2, -1))
    costs = env._ctrl_cost_weight * _squared(action) + contact
    x = states["xpos"][:, :, env.model.body(env._main_body).id, 0]
    return _forward(env, x) + healthy * env._healthy_reward - costs


def _reward_inverted_pendulum(
    env: Any, states: States, action: Shaped[ndarray, "n t 1"]
) -> Float[ndarray, "n t"]:
    observed = _observe_inverted_pendulum(env, states)[:, 1:]
    return (np.isfinite(observed).all(-1) & (np.abs(observed[..., 1]) <= 0.2)).astype(float)


def _reward_double_pendulum(
    env: Any, states: States, action: Shaped[ndarray, "n t 1"]
) -> Float[ndarray, "n t"]:
    tip, speed = states["site_xpos"][:, 1:, 0], states["qvel"][:, 1:]
    x, y = tip[..., 0], tip[..., 2]
    distance = 0.01 * x**2 + (y - 2) ** 2
    return (
        env._healthy_reward * (y > 1)
        - distance
        - 1e-3 * speed[..., 1] ** 2
        - (5e-3 * speed[..., 2] ** 2)
    )


def _reward_reacher(
    env: Any, states: States, action: Shaped[ndarray, "n t 2"]
) -> Float[ndarray, "n t"]:
    apart = np.linalg.norm(_between(env, states, "fingertip", "target")[:, 1:], axis=-1)
    return -apart * env._reward_dist_weight - _squared(action) * env._reward_control_weight


def _reward_pusher(
    env: Any, states: States, action: Shaped[ndarray, "n t 7"]
) -> Float[ndarray, "n t"]:
    near = np.linalg.norm(_between(env, states, "object", "tips_arm")[:, 1:], axis=-1)
    far = np.linalg.norm(_between(env, states, "object", "goal")[:, 1:], axis=-1)
    control = _squared(action) * env._reward_control_weight
    return -far * env._reward_dist_weight - control - near * env._reward_near_weight


READOUTS: dict[type, Readout] = {
    HalfCheetahEnv: Readout(_observe, _reward_running, state=_state),
    HopperEnv: Readout(_observe_clipped, _reward_hopper, state=_state),
    Walker2dEnv: Readout(_observe_clipped, _reward_walker, state=_state),
    SwimmerEnv: Readout(_observe, _reward_running, state=_state),
    AntEnv: Readout(_observe_ant, _reward_ant, ("xpos", "cfrc_ext")),
    ReacherEnv: Readout(_observe_reacher, _reward_reacher, ("xpos",)),
    PusherEnv: Readout(_observe_pusher, _reward_pusher, ("xpos",)),
    InvertedPendulumEnv: Readout(
        _observe_inverted_pendulum, _reward_inverted_pendulum, state=_state
    ),
    InvertedDoublePendulumEnv: Readout(
        _observe_double_pendulum, _reward_double_pendulum, ("site_xpos", "qfrc_constraint")
    ),
}
"""By the exact class of the environment: a subclass may observe or pay otherwise."""
