"""A penalty that keeps plans where the model has seen data."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl_bilevel.envs.tasks import Task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel


@dataclass(frozen=True)
class DataSupportPenalty:
    """A task whose reward falls by up to `penalty` a step for states far from the training data.

    r - penalty (1 - exp(-d^2 / 10)), d^2 the mean over dimensions of the squared standardised
    deviation of the next observation from the training data. Where the reward is the same for every
    step that does not terminate, nothing else keeps a plan from drifting to states of which the
    model knows nothing. The penalty is bounded, so that no plan ends its episode to escape it while
    it is no larger than that reward.
    """

    task: Task
    centre: Float[Tensor, "o"]
    scale: Float[Tensor, "o"]
    penalty: float

    @property
    def env_id(self) -> str:
        return self.task.env_id

    @property
    def observation_names(self) -> tuple[str, ...]:
        return self.task.observation_names

    def reward(
        self,
        obs: Float[Tensor, "*s o"],
        act: Float[Tensor, "*s a"],
        next_obs: Float[Tensor, "*s o"],
    ) -> Float[Tensor, "*s"]:
        assert self.task.reward is not None
        distance = ((next_obs - self.centre) / self.scale).square().mean(-1)
        penalty = self.penalty * (1 - torch.exp(-distance / 10))
        return self.task.reward(obs, act, next_obs) - penalty

    def terminated(self, next_obs: Float[Tensor, "*s o"]) -> Bool[Tensor, "*s"]:
        return self.task.terminated(next_obs)


def with_data_support_penalty(
    task: Task, model: DynamicsModel, penalty: float
) -> DataSupportPenalty:
    """`task` as a planner should see it under `model`; the largest `penalty` is in reward units.

    Raises:
        InputError: `penalty` is negative or not finite, or the task's reward is not known.
    """
    if not 0 <= penalty < float("inf"):
        raise InputError(f"--data-support-penalty {penalty}: choose a finite number, at least 0")
    if task.reward is None:
        raise InputError(
            f"--data-support-penalty {penalty} for {task.env_id}, whose reward function is not "
            "known: leave it at 0"
        )
    # The observations' part of the inputs; the actions' follows it.
    inputs, size = model.input_standardizer, model.obs_dim
    return DataSupportPenalty(task, inputs.mean[:size], inputs.std[:size], penalty)
