"""Planning that stays where the model has seen data."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl_bilevel.envs.tasks import Task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel


@dataclass(frozen=True)
class NearData:
    """A task's reward, less up to `caution` a step for imagined states far from the model's data.

    r - caution (1 - exp(-d^2 / 10)), d^2 the mean over dimensions of the squared standardised
    deviation of the next observation from the training data. Where a reward pays for survival
    only, nothing else keeps a plan from drifting to states of which the model knows nothing. The
    penalty is bounded, so that no plan ends its episode to escape it while caution is no larger
    than what survival pays.
    """

    task: Task
    centre: Float[Tensor, "o"]
    scale: Float[Tensor, "o"]
    caution: float

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
        penalty = self.caution * (1 - torch.exp(-distance / 10))
        return self.task.reward(obs, act, next_obs) - penalty

    def terminated(self, next_obs: Float[Tensor, "*s o"]) -> Bool[Tensor, "*s"]:
        return self.task.terminated(next_obs)


def near_data(task: Task, model: DynamicsModel, caution: float) -> NearData:
    """`task` as a planner with `caution` (in reward units) should see it under `model`.

    Raises:
        InputError: `caution` is negative or not finite, or the task's reward is not known.
    """
    if not 0 <= caution < float("inf"):
        raise InputError(f"caution {caution}: it must be finite and not negative")
    if task.reward is None:
        raise InputError(
            f"caution {caution} for {task.env_id}, whose reward function is not known: "
            "it is for known ones only, leave it at 0"
        )
    inputs, size = model.input_standardizer, model.obs_dim
    return NearData(task, inputs.mean[:size], inputs.std[:size], caution)
