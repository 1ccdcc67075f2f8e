"""The return of imagined action sequences: rewards until termination, averaged over particles."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.protocols import Task, Trajectories, TrajectoryModel


class Scored(NamedTuple):
    """Returns of candidate sequences; -inf where a particle met a state or reward not finite."""

    returns: Float[Tensor, "b n"]
    non_finite: Int[Tensor, ""]
    """How many of the b n sequences are -inf for that reason (a tensor: no host-device sync)."""


def score(
    model: TrajectoryModel,
    task: Task,
    obs: Float[Tensor, "b o"],
    actions: Float[Tensor, "b n t a"],
    generator: torch.Generator,
    *,
    discount: float = 1.0,
    pessimism: float = 0.0,
) -> Scored:
    """The mean return over the model's particles of each action sequence, from one look ahead.

    The sum over t of discount^t reward_t up to and including the step that terminates, nothing
    afterwards, in the task's own reward units; the task's reward function, or the model's reward
    head where the task has none. What a model imagines after a termination never counts, finite
    or not.

    `pessimism` takes that many standard deviations over the particles off the mean.

    Raises:
        InputError: neither the task nor the model knows the reward.
    """
    imagined = model.trajectories(obs, actions, generator)
    after = imagined.observations[..., 1:, :]
    rewards = _rewards(task, imagined, actions)
    counts = _until_termination(task.terminated(after))
    finite = after.isfinite().all(-1) & rewards.isfinite()
    broken = (counts & ~finite).any(-1)
    steps = torch.arange(rewards.shape[-1], dtype=rewards.dtype, device=rewards.device)
    weights = discount**steps
    returns = torch.where(counts, rewards * weights, 0.0).sum(-1)
    unusable = broken.any(0)
    # the deviation over particles is large where members disagree: far from their data
    spread = returns.nan_to_num().std(0, correction=0) if pessimism else 0.0
    returns = torch.where(unusable, -torch.inf, returns.mean(0) - pessimism * spread)
    return Scored(returns, unusable.sum())


def _rewards(
    task: Task, imagined: Trajectories, actions: Float[Tensor, "b n t a"]
) -> Float[Tensor, "p b n t"]:
    if task.reward is not None:
        before, after = imagined.observations[..., :-1, :], imagined.observations[..., 1:, :]
        return task.reward(before, actions.expand(len(before), *actions.shape), after)
    if imagined.rewards is None:
        raise InputError(
            f"{task.env_id} has no known reward function and the model has no reward head: "
            "train a model that learns the reward"
        )
    return imagined.rewards


def _until_termination(terminated: Bool[Tensor, "*s t"]) -> Bool[Tensor, "*s t"]:
    """True up to and including the first step that terminates."""
    return terminated.cumsum(-1) - terminated.long() == 0
