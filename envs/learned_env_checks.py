"""What a learned environment may be made of: model, task, spaces and starts that fit."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl_bilevel.envs.task_functions import check_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.protocols import Task, TransitionModel


def check_model(
    model: TransitionModel, task: Task, observation_space: Box, action_space: Box
) -> None:
    """Refuses a model that does not fit a task and the spaces of its environment.

    Raises:
        InputError: another environment, other sizes, no reward, or what `check_task` refuses.
    """
    if model.env_id is not None and model.env_id != task.env_id:
        raise InputError(
            f"the model was trained for {model.env_id}, not for {task.env_id}: "
            "choose the task that it was trained for"
        )
    sizes = (model.obs_dim,), (model.act_dim,)
    if (observation_space.shape, action_space.shape) != sizes:
        raise InputError(
            f"the model has {model.obs_dim} observation and {model.act_dim} action dimensions, the "
            f"spaces have shapes {list(observation_space.shape)} and {list(action_space.shape)}: "
            "give those of the environment that it was trained for"
        )
    if len(task.observation_names) != model.obs_dim:
        raise InputError(
            f"the model has {model.obs_dim} observation dimensions, {task.env_id} has "
            f"{len(task.observation_names)}: choose the task that it was trained for"
        )
    if task.reward is None and not model.learn_reward:
        raise InputError(
            f"{task.env_id} has no known reward function and the model did not learn one: "
            "train it with learn_reward=True"
        )
    check_task(task, model.obs_dim, model.act_dim, model.lowest.device)


def check_starts(starts: Float[Tensor, "m o"], space: Box) -> None:
    """Refuses starts that are none, of another width than the space, or not finite.

    Raises:
        InputError: they are.
    """
    if len(starts) == 0 or starts.shape[1:] != space.shape:
        raise InputError(
            f"starts of shape {list(starts.shape)}: give at least one observation of "
            f"{space.shape[0]} dimensions"
        )
    good = starts.isfinite().all(-1)
    if not bool(good.all()):
        row = int((~good).nonzero()[0])
        raise InputError(
            f"start {row}, {starts[row].tolist()}, is not finite: take starts from a data set of "
            "the same environment"
        )


def checked_mask(mask: Any, num_envs: int) -> Bool[np.ndarray, "b"]:
    """The mask [num_envs] of the environments to reset.

    Raises:
        InputError: it is no array of that many booleans, or all of them are False.
    """
    if (
        not isinstance(mask, np.ndarray)
        or mask.dtype != np.bool_
        or mask.shape != (num_envs,)
        or not mask.any()
    ):
        raise InputError(
            f"options['reset_mask'] {mask!r}: it must be a numpy array of {num_envs} booleans, "
            "at least one of them True"
        )
    return mask
