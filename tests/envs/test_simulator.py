"""The simulator as a model must be env.step, in every number, and leave the live environment be."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.wrappers import (
    ClipAction,
    ClipReward,
    NormalizeObservation,
    RecordEpisodeStatistics,
    RescaleAction,
    RescaleObservation,
    StickyAction,
    TimeLimit,
    TransformAction,
    TransformReward,
)
from torch import Tensor

from mbrl_bilevel.agents.behaviour import load_policy
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.simulator import Simulator
from mbrl_bilevel.envs.tasks import TASKS, get_task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.icem import ICEM
from mbrl_bilevel.protocols import Trajectories, TrajectoryModel

GENERATOR = torch.Generator()
OTHER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "HalfCheetah-v5": {"forward_reward_weight": 2.0, "frame_skip": 2},
    "Hopper-v5": {"healthy_reward": 7.0, "healthy_z_range": (1.0, 1.3), "ctrl_cost_weight": 0.5},
    "Walker2d-v5": {"exclude_current_positions_from_observation": False},
    "Swimmer-v5": {"frame_skip": 1, "exclude_current_positions_from_observation": False},
    "Ant-v5": {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.1},
    "InvertedDoublePendulum-v5": {"healthy_reward": 3.0},
    "Reacher-v5": {"reward_dist_weight": 2.0, "reward_control_weight": 0.3},
    "Pusher-v5": {"reward_near_weight": 3.0},
    "Pendulum-v1": {"g": 3.0},
}


def live(env_id: str, prefix: np.ndarray, **kwargs: Any) -> tuple[gymnasium.Env, np.ndarray]:
    """A fresh environment after the actions of `prefix`, and its observation."""
    env = make_env(env_id, **kwargs)
    obs, _ = env.reset(seed=3)
    for action in prefix:
        obs = env.unwrapped.step(action)[0]
    return env, obs


def random_actions(env_id: str, *shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    space = make_env(env_id).action_space
    assert isinstance(space, gymnasium.spaces.Box)
    unit = np.random.default_rng(seed).uniform(-scale, scale, (*shape, *space.shape))
    return unit * space.high


def look_ahead(
    env: gymnasium.Env, obs: np.ndarray, actions: np.ndarray, threads: int = 1
) -> Trajectories:
    given = torch.from_numpy(obs).double()[None]
    return Simulator(env, threads=threads).trajectories(
        given, torch.from_numpy(actions)[None], GENERATOR
    )


def agrees(
    env_id: str, prefix: np.ndarray, actions: np.ndarray, atol: float, **kwargs: Any
) -> None:
    """Compares with a twin for each sequence, brought to the same state from the same seed."""
    env, obs = live(env_id, prefix, **kwargs)
    found = look_ahead(env, obs, actions)
    n, horizon, _ = actions.shape
    assert found.observations.shape == (1, 1, n, horizon + 1, len(obs))
    assert found.observations.dtype == torch.float64
    # Pendulum's real observations are float32
    obs_atol = 1e-6 if env_id == "Pendulum-v1" else atol
    assert found.rewards is not None
    for i, sequence in enumerate(actions):
        twin, start = live(env_id, prefix, **kwargs)
        steps = [twin.unwrapped.step(action)[:2] for action in sequence]
        real = np.stack([start, *(step[0] for step in steps)])
        np.testing.assert_allclose(found.observations[0, 0, i], real, rtol=0, atol=obs_atol)
        rewards = [float(step[1]) for step in steps]
        np.testing.assert_allclose(found.rewards[0, 0, i], rewards, rtol=0, atol=atol)


@pytest.mark.parametrize("env_id", TASKS)
def test_the_look_ahead_is_what_stepping_gives(env_id: str) -> None:
    prefix = random_actions(env_id, 15, seed=1)
    # long enough for hoppers to fall and for poles to pass their thresholds
    agrees(env_id, prefix, random_actions(env_id, 3, 30), atol=1e-9)


@pytest.mark.parametrize("env_id", TASKS)
def test_it_holds_right_after_a_reset_and_for_actions_outside_the_box(env_id: str) -> None:
    actions = random_actions(env_id, 2, 10, scale=3.0)
    agrees(env_id, actions[0, :0], actions, atol=1e-9)


@pytest.mark.parametrize("env_id", TASKS)
def test_float32_actions_are_paid_as_the_environment_pays_them(env_id: str) -> None:
    actions = random_actions(env_id, 2, 10).astype(np.float32)
    # 1 in 2^24 would be 6e-8 a term; the sums are formed alike, so nothing is left
    agrees(env_id, actions[0], actions, atol=1e-9)


@pytest.mark.parametrize("env_id", OTHER_ARGUMENTS)
def test_the_environments_own_arguments_count(env_id: str) -> None:
    actions = random_actions(env_id, 2, 12)
    agrees(env_id, actions[0], actions, atol=1e-9, **OTHER_ARGUMENTS[env_id])


def wrapped(env_id: str) -> gymnasium.Env:
    """Actions on another scale, clipped outside of that, and rewards cut off."""
    env = gymnasium.make(env_id)
    env = RecordEpisodeStatistics(RescaleAction(env, np.float32(-0.5), np.float32(2.0)))
    return TimeLimit(ClipReward(ClipAction(ClipReward(env, -5.0, 2.0)), -0.5, 3.0), 100)


@pytest.mark.situation("right")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("env_id", TASKS)
def test_wrappers_of_actions_and_rewards_count(env_id: str, dtype: type) -> None:
    actions = np.random.default_rng(0).uniform(-1, 3, (2, 8, *shape_of(env_id))).astype(dtype)
    env = wrapped(env_id)
    obs, _ = env.reset(seed=3)
    found = look_ahead(env, obs, actions)
    assert found.rewards is not None
    for i, sequence in enumerate(actions):
        twin = wrapped(env_id)
        twin.reset(seed=3)
        steps = [twin.step(action)[:2] for action in sequence]
        atol = 1e-6 if env_id == "Pendulum-v1" else 1e-9
        for t, (following, reward) in enumerate(steps):
            np.testing.assert_allclose(found.observations[0, 0, i, t + 1], following, atol=atol)
            np.testing.assert_allclose(found.rewards[0, 0, i, t], reward, atol=1e-7)


def shape_of(env_id: str) -> tuple[int, ...]:
    return make_env(env_id).action_space.shape or ()


class Negated(gymnasium.ActionWrapper):
    def action(self, action: np.ndarray) -> np.ndarray:
        return -action


class ClipOf(ClipAction):
    """Not what it looks like."""


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    "wrap",
    [
        Negated,
        ClipOf,
        lambda env: TransformReward(env, lambda reward: -reward),
        lambda env: TransformAction(env, lambda action: -action, env.action_space),
        lambda env: RescaleObservation(env, -1.0, 1.0),
        lambda env: NormalizeObservation(env),
        lambda env: StickyAction(env, 0.5),
    ],
)
def test_other_wrappers_are_refused_by_name(
    wrap: Callable[[gymnasium.Env], gymnasium.Env],
) -> None:
    env = TimeLimit(wrap(gymnasium.make("Pendulum-v1")), 100)
    name = type(env.env).__name__
    with pytest.raises(InputError, match=rf"does not know what the wrapper {name} does"):
        Simulator(env)
    Simulator(env.unwrapped)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Hopper-v5"])
def test_it_holds_in_the_middle_of_a_gait(env_id: str) -> None:
    policy, env = load_policy(env_id, "medium"), make_env(env_id)
    obs, _ = env.reset(seed=3)
    prefix: list[np.ndarray] = []
    for _ in range(60):
        prefix.append(policy(obs[None])[0])
        obs = env.step(prefix[-1])[0]
    around = np.stack(prefix[-25:]) + random_actions(env_id, 3, 25, scale=0.3)
    agrees(env_id, np.stack(prefix), around, atol=1e-9)


@pytest.mark.parametrize("env_id", TASKS)
def test_the_live_environment_goes_on_undisturbed(env_id: str) -> None:
    prefix = random_actions(env_id, 10, seed=1)
    (env, obs), (twin, _) = live(env_id, prefix), live(env_id, prefix)
    before, chance = whole_state(env), copy.deepcopy(env.unwrapped.np_random.bit_generator.state)
    look_ahead(env, obs, random_actions(env_id, 4, 20), threads=2)
    for name, value in whole_state(env).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert env.unwrapped.np_random.bit_generator.state == chance
    for action in random_actions(env_id, 5, seed=2):
        after, reward, *_ = env.unwrapped.step(action)
        expected, paid, *_ = twin.unwrapped.step(action)
        np.testing.assert_array_equal(after, expected)
        assert reward == paid


def whole_state(env: gymnasium.Env) -> dict[str, np.ndarray]:
    bare: Any = env.unwrapped
    if not hasattr(bare, "data"):
        return {"state": np.array(bare.state)}
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(bare.model, kind))
    mujoco.mj_getState(bare.model, bare.data, state, kind)
    derived = ("xpos", "site_xpos", "cfrc_ext", "qfrc_constraint", "qacc", "sensordata")
    return {"state": state} | {name: getattr(bare.data, name).copy() for name in derived}


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Reacher-v5", "Ant-v5"])
def test_threads_change_nothing(env_id: str) -> None:
    env, obs = live(env_id, random_actions(env_id, 5))
    actions = random_actions(env_id, 7, 8, seed=1)
    one, three = look_ahead(env, obs, actions), look_ahead(env, obs, actions, threads=3)
    assert torch.equal(one.observations, three.observations)
    assert one.rewards is not None
    assert three.rewards is not None
    assert torch.equal(one.rewards, three.rewards)


def test_several_environments_stand_in_rows() -> None:
    prefixes = random_actions("Hopper-v5", 2, 6)
    pairs = [live("Hopper-v5", prefix) for prefix in prefixes]
    actions = torch.from_numpy(random_actions("Hopper-v5", 2, 4, 9, seed=1))
    obs = torch.from_numpy(np.stack([obs for _, obs in pairs]))
    found = Simulator([env for env, _ in pairs]).trajectories(obs, actions, GENERATOR)
    assert found.rewards is not None
    for row, (env, seen) in enumerate(pairs):
        alone = look_ahead(env, seen, actions[row].numpy())
        assert alone.rewards is not None
        assert torch.equal(found.observations[:, row], alone.observations[:, 0])
        assert torch.equal(found.rewards[:, row], alone.rewards[:, 0])
    assert not torch.equal(found.observations[0, 0], found.observations[0, 1])


@pytest.mark.parametrize(
    ("env_id", "kwargs", "speed"),
    [("HalfCheetah-v5", {"frame_skip": 1}, 1e3), ("Pusher-v5", {"frame_skip": 1}, 1e9)],
)
def test_a_diverged_simulation_is_nan_from_there_on(
    env_id: str,
    kwargs: dict[str, Any],
    speed: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    env, _ = live(env_id, random_actions(env_id, 3), **kwargs)
    data: Any = env.unwrapped.data  # type: ignore[attr-defined]
    data.qvel[2] = speed
    obs = env.unwrapped._get_obs()  # type: ignore[attr-defined]
    capfd.readouterr()
    found = look_ahead(env, obs, random_actions(env_id, 2, 12))
    assert found.rewards is not None
    lost = found.rewards[0, 0].isnan()
    assert lost.any(-1).all()
    first = lost.int().argmax(-1)
    for i, t in enumerate(first.tolist()):
        assert lost[i, t:].all()
        assert found.observations[0, 0, i, t + 1 :].isnan().all()
        assert found.observations[0, 0, i, : t + 1].isfinite().all()
        assert found.rewards[0, 0, i, :t].isfinite().all()
    assert first.min() > 0 or env_id != "HalfCheetah-v5"
    # what is only imagined is not reported as the live simulation's
    assert capfd.readouterr().err == ""
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


def test_planners_take_it_and_it_keeps_the_dtype_of_observations() -> None:
    env, obs = live("Pendulum-v1", np.zeros((0, 1)))
    model, task = Simulator(env), get_task("Pendulum-v1")
    assert isinstance(model, TrajectoryModel)
    planner = ICEM([-2.0], [2.0], horizon=5, samples=20, elites=4)
    generator = torch.Generator().manual_seed(0)
    plan = planner(model, task, torch.from_numpy(obs)[None], generator)
    found = model.trajectories(torch.from_numpy(obs)[None], plan[None], generator)
    assert found.observations.dtype == torch.float32
    assert found.rewards is not None
    assert found.rewards.dtype == torch.float32
    torch.testing.assert_close(found.rewards[0, 0, 0], expected_rewards(env, plan[0]))


def expected_rewards(env: gymnasium.Env, plan: Tensor) -> Tensor:
    return torch.tensor([float(env.step(action)[1]) for action in plan.numpy()])


@pytest.mark.parametrize("env_id", ["Humanoid-v5", "MountainCarContinuous-v0"])
def test_other_environments_are_refused(env_id: str) -> None:
    with pytest.raises(InputError, match=rf"look ahead in {env_id}; it knows Half.*Pendulum-v1"):
        Simulator(make_env(env_id))


def test_what_does_not_fit_is_refused() -> None:
    env, obs = live("Hopper-v5", random_actions("Hopper-v5", 2))
    other = torch.from_numpy(obs)[None] + 0.01
    actions = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    with pytest.raises(InputError, match="is not what the simulator's environment shows"):
        Simulator(env).trajectories(other, actions, GENERATOR)
    with pytest.raises(InputError, match="2 observations for a simulator of 1 environment:"):
        Simulator(env).trajectories(other.repeat(2, 1), actions.repeat(2, 1, 1, 1), GENERATOR)
    with pytest.raises(InputError, match="threads 0: it must be at least 1"):
        Simulator(env, threads=0)
