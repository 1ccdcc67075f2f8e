"""A task seen through wrappers that change what actions mean, or what rewards are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.wrappers import ClipAction, ClipReward, RescaleAction
from jaxtyping import Float
from torch import Tensor

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.action_box import clamp_to
from mbrl_bilevel.envs.rebuild import wrap
from mbrl_bilevel.envs.task import Task
from mbrl_bilevel.protocols import RewardFunction


@dataclass(frozen=True)
class Rescaled:
    """offset + slope * action, as RescaleAction does."""

    slope: Float[Tensor, "a"]
    offset: Float[Tensor, "a"]

    def __call__(self, act: Float[Tensor, "*s a"]) -> Float[Tensor, "*s a"]:
        """The actions that the inner environment gets, in the dtype of `act`."""
        return self.offset.to(act) + self.slope.to(act) * act


@dataclass(frozen=True)
class Clipped:
    """Actions within [low, high], as ClipAction does."""

    low: Float[Tensor, "a"]
    high: Float[Tensor, "a"]

    def __call__(self, act: Float[Tensor, "*s a"]) -> Float[Tensor, "*s a"]:
        """The actions that the inner environment gets, in the dtype of `act`."""
        return clamp_to(act, self.low, self.high)


@dataclass(frozen=True)
class WrappedReward:
    """`reward` of actions that wrappers change, outermost first, clipped to `bounds` in the end."""

    reward: RewardFunction
    actions: tuple[Rescaled | Clipped, ...]
    bounds: tuple[float, float]

    def __call__(
        self,
        obs: Float[Tensor, "*s o"],
        act: Float[Tensor, "*s a"],
        next_obs: Float[Tensor, "*s o"],
    ) -> Float[Tensor, "*s"]:
        """Rewards of actions as the agent gave them."""
        for change in self.actions:
            act = change(act)
        return self.reward(obs, act, next_obs).clamp(*self.bounds)


def through_wrappers(task: Task, env: gymnasium.Env, spec: EnvSpec) -> Task:
    """The task of `env`, which is plain, as it is in the wrappers of `spec`.

    Raises:
        InputError: a wrapper that cannot be made again.
    """
    wrapped = wrap(env, spec.wrappers, spec.id)
    if task.reward is None:
        return task
    actions: list[Rescaled | Clipped] = []
    low, high = -np.inf, np.inf
    while wrapped is not env:
        assert isinstance(wrapped, gymnasium.Wrapper)
        box = wrapped.env.action_space
        assert isinstance(box, Box)
        if isinstance(wrapped, RescaleAction):
            actions.append(_rescaled(wrapped, box))
        elif isinstance(wrapped, ClipAction):
            actions.append(Clipped(torch.from_numpy(box.low), torch.from_numpy(box.high)))
        elif isinstance(wrapped, ClipReward):
            # an outer bound goes before an inner one
            inner = [float(wrapped.func(x)) for x in (-np.inf, np.inf)]
            low, high = (float(np.clip(x, low, high)) for x in inner)
        wrapped = wrapped.env
    return replace(task, reward=_applied(task.reward, actions, (low, high)))


def _applied(
    reward: RewardFunction, actions: Sequence[Rescaled | Clipped], bounds: tuple[float, float]
) -> RewardFunction:
    if not actions and bounds == (-np.inf, np.inf):
        return reward
    return WrappedReward(reward, tuple(actions), bounds)


def _rescaled(wrapper: RescaleAction, box: Box) -> Rescaled:
    """The affine map of a live wrapper, read at two actions."""
    zeros = np.zeros(box.shape, box.dtype)
    at_zero, at_one = (np.asarray(wrapper.func(zeros + x), np.float64) for x in (0, 1))
    return Rescaled(torch.from_numpy(at_one - at_zero), torch.from_numpy(at_zero))
