"""An untrained dynamics model for a data set and an objective."""

from collections.abc import Sequence

import torch

from mbrl_bilevel.data.minari import Dataset
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.settings import NLLSettings
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.protocols import Task


def new_model(
    dataset: Dataset,
    objective: ObjectiveSpec = NLLSettings(),
    settings: ModelSettings = ModelSettings(),
    *,
    task: Task | None = None,
    learn_reward: bool | None = None,
    generator: torch.Generator,
) -> DynamicsModel:
    """An untrained model of the data set's sizes, on the generator's device.

    Its network is of the kind that the objective trains. By default it learns the reward where
    `task` is None or has no reward function. Dimensions of the observation are named as by the
    task, or else by a data set with a Dict of observations.

    Raises:
        InputError: a task of other dimensions than the data set's, or an objective that the
            covariance or the noise excludes.
    """
    if learn_reward is None:
        learn_reward = task is None or task.reward is None
    transitions = dataset.transitions
    with torch.device(generator.device):
        return DynamicsModel(
            transitions.observation.shape[1],
            transitions.action.shape[1],
            settings,
            learn_reward=learn_reward,
            kind=objective.kind,
            env_spec=dataset.env_spec,
            observation_names=observation_names(dataset, task),
            action_box=dataset.action_box,
            generator=generator,
        )


def observation_names(dataset: Dataset, task: Task | None) -> Sequence[str] | None:
    """Names of the observation's dimensions; InputError where the task has another number."""
    dims = dataset.transitions.observation.shape[1]
    if task is None:
        return dataset.observation_names
    if len(task.observation_names) != dims:
        raise InputError(
            f"data set {dataset.id!r} has {dims} observation dimensions, the task of "
            f"{dataset.env_spec} has {len(task.observation_names)} names: collect it again, "
            "or register a task that fits (mbrl_bilevel.envs.tasks.register_task)"
        )
    return task.observation_names
