"""The shipped tasks, as functions of the arguments that gymnasium makes their environments with.

Arguments have gymnasium's names and defaults. One that is not among them is not known here: what a
model file (xml_file) or another body in the middle (main_body) changes, nobody can tell. A reward
that cannot be read from the observations under some arguments is None, for the model to learn.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any

from mbrl_bilevel.envs import locomotion, manipulation, pendulum
from mbrl_bilevel.envs.locomotion import Range
from mbrl_bilevel.envs.task import Task, TerminationFunction
from mbrl_bilevel.envs.termination import non_finite

# Of an Ant under random actions: the root mean square of its contact cost per unit of
# contact_cost_weight, which a reward without contact forces in the observations leaves out, and, in
# metres, of the torso's move within the Runge-Kutta stage by which the simulator measures it early.
RMS_OF_CONTACTS, RMS_OF_STAGE = 4.0, 5e-4
SWIMMER_RMSE = 0.03  # in the first 400 steps, as it gathers way; 0.018 over whole episodes


def half_cheetah(
    *,
    frame_skip: int = 5,
    forward_reward_weight: float = 1.0,
    ctrl_cost_weight: float = 0.1,
    reset_noise_scale: float = 0.1,
    exclude_current_positions_from_observation: bool = True,
) -> Task:
    """HalfCheetah-v5."""
    positions = 0 if exclude_current_positions_from_observation else 1
    reward = partial(
        locomotion.half_cheetah_reward,
        forward_reward_weight=forward_reward_weight,
        ctrl_cost_weight=ctrl_cost_weight,
        positions=positions,
        dt=0.01 * frame_skip,
    )
    return Task(
        "HalfCheetah-v5",
        reward if positions or frame_skip == 5 else None,
        non_finite,
        ("x",)[:positions] + locomotion.HALF_CHEETAH_NAMES,
        reference_scores=(-280.178953, 12135.0),
        reward_rmse=0.0 if positions else abs(forward_reward_weight) * 0.17,
    )


def hopper(
    *,
    frame_skip: int = 4,
    forward_reward_weight: float = 1.0,
    ctrl_cost_weight: float = 1e-3,
    healthy_reward: float = 1.0,
    terminate_when_unhealthy: bool = True,
    healthy_state_range: Range = (-100.0, 100.0),
    healthy_z_range: Range = (0.7, inf),
    healthy_angle_range: Range = (-0.2, 0.2),
    reset_noise_scale: float = 5e-3,
    exclude_current_positions_from_observation: bool = True,
) -> Task:
    """Hopper-v5."""
    positions = 0 if exclude_current_positions_from_observation else 1
    healthy: dict[str, Any] = {
        "healthy_state_range": healthy_state_range,
        "healthy_z_range": healthy_z_range,
        "healthy_angle_range": healthy_angle_range,
        "positions": positions,
    }
    reward = partial(
        locomotion.hopper_reward,
        forward_reward_weight=forward_reward_weight,
        ctrl_cost_weight=ctrl_cost_weight,
        healthy_reward=healthy_reward,
        dt=0.002 * frame_skip,
        **healthy,
    )
    return Task(
        "Hopper-v5",
        reward if positions or frame_skip == 4 else None,
        _ends(terminate_when_unhealthy, partial(locomotion.hopper_terminated, **healthy)),
        ("x",)[:positions] + locomotion.HOPPER_NAMES,
        reference_scores=(-20.272305, 3234.3),
        reward_rmse=0.0 if positions else abs(forward_reward_weight) * 0.005,
    )


def walker2d(
    *,
    frame_skip: int = 4,
    forward_reward_weight: float = 1.0,
    ctrl_cost_weight: float = 1e-3,
    healthy_reward: float = 1.0,
    terminate_when_unhealthy: bool = True,
    healthy_z_range: Range = (0.8, 2.0),
    healthy_angle_range: Range = (-1.0, 1.0),
    reset_noise_scale: float = 5e-3,
    exclude_current_positions_from_observation: bool = True,
) -> Task:
    """Walker2d-v5."""
    positions = 0 if exclude_current_positions_from_observation else 1
    healthy: dict[str, Any] = {
        "healthy_z_range": healthy_z_range,
        "healthy_angle_range": healthy_angle_range,
        "positions": positions,
    }
    reward = partial(
        locomotion.walker2d_reward,
        forward_reward_weight=forward_reward_weight,
        ctrl_cost_weight=ctrl_cost_weight,
        healthy_reward=healthy_reward,
        dt=0.002 * frame_skip,
        **healthy,
    )
    return Task(
        "Walker2d-v5",
        reward if positions or frame_skip == 4 else None,
        _ends(terminate_when_unhealthy, partial(locomotion.walker2d_terminated, **healthy)),
        ("x",)[:positions] + locomotion.WALKER2D_NAMES,
        reference_scores=(1.629008, 4592.3),
        reward_rmse=0.0 if positions else abs(forward_reward_weight) * 0.015,
    )


def ant(
    *,
    frame_skip: int = 5,
    forward_reward_weight: float = 1.0,
    ctrl_cost_weight: float = 0.5,
    contact_cost_weight: float = 5e-4,
    healthy_reward: float = 1.0,
    terminate_when_unhealthy: bool = True,
    healthy_z_range: Range = (0.2, 1.0),
    contact_force_range: Range = (-1.0, 1.0),
    reset_noise_scale: float = 0.1,
    exclude_current_positions_from_observation: bool = True,
    include_cfrc_ext_in_observation: bool = True,
) -> Task:
    """Ant-v5."""
    positions = 0 if exclude_current_positions_from_observation else 2
    healthy: dict[str, Any] = {"healthy_z_range": healthy_z_range, "positions": positions}
    reward = partial(
        locomotion.ant_reward,
        forward_reward_weight=forward_reward_weight,
        ctrl_cost_weight=ctrl_cost_weight,
        contact_cost_weight=contact_cost_weight,
        contact_force_range=contact_force_range,
        healthy_reward=healthy_reward,
        dt=0.01 * frame_skip,
        **healthy,
    )
    names, unseen = locomotion.ANT_NAMES, 0.0
    if not include_cfrc_ext_in_observation:
        names = names[: locomotion.ANT_CONTACT]
        unseen = RMS_OF_CONTACTS * abs(contact_cost_weight)
    usual = contact_cost_weight <= 5e-4 and tuple(contact_force_range) == (-1.0, 1.0)
    visible = include_cfrc_ext_in_observation or usual
    in_velocity = RMS_OF_STAGE / (0.01 * frame_skip) if positions else 0.076
    return Task(
        "Ant-v5",
        reward if visible and (positions or frame_skip == 5) else None,
        _ends(terminate_when_unhealthy, partial(locomotion.ant_terminated, **healthy)),
        ("x", "y")[:positions] + names,
        reward_rmse=abs(forward_reward_weight) * in_velocity + unseen,
    )


def swimmer(
    *,
    frame_skip: int = 4,
    forward_reward_weight: float = 1.0,
    ctrl_cost_weight: float = 1e-4,
    reset_noise_scale: float = 0.1,
    exclude_current_positions_from_observation: bool = True,
) -> Task:
    """Swimmer-v5."""
    positions = 0 if exclude_current_positions_from_observation else 2
    reward = partial(
        locomotion.swimmer_reward,
        forward_reward_weight=forward_reward_weight,
        ctrl_cost_weight=ctrl_cost_weight,
        positions=positions,
        dt=0.01 * frame_skip,
    )
    return Task(
        "Swimmer-v5",
        reward if positions or frame_skip == 4 else None,
        non_finite,
        ("x", "y")[:positions] + locomotion.SWIMMER_NAMES,
        reward_rmse=0.0 if positions else abs(forward_reward_weight) * SWIMMER_RMSE,
    )


def reacher(
    *, frame_skip: int = 2, reward_dist_weight: float = 1.0, reward_control_weight: float = 1.0
) -> Task:
    """Reacher-v5, whose reward is of the state after the step, however long that takes."""
    reward = partial(
        manipulation.reacher_reward,
        reward_dist_weight=reward_dist_weight,
        reward_control_weight=reward_control_weight,
    )
    return Task("Reacher-v5", reward, non_finite, manipulation.REACHER_NAMES)


def pusher(
    *,
    frame_skip: int = 5,
    reward_near_weight: float = 0.5,
    reward_dist_weight: float = 1.0,
    reward_control_weight: float = 0.1,
) -> Task:
    """Pusher-v5, as `reacher`."""
    reward = partial(
        manipulation.pusher_reward,
        reward_near_weight=reward_near_weight,
        reward_dist_weight=reward_dist_weight,
        reward_control_weight=reward_control_weight,
    )
    return Task("Pusher-v5", reward, non_finite, manipulation.PUSHER_NAMES)


def inverted_pendulum(*, frame_skip: int = 2, reset_noise_scale: float = 0.01) -> Task:
    """InvertedPendulum-v5."""
    return Task(
        "InvertedPendulum-v5",
        pendulum.inverted_pendulum_reward,
        pendulum.inverted_pendulum_terminated,
        pendulum.INVERTED_PENDULUM_NAMES,
    )


def inverted_double_pendulum(
    *, frame_skip: int = 5, healthy_reward: float = 10.0, reset_noise_scale: float = 0.1
) -> Task:
    """InvertedDoublePendulum-v5."""
    return Task(
        "InvertedDoublePendulum-v5",
        partial(pendulum.inverted_double_pendulum_reward, healthy_reward=healthy_reward),
        pendulum.inverted_double_pendulum_terminated,
        pendulum.INVERTED_DOUBLE_PENDULUM_NAMES,
    )


def plain_pendulum(*, g: float = 10.0) -> Task:
    """Pendulum-v1; gravity is of its dynamics, not of its reward."""
    return Task("Pendulum-v1", pendulum.pendulum_reward, non_finite, pendulum.PENDULUM_NAMES)


def _ends(when_unhealthy: bool, unhealthy: TerminationFunction) -> TerminationFunction:
    return unhealthy if when_unhealthy else non_finite


VARIANTS: dict[str, Callable[..., Task]] = {
    make().env_id: make
    for make in (
        *(half_cheetah, hopper, walker2d, ant, swimmer, reacher, pusher),
        *(inverted_pendulum, inverted_double_pendulum, plain_pendulum),
    )
}


def fits(value: Any, default: Any) -> bool:
    """Whether an argument out of a file is of the kind of its default."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, Sequence):
        return isinstance(value, list) and len(value) == 2 and all(fits(v, 0.0) for v in value)
    if isinstance(default, int):
        return type(value) is int and value > 0
    return isinstance(value, (int, float)) and not isinstance(value, bool)
