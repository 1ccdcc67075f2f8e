"""The learned environment against its model, gymnasium's SyncVectorEnv and the real one."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from torch import Tensor

from mbrl_bilevel.envs.learned_single_env import LearnedEnv, learned_env
from mbrl_bilevel.envs.learned_vector_env import LearnedVectorEnv
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.uncertainty import Penalty, sample_with_uncertainty
from mbrl_bilevel.protocols import NextStep
from tests.envs.learned_environments import (
    PENDULUM,
    UNIT,
    WALK,
    Walk,
    pendulum,
    pendulum_model,
    pendulum_starts,
    seeded,
    walk,
    walk_reward,
)


class RealWalk(gymnasium.Env[np.ndarray, np.ndarray]):
    """The same walk, written as anybody would write an environment."""

    observation_space, action_space = Box(-np.inf, np.inf, (2,)), UNIT

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place, self.steps = np.array([0.5, -0.25], dtype=np.float32), 0
        return self.place, {}

    def step(self, action: np.ndarray) -> Any:
        before, self.place = self.place, self.place + action
        self.steps += 1
        reward = before[0] + 2 * action[1] + 3 * self.place[0]
        penalty = self.weight * math.hypot(*(min(0.2 * (1 + abs(x)), 1.0) for x in before))
        info = {"penalty": penalty} if self.weight else {}
        out = bool(abs(self.place[0]) > 2)
        return self.place, reward - penalty, out, self.steps >= 7, info


def assert_same_infos(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_same_infos(found[key], value)
        elif value.dtype == object:
            for ours, theirs in zip(found[key], value, strict=True):
                assert (ours is None) == (theirs is None)
                if theirs is not None:
                    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        else:
            np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=key)


@pytest.mark.situation("right")
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_it_behaves_as_gymnasiums_vector_of_the_same_environment(weight: float) -> None:
    ours: Any = walk(uncertainty_penalty=weight)
    mode = AutoresetMode.SAME_STEP
    theirs: Any = SyncVectorEnv([lambda: RealWalk(weight)] * 5, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"]
    for name in ("single_observation_space", "single_action_space"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert (ours.observation_space, ours.action_space) == (
        theirs.observation_space,
        theirs.action_space,
    )
    ours, theirs = RecordEpisodeStatistics(ours), RecordEpisodeStatistics(theirs)
    generator, ends = np.random.default_rng(0), np.zeros(2)
    for step in range(40):
        if step in (0, 17, 25):
            mask = np.array([True, False, False, True, False])
            options = {} if step == 0 else {"options": {"reset_mask": mask}}
            (found, ours_info), (expected, info) = (
                env.reset(seed=3, **{k: dict(v) for k, v in options.items()})
                for env in (ours, theirs)
            )
            np.testing.assert_array_equal(found, expected)
            assert_same_infos(ours_info, info)
            if step:  # gymnasium's own vector takes the mask away from the wrapper
                theirs.episode_returns[~mask] = ours.episode_returns[~mask]
                theirs.episode_lengths[~mask] = ours.episode_lengths[~mask]
        action = generator.uniform(-1, 1, (5, 2)).astype(np.float32)
        found, expected = ours.step(action), theirs.step(action)
        for part, same in zip(found[:4], expected[:4], strict=True):
            assert part.dtype == (np.float32 if same.dtype == float else same.dtype)
            np.testing.assert_allclose(part, same, rtol=1e-5, atol=1e-6)
        for infos in (found[4], expected[4]):
            infos.get("episode", {}).pop("t", None)
        assert_same_infos(found[4], expected[4])
        ends += found[2].sum(), found[3].sum()
    assert (ends > 2).all(), "the walks must end in both ways for this to say anything"


def test_a_step_is_a_sample_of_the_model() -> None:
    model, twin = pendulum_model(), seeded()
    env = pendulum(model)
    obs = env.reset_tensors()
    twin.set_state(env.generator.get_state())
    act = torch.tensor([[-3.0], [-1.0], [0.5], [2.0]])
    step = env.step_tensors(act)
    expected = model.sample(obs, act.clamp(-2, 2), twin).observation
    assert torch.equal(step.next_observation, expected)
    assert torch.equal(step.observation, expected)
    assert PENDULUM.reward is not None
    assert torch.equal(step.reward, PENDULUM.reward(obs, act, expected))
    assert not step.penalty.any()


def test_the_reward_function_sees_actions_as_they_are() -> None:
    env, act = walk(), torch.full((5, 2), 5.0)
    obs = env.reset_tensors()
    step = env.step_tensors(act)
    assert torch.equal(step.next_observation, obs + 1)
    assert torch.equal(step.reward, walk_reward(obs, act, obs + 1))


def test_a_learned_reward_comes_from_the_models_head() -> None:
    model, twin = pendulum_model(learn_reward=True), seeded()
    env = pendulum(model, task=replace(PENDULUM, reward=None))
    obs, act = env.reset_tensors(), torch.zeros(4, 1)
    twin.set_state(env.generator.get_state())
    expected = model.sample(obs, act, twin).reward
    assert expected is not None
    assert torch.equal(env.step_tensors(act).reward, expected)


@pytest.mark.parametrize("kind", ["aleatoric", "disagreement"])
def test_the_penalty_is_taken_from_the_reward_and_reported(kind: Penalty) -> None:
    plain, cautious = pendulum(), pendulum(uncertainty_penalty=0.7, penalty=kind)
    obs, _ = plain.reset(seed=5)
    cautious.reset(seed=5)
    act = np.full((4, 1), 0.5, dtype=np.float32)
    (after, reward, *_, none), (same, less, *_, infos) = plain.step(act), cautious.step(act)
    np.testing.assert_allclose(after, same, rtol=1e-5, atol=1e-6)  # the same numbers are drawn
    assert isinstance(plain.model, DynamicsModel)
    rows = torch.tensor(obs), torch.tensor(act)
    unsure = sample_with_uncertainty(plain.model, *rows, seeded(), kind)[1].numpy()
    np.testing.assert_allclose(infos["penalty"], 0.7 * unsure, rtol=1e-5)
    np.testing.assert_allclose(reward - less, 0.7 * unsure, rtol=1e-3)  # rewards of some -10
    assert (unsure > 0.01).all()
    assert none == {}


class Broken(Walk):
    """Predicts NaN wherever the first coordinate of the action is above a half."""

    def sample(self, obs: Tensor, act: Tensor, *args: Any, **options: Any) -> NextStep:
        return NextStep(torch.where(act[:, :1] > 0.5, torch.nan, obs + act), None)


def test_predictions_that_are_not_finite_end_the_episode() -> None:
    env = walk(Broken(), uncertainty_penalty=1.0)
    start, _ = env.reset()
    act = np.zeros((5, 2), dtype=np.float32)
    act[[1, 3], 0] = 1.0
    obs, reward, terminated, truncated, infos = env.step(act)
    np.testing.assert_array_equal(terminated, [False, True, False, True, False])
    assert not truncated.any()
    assert np.isfinite(obs).all()
    assert (reward[[1, 3]] == 0).all()
    assert (reward[[0, 2, 4]] != 0).all()
    np.testing.assert_array_equal(infos["final_obs"][1], start[1])
    np.testing.assert_array_equal(infos["final_info"]["penalty"], np.zeros(5))
    assert env.non_finite_steps == 2
    env.step(np.zeros((5, 2), dtype=np.float32))
    assert env.non_finite_steps == 2


def test_a_reward_that_is_not_finite_is_never_returned() -> None:
    def infinite(obs: Tensor, act: Tensor, next_obs: Tensor) -> Tensor:
        return torch.where(act[..., 0] > 0, torch.inf, 1.0)

    env = walk(task=replace(WALK, reward=infinite))
    env.reset()
    act = np.array([[1, 0], [0, 0], [0, 0], [1, 0], [0, 0]], dtype=np.float32)
    _, reward, terminated, _, _ = env.step(act)
    np.testing.assert_array_equal(reward, [0, 1, 1, 0, 1])
    np.testing.assert_array_equal(terminated, [True, False, False, True, False])
    assert env.non_finite_steps == 2


def test_predictions_are_clipped_to_the_real_bounds() -> None:
    model = pendulum_model()
    model.target_standardizer.mean.copy_(torch.tensor([5.0, -5.0, 50.0]))
    real = make_env("Pendulum-v1")
    env = pendulum(model, observation_space=real.observation_space)
    env.reset()
    obs, *_ = env.step(np.zeros((4, 1), dtype=np.float32))
    np.testing.assert_array_equal(obs, [[1.0, -1.0, 8.0]] * 4)
    assert obs in env.observation_space
    assert env.single_observation_space == real.observation_space
    real.close()


def test_starts_are_drawn_uniformly() -> None:
    starts = torch.arange(8.0).reshape(4, 2)
    env = walk(starts=starts, num_envs=4000)
    first, _ = env.reset(seed=1)
    act = np.zeros((4000, 2), dtype=np.float32)
    act[:, 0] = 1.0
    after, _, terminated, _, _ = env.step(act)  # all but those from [0, 1] leave
    for rows in (first, after[terminated]):
        counts = (rows[:, None] == starts.numpy()).all(-1).sum(0)
        assert counts.sum() == len(rows)
        # five standard deviations of a binomial count: one false alarm in 10^5
        assert np.abs(counts - len(rows) / 4).max() < 5 * math.sqrt(len(rows) * 3 / 16)
    assert terminated.sum() > 2500


def test_the_seed_decides_everything() -> None:
    def rollout(env: LearnedVectorEnv, seed: int | None) -> np.ndarray:
        rows = [env.reset(seed=seed)[0]]
        rows += [env.step(np.ones((4, 1), dtype=np.float32))[0] for _ in range(10)]
        return np.stack(rows)

    env = pendulum(time_limit=3, seed=4)
    first, second = rollout(env, None), rollout(env, None)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(rollout(env, 4), first)
    np.testing.assert_array_equal(rollout(pendulum(time_limit=3, seed=4), None), first)
    assert not np.array_equal(rollout(env, 5), first)


def test_what_is_returned_belongs_to_the_caller() -> None:
    env, twin = walk(), walk()
    act = np.full((5, 2), 0.1, dtype=np.float32)
    for one in (env, twin):
        returned, _ = one.reset()
        if one is env:
            returned[:] = 100.0
        returned, *_ = one.step(act)
        if one is env:
            returned[:] = 100.0
    np.testing.assert_array_equal(env.step(act)[0], twin.step(act)[0])


@pytest.mark.situation("warned")
def test_bounds_that_starts_do_not_keep_to_bound_nothing() -> None:
    """x leaves its bounds at the start, so it is free; y is still held in its own."""
    space = Box(np.array([-0.4, -0.5], np.float32), np.array([0.4, 0.5], np.float32))
    with pytest.warns(UserWarning, match=r"of Walk-v0 \(x from 0.5 to 0.5, declared \[-0.4, 0.4\]"):
        env = walk(observation_space=space)
    assert env.single_observation_space.low.tolist() == [-np.inf, -0.5]
    assert env.single_observation_space.high.tolist() == [np.inf, 0.5]
    env.reset(seed=0)
    observation, *_ = env.step(np.full((5, 2), 0.9, np.float32))
    np.testing.assert_allclose(observation, np.tile([1.4, 0.5], (5, 1)), rtol=1e-6)
    assert env.observation_space.contains(observation)


@pytest.mark.situation("warned")
def test_a_reset_to_a_start_outside_the_models_range_is_warned_of_once() -> None:
    model = pendulum_model()
    model.lowest.fill_(-0.01)
    model.highest.fill_(0.01)
    env = pendulum(model)
    with pytest.warns(UserWarning, match="4 of 4 starts lie outside the range"):
        env.reset(seed=0)
    env.reset(seed=1)
    env.step(np.zeros((4, 1), dtype=np.float32))


def test_a_step_before_the_first_reset() -> None:
    with pytest.raises(ResetNeeded):
        walk().step(np.zeros((5, 2), dtype=np.float32))


BAD: dict[str, Callable[[], Any]] = {
    "trained for Hopper-v5": lambda: pendulum(pendulum_model(env_id="Hopper-v5")),
    "1 action dimensions": lambda: pendulum(action_space=UNIT),
    "Walk-v0 has 2": lambda: pendulum(task=WALK),
    "did not learn one": lambda: pendulum(task=replace(PENDULUM, reward=None)),
    "starts of shape": lambda: pendulum(starts=torch.zeros(5, 4)),
    "at least one observation": lambda: pendulum(starts=torch.zeros(0, 3)),
    "start 1, .*finite": lambda: pendulum(starts=torch.tensor([[1.0, 0, 0], [torch.nan, 0, 0]])),
    "num_envs 0": lambda: pendulum(num_envs=0),
    "time_limit 0": lambda: pendulum(time_limit=0),
    "uncertainty_penalty -1": lambda: pendulum(uncertainty_penalty=-1.0),
    "uncertainty_penalty nan": lambda: pendulum(uncertainty_penalty=math.nan),
    "actions of shape": lambda: pendulum().step(np.zeros((3, 1))),
    "num_envs=1": lambda: LearnedEnv(pendulum()),
    "names? .*environment|name its environment": lambda: learned_env(
        "saved", pendulum_starts(), num_envs=1
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pendulum_model().save("saved")
    with pytest.raises(InputError, match=message):
        BAD[message]()


def test_disagreement_needs_two_elites() -> None:
    model = pendulum_model()
    model.elites = torch.tensor([1])
    with pytest.raises(InputError, match="1 elite"):
        pendulum(model, uncertainty_penalty=1.0, penalty="disagreement")
    pendulum(model, uncertainty_penalty=1.0, penalty="aleatoric")


@pytest.mark.parametrize(
    "mask", [[True] * 4, np.ones(3, dtype=bool), np.ones(4, dtype=int), np.zeros(4, dtype=bool)]
)
def test_a_bad_reset_mask(mask: Any) -> None:
    env = pendulum()
    env.reset()
    with pytest.raises(InputError, match="reset_mask"):
        env.reset(options={"reset_mask": mask})
