"""Every task against its real environment, and the registry."""

import dataclasses
import re
from typing import Any

import gymnasium
import pytest
import torch

from mbrl_bilevel import protocols
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.pendulum import tip
from mbrl_bilevel.envs.tasks import (
    TASKS,
    Task,
    get_task,
    planned_task,
    reference_scores,
    register_task,
)
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from tests.envs.real_rollouts import behaviour_rollout, random_rollout

ENV_IDS = tuple(TASKS)
ENDING = {
    "Hopper-v5",
    "Walker2d-v5",
    "Ant-v5",
    "InvertedPendulum-v5",
    "InvertedDoublePendulum-v5",
}


def test_all_ten_tasks_are_there() -> None:
    running = {"HalfCheetah-v5", "Swimmer-v5", "Reacher-v5", "Pusher-v5", "Pendulum-v1"}
    assert set(ENV_IDS) == ENDING | running


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("env_id", ENV_IDS)
def test_termination_agrees_with_the_environment_on_every_step(
    env_id: str, dtype: torch.dtype
) -> None:
    real = random_rollout(env_id)
    found = get_task(env_id).terminated(real.next_obs.to(dtype))
    assert found.dtype == torch.bool
    if env_id in ENDING:
        assert real.terminated.sum() >= 5
        assert (~real.terminated).sum() >= 1000
    visible = torch.ones_like(found)
    if env_id == "InvertedDoublePendulum-v5":
        # The environment judges the tip's height some 1e-5 m from the height it shows.
        visible = (tip(real.next_obs)[1] - 1).abs() > 1e-4
        assert visible.double().mean() > 0.998
    assert torch.equal(found[visible], real.terminated[visible])


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Hopper-v5"])
@pytest.mark.parametrize("policy", ["simple", "medium", "good"])
def test_termination_agrees_on_behaviour_data(env_id: str, policy: str) -> None:
    real = behaviour_rollout(env_id, policy)
    assert bool(real.terminated.any()) == (env_id in ENDING)
    assert torch.equal(get_task(env_id).terminated(real.next_obs), real.terminated)
    assert torch.equal(get_task(env_id).terminated(real.next_obs.float()), real.terminated)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_an_observation_that_is_not_finite_is_terminated(env_id: str) -> None:
    obs = random_rollout(env_id).obs[:1]  # a start: never terminated itself
    size = obs.shape[-1]
    task = get_task(env_id)
    assert not task.terminated(obs).any()
    for bad in (torch.nan, torch.inf, -torch.inf):
        spoilt = torch.where(torch.eye(size, dtype=torch.bool), bad, obs.expand(size, size))
        assert task.terminated(spoilt).all()


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_names_are_one_for_each_dimension(env_id: str) -> None:
    names = get_task(env_id).observation_names
    env = make_env(env_id)
    assert (len(names),) == env.observation_space.shape
    assert len(set(names)) == len(names)
    env.close()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("env_id", ENV_IDS)
def test_leading_axes_and_dtype_are_kept(env_id: str, dtype: torch.dtype) -> None:
    real, task = random_rollout(env_id), get_task(env_id)
    assert task.reward is not None
    flat = tuple(x[:12].to(dtype) for x in (real.obs, real.act, real.next_obs))
    folded = tuple(x.reshape(3, 4, -1) for x in flat)
    reward = task.reward(*folded)
    assert reward.dtype == dtype
    torch.testing.assert_close(reward, task.reward(*flat).reshape(3, 4))
    assert torch.equal(task.terminated(folded[2]), task.terminated(flat[2]).reshape(3, 4))
    empty = tuple(x[:0] for x in flat)
    assert task.reward(*empty).shape == task.terminated(empty[2]).shape == (0,)
    single = tuple(x[0] for x in flat)
    torch.testing.assert_close(task.reward(*single), task.reward(*flat)[0])


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_float32_rewards_are_those_of_float64(env_id: str) -> None:
    real, task = random_rollout(env_id), get_task(env_id)
    assert task.reward is not None
    transition = (real.obs, real.act, real.next_obs)
    single = task.reward(*(x.float() for x in transition))
    torch.testing.assert_close(single.double(), task.reward(*transition), atol=2e-5, rtol=0.0)


def test_tasks_satisfy_the_protocol_and_are_frozen() -> None:
    for task in TASKS.values():
        assert isinstance(task, protocols.Task)
        with pytest.raises(dataclasses.FrozenInstanceError):
            task.env_id = "other"  # type: ignore[misc]


@pytest.mark.situation("right")
@pytest.mark.parametrize(
    ("arguments", "max_steps", "scored"),
    [
        ({}, None, True),
        ({}, 1000, True),
        ({}, 50, False),
        ({"max_episode_steps": 200}, None, False),
        ({"max_episode_steps": 2000}, None, False),
        ({"forward_reward_weight": -1.0}, None, False),
        ({"render_mode": "rgb_array"}, None, True),
    ],
)
def test_reference_scores_are_of_whole_episodes_of_the_plain_task(
    arguments: dict[str, Any], max_steps: int | None, scored: bool
) -> None:
    env = gymnasium.make("HalfCheetah-v5", **arguments)
    expected = (-280.178953, 12135.0) if scored else None
    assert reference_scores(env, max_steps) == expected
    low, high = env.action_space.low, env.action_space.high
    assert reference_scores(gymnasium.wrappers.RescaleAction(env, low, high)) is None
    assert reference_scores(gymnasium.make("Pendulum-v1")) is None


def test_reference_scores_are_those_of_d4rl() -> None:
    known = {i: task.reference_scores for i, task in TASKS.items() if task.reference_scores}
    assert known == {
        "HalfCheetah-v5": (-280.178953, 12135.0),
        "Hopper-v5": (-20.272305, 3234.3),
        "Walker2d-v5": (1.629008, 4592.3),
    }


def test_an_unknown_task_names_itself_the_known_ones_and_the_remedy() -> None:
    with pytest.raises(InputError) as caught:
        get_task("Nothing-v0")
    assert all(word in str(caught.value) for word in ("'Nothing-v0'", "register_task", *ENV_IDS))


def test_a_task_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for env_id in ("MyCart-v0", "Other-v0"):
        monkeypatch.setitem(TASKS, env_id, TASKS["Hopper-v5"])  # removed again after the test
        del TASKS[env_id]
    from mbrl_bilevel.envs import tasks

    example = re.findall(r"(?m)^    (.*)$|^()$", (tasks.__doc__ or "").partition("lines:")[2])
    exec("\n".join(line for line, _ in example), {})  # the docstring's own code
    task = get_task("MyCart-v0")
    assert task.terminated(torch.tensor([[6.0, 0.0], [1.0, 0.0]])).tolist() == [True, False]

    mine = Task("MyCart-v0", None, task.terminated, ("x", "vel_x"))
    with pytest.raises(InputError, match="replace=True"):
        register_task(mine)
    register_task(mine, replace=True)
    assert get_task("MyCart-v0") is mine


@pytest.mark.situation("right")
def test_a_reward_that_a_model_learned_goes_before_a_known_one() -> None:
    task = get_task("Pendulum-v1")
    learned = DynamicsModel(3, 1, ModelSettings(members=1, hidden=(2,)), learn_reward=True)
    plain = DynamicsModel(3, 1, ModelSettings(members=1, hidden=(2,)))
    assert planned_task(task, learned).reward is None
    assert planned_task(task, plain) is task
    with pytest.raises(InputError, match="train it with --learn-reward yes"):
        planned_task(dataclasses.replace(task, reward=None), plain)
