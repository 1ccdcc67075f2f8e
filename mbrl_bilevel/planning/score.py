"""Returns of imagined action sequences: rewards until termination, over all particles."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.finite import finite_rows
from mbrl_bilevel.planning.settings import ScoringSettings
from mbrl_bilevel.protocols import Task, Trajectories, TrajectoryModel

Value = Callable[[Float[Tensor, "*s o"]], Float[Tensor, "*s"]]


class Scored(NamedTuple):
    """Returns of candidate sequences; -inf where a particle met a state or reward not finite."""

    returns: Float[Tensor, "b n"]
    non_finite: Int[Tensor, ""]
    """How many of the b n sequences are -inf for that reason (a tensor: no host-device sync)."""


class Scoring:
    """The worth of action sequences, called as `scoring(model, task, obs, actions, generator)`.

    A particle's return is the sum over t of discount^t (reward_t - disagreement D_t) up to and
    including the step that terminates, nothing afterwards, plus discount^T V(s_T) where it does not
    terminate within the T steps, plus `alive_bonus` for each of them that does not terminate.
    Rewards are the task's own, or the model's (its reward head, the simulator's) where the task has
    none. A sequence is worth the mean over particles less `pessimism` of their standard deviations.
    What a model imagines after a termination never counts, finite or not.

    A large `alive_bonus` with a `discount` below 1 ranks sequences by their length first; without
    it, the best ones often terminate just behind the horizon. `disagreement` weighs the penalty of
    Yu et al. 2020 (MOPO), by the spread of members D_t that `Propagation` defines; `pessimism` is
    for models of narrow data, whose members disagree where planners would exploit their errors.

    Args:
        settings: the weights; `changes` replace some of them by name.
        terminal_value: V, from observations [*s, o] to values [*s] in the task's reward units.

    Raises:
        InputError: a weight outside its range.
    """

    def __init__(
        self,
        settings: ScoringSettings = ScoringSettings(),
        *,
        terminal_value: Value | None = None,
        **changes: Any,
    ) -> None:
        self.settings, self.terminal_value = replace(settings, **changes), terminal_value

    def __call__(
        self,
        model: TrajectoryModel,
        task: Task,
        obs: Float[Tensor, "b o"],
        actions: Float[Tensor, "b n t a"],
        generator: torch.Generator,
    ) -> Scored:
        """Returns [b, n] of the sequences [b, n, t, a] from `obs` [b, o], in reward units.

        Raises:
            InputError: neither the task nor the model knows the reward, or `disagreement` is wanted
                of a model that tells none.
        """
        settings = self.settings
        imagined = model.trajectories(obs, actions, generator)
        after = imagined.observations[..., 1:, :]
        rewards = _rewards(task, imagined, actions)
        if settings.disagreement:
            rewards = rewards - settings.disagreement * _disagreement(imagined)
        ended = task.terminated(after)
        counts = _until_termination(ended)
        finite = finite_rows(after) & rewards.isfinite()
        broken = (counts & ~finite).any(-1)
        horizon = rewards.shape[-1]
        steps = torch.arange(horizon, dtype=rewards.dtype, device=rewards.device)
        returns = torch.where(counts, rewards * settings.discount**steps, 0.0).sum(-1)
        if settings.alive_bonus:
            returns = returns + settings.alive_bonus * (counts & ~ended).sum(-1)
        if self.terminal_value is not None:
            value = settings.discount**horizon * self.terminal_value(after[..., -1, :])
            alive = ~ended.any(-1)
            returns = returns + torch.where(alive, value, 0.0)
            broken = broken | (alive & ~value.isfinite())
        unusable = broken.any(0)
        # the deviation over particles is large where members disagree: far from their data
        spread = returns.nan_to_num().std(0, correction=0) if settings.pessimism else 0.0
        returns = torch.where(unusable, -torch.inf, returns.mean(0) - settings.pessimism * spread)
        return Scored(returns, unusable.sum())


PLAIN = Scoring()


def _rewards(
    task: Task, imagined: Trajectories, actions: Float[Tensor, "b n t a"]
) -> Float[Tensor, "p b n t"]:
    if task.reward is not None:
        before, after = imagined.observations[..., :-1, :], imagined.observations[..., 1:, :]
        taken = imagined.actions
        if taken is None:
            taken = actions.expand(len(before), *actions.shape)
        return task.reward(before, taken, after)
    if imagined.rewards is None:
        raise InputError(
            f"{task.env_id} has no known reward function and the model has no reward head: "
            "train a model that learns the reward"
        )
    return imagined.rewards


def _disagreement(imagined: Trajectories) -> Float[Tensor, "b n t"]:
    if imagined.disagreement is None:
        raise InputError(
            "a penalty for disagreement, of a model that tells none: plan with "
            "Propagation(model, ..., disagreement=True), or leave the disagreement at 0 "
            "(the simulator has no members)"
        )
    return imagined.disagreement


def _until_termination(terminated: Bool[Tensor, "*s t"]) -> Bool[Tensor, "*s t"]:
    """True up to and including the first step that terminates."""
    return terminated.cumsum(-1) - terminated.long() == 0
