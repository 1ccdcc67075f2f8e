"""Rewards and names of the tasks that reach and push: Reacher and Pusher. They never terminate.

Both rewards are exact: the observation holds the positions after the step that the environment
measures. All functions are pure, take any leading shape and keep dtype and device. They hold for
gymnasium's v5 tasks, whose arguments the keywords are called after.
"""

import torch
from jaxtyping import Float
from torch import Tensor

REACHER_NAMES = (
    *("cos_arm1", "cos_arm2", "sin_arm1", "sin_arm2", "target_x", "target_y"),
    *("vel_arm1", "vel_arm2", "distance_x", "distance_y"),
)
_PUSHER_JOINTS = (
    *("shoulder_pan", "shoulder_lift", "upper_arm_roll", "elbow_flex"),
    *("forearm_roll", "wrist_flex", "wrist_roll"),
)
PUSHER_NAMES = (
    *(f"{joint}_angle" for joint in _PUSHER_JOINTS),
    *(f"vel_{joint}" for joint in _PUSHER_JOINTS),
    *(f"{thing}_{axis}" for thing in ("fingertip", "object", "goal") for axis in "xyz"),
)


def reacher_reward(
    obs: Float[Tensor, "*s 10"],
    act: Float[Tensor, "*s 2"],
    next_obs: Float[Tensor, "*s 10"],
    *,
    reward_dist_weight: float = 1.0,
    reward_control_weight: float = 1.0,
) -> Float[Tensor, "*s"]:
    """Minus the distance in metres of fingertip and target after the step, minus |act|^2."""
    apart = torch.linalg.vector_norm(next_obs[..., 8:10], dim=-1)
    return -reward_dist_weight * apart - reward_control_weight * act.square().sum(-1)


def pusher_reward(
    obs: Float[Tensor, "*s 23"],
    act: Float[Tensor, "*s 7"],
    next_obs: Float[Tensor, "*s 23"],
    *,
    reward_near_weight: float = 0.5,
    reward_dist_weight: float = 1.0,
    reward_control_weight: float = 0.1,
) -> Float[Tensor, "*s"]:
    """-|object - goal| - 0.5 |object - fingertip| after the step, in metres, minus 0.1 |act|^2."""
    fingertip, thing, goal = next_obs[..., 14:17], next_obs[..., 17:20], next_obs[..., 20:23]
    far = torch.linalg.vector_norm(thing - goal, dim=-1)
    near = torch.linalg.vector_norm(thing - fingertip, dim=-1)
    control = reward_control_weight * act.square().sum(-1)
    return -reward_dist_weight * far - reward_near_weight * near - control
