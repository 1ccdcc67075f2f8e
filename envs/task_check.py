"""A task's functions held against real transitions, before anything is learned by them.

Where they differ, an agent would learn to earn the one in imagination and be paid by the other.
"""

import math
import warnings
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.envs.action_box import clamp_to
from mbrl_bilevel.envs.task import Task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.wording import counted

ROWS = 100_000  # of the data, evenly spread, on which rewards are compared
ROUNDING = 1e-3  # of a reward that is exact, plus RELATIVE of its size; data are float32
RELATIVE = 1e-4
STRAY = 0.05  # of the rows: rewards that are exact but where observations are clipped
ERROR = 2.0  # times the error on record of a reward that is approximate
BIAS = 0.25  # of the error on record: that of the shipped tasks is below 0.1
BORDERLINE = 0.01  # of the terminations: values within rounding of a threshold

GO_ON = "go on regardless by --unchecked-task"
LEARN_REWARD = f"learn the reward by --learn-reward yes, or {GO_ON}"

Bounds = tuple[Tensor, Tensor]


def reward_disagreement(task: Task, data: Transitions, box: Bounds | None = None) -> str | None:
    """How the rewards of `data` differ from the task's, in a phrase; None where they agree.

    The task's are taken of the actions as they stand, or clipped to the action `box` where those
    agree better: what was recorded before an environment clipped it is paid as it was clipped.
    """
    if task.reward is None:
        return None
    rows = data[:: max(1, math.ceil(len(data) / ROWS))]
    actions = [rows.action]
    if box is not None:
        actions.append(clamp_to(rows.action, *box))
    errors = [rows.reward - _reward(task, rows, action) for action in actions]
    error = min(errors, key=lambda e: float(e.square().mean()))
    if _agrees(task, error, rows.reward):
        return None
    rmse, mean = float(error.square().mean().sqrt()), float(error.mean())
    allowed = f", of which {task.reward_rmse:.2g} may be approximation" if task.reward_rmse else ""
    known = rows.reward - error
    return (
        f"rewards that are not those of the task {task.env_id} (correlation "
        f"{_correlation(known, rows.reward):.3f}, root mean square difference {rmse:.3g}{allowed}, "
        f"mean difference {mean:.3g}, over {len(rows)} rows), {_cause(known, rows.reward)}"
    )


def _reward(task: Task, rows: Transitions, action: Float[Tensor, "b a"]) -> Float[Tensor, "b"]:
    assert task.reward is not None
    return task.reward(rows.observation, action, rows.next_observation).to(rows.reward)


def _agrees(task: Task, error: Float[Tensor, "b"], reward: Float[Tensor, "b"]) -> bool:
    rounding = ROUNDING + RELATIVE * reward.abs()
    if task.reward_rmse == 0:
        return float((~(error.abs() <= rounding)).double().mean()) <= STRAY
    rmse = float(error.square().mean().sqrt())
    # of few rows the mean itself is uncertain
    bias = BIAS * task.reward_rmse + 4 * rmse / math.sqrt(len(error))
    usual = ERROR * task.reward_rmse + float(rounding.mean())
    return rmse <= usual and abs(float(error.mean())) <= bias


def _correlation(a: Float[Tensor, "b"], b: Float[Tensor, "b"]) -> float:
    """Of Pearson; NaN where one of them is constant."""
    both = torch.stack([a, b]).double()
    return float(torch.corrcoef(both)[0, 1]) if len(a) > 1 else math.nan


def _cause(known: Float[Tensor, "b"], found: Float[Tensor, "b"]) -> str:
    correlation = _correlation(known, found)
    if correlation < -0.5:
        return "as if the sign were turned round: by a negative weight, say"
    if abs(correlation) > 0.99:
        slope = correlation * float(found.std() / known.std())
        offset = float(found.mean()) - slope * float(known.mean())
        return f"as if they were {slope:.3g} times the task's, plus {offset:.3g}"
    return "as by other weights or arguments, actions on another scale, or another version"


def checked_endings(
    task: Task, data: Transitions, time_limit: int | None, whose: str, remedy: str
) -> Transitions:
    """The transitions, with time limits that are stored as terminations read as truncations.

    They are told by their step: all at the `time_limit`, or, of a task that never ends, all at the
    length of the longest episodes. That is said in a UserWarning; so is what lies within rounding.

    Raises:
        InputError: terminations are others than those of the task in any other way.
    """
    found = task.terminated(data.next_observation)
    extra = data.terminated & ~found
    if bool(extra.any()) and _at_limit(task, data.episode, extra, time_limit):
        warnings.warn(
            f"{whose} holds {counted(int(extra.sum()), 'termination')} at the time limit, where "
            f"the task {task.env_id} does not end: they are read as truncations",
            stacklevel=2,
        )
        data = replace(data, terminated=data.terminated & ~extra, truncated=data.truncated | extra)
    wrong = termination_disagreement(task, data)
    if wrong is None:
        return data
    if _borderline(data.terminated, found):
        warnings.warn(f"{whose} holds {wrong}: few enough to be rounding", stacklevel=2)
        return data
    raise InputError(f"{whose} holds {wrong}; {remedy}")


def termination_disagreement(task: Task, data: Transitions) -> str | None:
    """How the terminations of `data` differ from the task's, in a phrase; None where they agree."""
    found = task.terminated(data.next_observation)
    extra, missing = data.terminated & ~found, found & ~data.terminated
    if not bool((extra | missing).any()):
        return None
    parts = []
    if bool(extra.any()):
        ends = counted(int(extra.sum()), "termination")
        parts.append(f"{ends} where the task {task.env_id} does not end")
    if bool(missing.any()):
        cut = int((missing & data.truncated).sum())
        parts.append(
            f"{counted(int(missing.sum()), 'row')} without a termination where the task "
            + f"{task.env_id} ends"
            + (f" ({cut} of them truncated)" if cut else "")
        )
    return (
        " and ".join(parts)
        + f", of {counted(len(data), 'row')} with "
        + f"{counted(int(data.terminated.sum()), 'termination')}: "
        + "as by other arguments, another version, or flags that were stored one for the other"
    )


def _borderline(said: Bool[Tensor, "b"], found: Bool[Tensor, "b"]) -> bool:
    return int((said ^ found).sum()) <= BORDERLINE * int((said | found).sum())


def _at_limit(
    task: Task, episode: Int[Tensor, "b"], extra: Bool[Tensor, "b"], time_limit: int | None
) -> bool:
    """Whether these rows can be nothing but ends by a time limit."""
    _, lengths = torch.unique_consecutive(episode, return_counts=True)
    first = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
    step = torch.arange(len(episode), device=episode.device) - first + 1
    if time_limit is not None and bool((step[extra] == time_limit).all()):
        return True
    return task.never_ends and bool((step[extra] == lengths.max()).all())
