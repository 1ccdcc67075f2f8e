"""Tasks held against data: every task as documented passes, what is paid otherwise does not."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.task import Task
from mbrl_bilevel.envs.task_check import (
    checked_endings,
    reward_disagreement,
    termination_disagreement,
)
from mbrl_bilevel.envs.tasks import TASKS, get_task
from mbrl_bilevel.errors import InputError
from tests.envs.real_rollouts import Rollout, behaviour_rollout, random_rollout, step_through

BEHAVIOUR = [(e, p) for e in ("HalfCheetah-v5", "Hopper-v5") for p in ("simple", "medium", "good")]


def data_of(real: Rollout, rows: int | None = None) -> Transitions:
    """In float32, as a data set is loaded; an episode ends where the next row does not go on."""
    ends = (real.next_obs[:-1] != real.obs[1:]).any(-1)
    episode = torch.cat([torch.zeros(1, dtype=torch.long), ends.long().cumsum(0)])
    cut = torch.cat([ends, torch.tensor([True])]) & ~real.terminated
    columns = real.obs, real.act, real.reward, real.next_obs
    whole = Transitions(*(x.float() for x in columns), real.terminated, cut, episode)
    return whole[: rows or len(whole)]


def through(env_id: str, steps: int = 600, **kwargs: Any) -> Transitions:
    return data_of(step_through(make_env(EnvSpec(env_id, kwargs)), steps, None))


@pytest.mark.situation("right")
@pytest.mark.parametrize("rows", [60, None])
@pytest.mark.parametrize("env_id", TASKS)
def test_every_task_agrees_with_random_data_of_its_environment(
    env_id: str, rows: int | None
) -> None:
    data, task = data_of(random_rollout(env_id), rows), get_task(env_id)
    assert reward_disagreement(task, data) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checked_endings(task, data, 1000, "data", "mend it") is data


@pytest.mark.situation("right")
@pytest.mark.parametrize(("env_id", "policy"), BEHAVIOUR)
def test_every_task_agrees_with_behaviour_data(env_id: str, policy: str) -> None:
    data, task = data_of(behaviour_rollout(env_id, policy)), get_task(env_id)
    assert reward_disagreement(task, data) is None
    assert termination_disagreement(task, data) is None


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("env_id", "kwargs", "cause"),
    [
        ("HalfCheetah-v5", {"forward_reward_weight": -1.0}, "sign were turned round"),
        ("HalfCheetah-v5", {"ctrl_cost_weight": 0.2}, ""),
        ("HalfCheetah-v5", {"forward_reward_weight": 2.0, "ctrl_cost_weight": 0.2}, "times"),
        ("Hopper-v5", {"healthy_reward": 2.0}, ""),
        ("Hopper-v5", {"forward_reward_weight": 1.1}, "times"),
        ("Ant-v5", {"ctrl_cost_weight": 0.4}, ""),
        ("Pusher-v5", {"reward_near_weight": 0.51}, "times"),
        ("InvertedDoublePendulum-v5", {"healthy_reward": 10.1}, "times"),
    ],
)
def test_rewards_by_other_arguments_are_told(
    env_id: str, kwargs: dict[str, Any], cause: str
) -> None:
    data, task = through(env_id, **kwargs), get_task(env_id)
    wrong = reward_disagreement(task, data)
    assert wrong is not None
    for word in ("correlation", f"over {len(data)} rows", env_id, cause):
        assert word in wrong
    # ... and the same data agree with the task of those arguments
    assert reward_disagreement(get_task(EnvSpec(env_id, kwargs)), data) is None


@pytest.mark.situation("refused")
@pytest.mark.parametrize("env_id", ["Pendulum-v1", "Reacher-v5"])
def test_actions_on_another_scale_are_told(env_id: str) -> None:
    data, task = data_of(random_rollout(env_id)), get_task(env_id)
    scaled = replace(data, action=data.action / 2)
    wrong = reward_disagreement(task, scaled, (torch.tensor([-2.0]), torch.tensor([2.0])))
    assert wrong is not None


@pytest.mark.situation("right")
def test_actions_recorded_before_they_were_clipped_agree() -> None:
    """A wrapper that clips pays what the clipped action costs; the record is of the other."""
    env = make_env("HalfCheetah-v5")
    rng = np.random.default_rng(0)
    wide = torch.from_numpy(rng.uniform(-3, 3, (300, 6)))
    given = iter(wide.numpy())
    real = step_through(env, 300, lambda obs: next(given).clip(-1, 1))
    data = replace(data_of(real), action=wide.float())
    task, one = get_task("HalfCheetah-v5"), torch.ones(6)
    assert reward_disagreement(task, data) is not None
    assert reward_disagreement(task, data, (-one, one)) is None


def test_a_constant_reward_has_no_correlation_but_is_compared() -> None:
    data, task = data_of(random_rollout("InvertedPendulum-v5")), get_task("InvertedPendulum-v5")
    standing = data[~data.terminated]
    assert reward_disagreement(task, standing) is None
    wrong = reward_disagreement(task, replace(standing, reward=standing.reward + 1))
    assert wrong is not None
    assert "correlation nan" in wrong


def line(lengths: list[int], ends: Tensor, cut: Tensor | None = None) -> Transitions:
    """Episodes of a walk; `ends` and `cut` mark rows."""
    n = sum(lengths)
    x = torch.zeros(n, 1)
    episode = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    no = torch.zeros(n, dtype=torch.bool)
    return Transitions(x, x, x[:, 0], x, ends, no if cut is None else cut, episode)


def last_of(lengths: list[int]) -> Tensor:
    marks = torch.zeros(sum(lengths), dtype=torch.bool)
    marks[torch.tensor(lengths).cumsum(0) - 1] = True
    return marks


ENDLESS = Task("HalfCheetah-v5", None, TASKS["HalfCheetah-v5"].terminated, ("x",))
FALLING = Task("Fall-v0", None, lambda next_obs: next_obs[..., 0] > 5, ("x",))


@pytest.mark.situation("warned")
@pytest.mark.parametrize(
    ("task", "lengths", "limit"),
    [
        (ENDLESS, [50, 50, 50], 50),
        (ENDLESS, [50, 50, 50], 1000),
        (ENDLESS, [50, 50], None),
        (FALLING, [50, 50, 50], 50),
    ],
)
def test_time_limits_stored_as_terminations_are_read_as_truncations(
    task: Task, lengths: list[int], limit: int | None
) -> None:
    data = line(lengths, last_of(lengths))
    with pytest.warns(UserWarning, match=f"{len(lengths)} terminations at the time limit"):
        read = checked_endings(task, data, limit, "data", "mend it")
    assert not read.terminated.any()
    assert torch.equal(read.truncated, last_of(lengths))


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("task", "lengths", "limit"),
    [(ENDLESS, [50, 30], None), (FALLING, [50, 50], 1000), (FALLING, [50, 49], 50)],
)
def test_terminations_where_the_task_does_not_end_are_refused(
    task: Task, lengths: list[int], limit: int | None
) -> None:
    with pytest.raises(InputError, match=r"2 terminations where the task .* does not end.*mend it"):
        checked_endings(task, line(lengths, last_of(lengths)), limit, "data", "mend it")


@pytest.mark.situation("refused")
def test_flags_stored_one_for_the_other_are_refused() -> None:
    data = data_of(random_rollout("Hopper-v5"))
    swapped = replace(data, terminated=data.truncated, truncated=data.terminated)
    with pytest.raises(InputError, match=r"without a termination .*\d+ of them truncated"):
        checked_endings(get_task("Hopper-v5"), swapped, 1000, "data", "mend it")


@pytest.mark.situation("warned")
def test_a_few_terminations_within_rounding_are_no_error() -> None:
    data = data_of(random_rollout("InvertedPendulum-v5"))
    one = int(data.terminated.nonzero()[0])
    terminated = data.terminated.clone()
    terminated[one] = False
    assert data.terminated.sum() > 100
    with pytest.warns(UserWarning, match="1 row without a termination.*few enough"):
        checked_endings(
            get_task("InvertedPendulum-v5"), replace(data, terminated=terminated), None, "d", "m"
        )
