"""Whatever a shipped task was made with: imagined rewards and ends are those of the environment."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import (
    ClipAction,
    ClipReward,
    FlattenObservation,
    RecordEpisodeStatistics,
    RescaleAction,
    TimeLimit,
)
from hypothesis import given
from hypothesis import strategies as st

from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.envs.make import make_env, quiet_mujoco
from mbrl_bilevel.envs.pendulum import tip
from mbrl_bilevel.envs.simulator import Simulator
from mbrl_bilevel.envs.task_check import ERROR, reward_disagreement
from mbrl_bilevel.envs.tasks import TASKS, get_task
from tests.envs.real_rollouts import Rollout, step_through
from tests.hypothesis_settings import examples

WEIGHT = st.floats(-5.0, 5.0).filter(lambda w: abs(w) > 1e-3) | st.just(0.0)
COST = st.floats(0.0, 2.0)
SKIP = st.integers(1, 8)
FORWARD = {"forward_reward_weight": WEIGHT, "ctrl_cost_weight": COST}
POSITIONS = {"exclude_current_positions_from_observation": st.booleans()}


def ranges(low: tuple[float, float], high: tuple[float, float]) -> st.SearchStrategy[list[float]]:
    return st.tuples(st.floats(*low) | st.just(-inf), st.floats(*high) | st.just(inf)).map(list)


HEALTH = {"healthy_reward": WEIGHT, "terminate_when_unhealthy": st.booleans()}
ARGUMENTS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "HalfCheetah-v5": {**FORWARD, **POSITIONS, "reset_noise_scale": st.floats(0.0, 0.5)},
    "Hopper-v5": {
        **FORWARD,
        **POSITIONS,
        **HEALTH,
        "healthy_z_range": ranges((0.5, 1.1), (1.3, 1.5)),
        "healthy_angle_range": ranges((-0.3, -0.02), (0.02, 0.3)),
        "healthy_state_range": ranges((-100.0, -1.0), (1.0, 100.0)),
    },
    "Walker2d-v5": {
        **FORWARD,
        **POSITIONS,
        **HEALTH,
        "healthy_z_range": ranges((0.5, 1.1), (1.3, 2.0)),
        "healthy_angle_range": ranges((-1.0, -0.05), (0.05, 1.0)),
    },
    "Ant-v5": {
        **FORWARD,
        **POSITIONS,
        **HEALTH,
        "include_cfrc_ext_in_observation": st.booleans(),
        "contact_cost_weight": st.floats(0.0, 1e-3) | st.floats(0.0, 0.1),
        "contact_force_range": ranges((-5.0, -0.1), (0.1, 5.0)),
        "healthy_z_range": ranges((0.2, 0.5), (0.8, 1.2)),
    },
    "Swimmer-v5": {**FORWARD, **POSITIONS},
    "Reacher-v5": {"reward_dist_weight": WEIGHT, "reward_control_weight": WEIGHT},
    "Pusher-v5": {
        "reward_near_weight": WEIGHT,
        "reward_dist_weight": WEIGHT,
        "reward_control_weight": WEIGHT,
    },
    "InvertedPendulum-v5": {"reset_noise_scale": st.floats(0.0, 0.1)},
    "InvertedDoublePendulum-v5": {"healthy_reward": WEIGHT},
    "Pendulum-v1": {"g": st.floats(-20.0, 20.0)},
}
BOUNDS = st.tuples(st.floats(-4.0, 0.5, width=32), st.floats(1.0, 4.0, width=32))
CLIPS = st.tuples(st.none() | st.floats(-50.0, -0.1), st.none() | st.floats(0.1, 50.0)).filter(
    lambda b: b != (None, None)
)


def possible(wrappers: list[tuple[Any, dict[str, Any]]]) -> bool:
    """Whether gymnasium takes them, and tells of them: it forgets all time limits but the last."""
    kinds = [kind for kind, _ in wrappers]
    rescaled = [i for i, kind in enumerate(kinds) if kind is RescaleAction]
    bounded = not rescaled or ClipAction not in kinds[: rescaled[-1]]
    return bounded and all(kinds.count(one) <= 1 for one in (RecordEpisodeStatistics, TimeLimit))


WRAPPERS = st.lists(
    st.one_of(
        BOUNDS.map(lambda b: (RescaleAction, {"min_action": b[0], "max_action": b[1]})),
        st.just((ClipAction, {})),
        CLIPS.map(lambda b: (ClipReward, {"min_reward": b[0], "max_reward": b[1]})),
        st.integers(3, 50).map(lambda n: (TimeLimit, {"max_episode_steps": n})),
        st.just((FlattenObservation, {})),
        st.just((RecordEpisodeStatistics, {})),
    ),
    max_size=4,
).filter(possible)


@st.composite
def kwargs_of(draw: st.DrawFn, env_id: str) -> dict[str, Any]:
    known = dict(ARGUMENTS[env_id])
    if env_id != "Pendulum-v1":
        known["frame_skip"] = SKIP
    chosen = draw(st.sets(st.sampled_from(sorted(known)), max_size=4))
    return {name: draw(known[name]) for name in sorted(chosen)}


@contextmanager
def made(
    env_id: str, kwargs: dict[str, Any], wrappers: list[tuple[Any, dict[str, Any]]]
) -> Iterator[tuple[gymnasium.Env, EnvSpec]]:
    """The environment by gymnasium itself, and its spec as a data set would hold it."""
    with warnings.catch_warnings(), quiet_mujoco():
        warnings.simplefilter("ignore")  # gymnasium's, of precision
        env = gymnasium.make(env_id, **kwargs)
        for wrapper, arguments in wrappers:
            env = wrapper(env, **arguments)
        assert env.spec is not None
        try:
            yield env, EnvSpec.from_gymnasium(env.spec.to_json())
        finally:
            env.close()


def as_data(real: Rollout) -> Transitions:
    """In float32, as every data set is read."""
    none = torch.zeros(len(real.obs), dtype=torch.bool)
    return Transitions(
        real.obs.float(), real.act.float(), real.reward.float(), real.next_obs.float(),
        real.terminated, none, none.long(),
    )  # fmt: skip


@pytest.mark.situation("right")
@pytest.mark.parametrize("env_id", TASKS)
@examples(4)
@given(data=st.data())
def test_imagined_rewards_and_ends_are_the_environments(env_id: str, data: st.DataObject) -> None:
    kwargs, wrappers = data.draw(kwargs_of(env_id)), data.draw(WRAPPERS)
    with made(env_id, kwargs, wrappers) as (env, spec):
        task, space = get_task(spec), make_env(spec).action_space
        space.seed(0)
        real = step_through(env, 150, lambda _: space.sample())  # as agents act: in a bounded box
    assert len(set(task.observation_names)) == len(task.observation_names) == real.obs.shape[1]
    rows = as_data(real)
    visible = torch.ones_like(real.terminated)
    if env_id == "InvertedDoublePendulum-v5":  # see `inverted_double_pendulum_terminated`
        visible = (tip(real.next_obs)[1] - 1).abs() > 1e-4
    for next_obs in (real.next_obs, rows.next_observation):
        assert torch.equal(task.terminated(next_obs)[visible], real.terminated[visible])
    assert reward_disagreement(task, rows) is None
    if task.reward is None:
        return
    error = task.reward(real.obs, real.act, real.next_obs) - real.reward
    if task.reward_rmse == 0:  # but where velocities are clipped that it is computed from
        error = error[(real.next_obs.abs() < 10).all(-1)]
    scale = 1 + real.reward.abs().max().item()
    assert error.square().mean().sqrt() <= ERROR * task.reward_rmse + 1e-4 * scale


@pytest.mark.situation("right")
@pytest.mark.parametrize("env_id", TASKS)
@examples(3)
@given(data=st.data(), seed=st.integers(0, 2**31 - 1), before=st.integers(0, 5))
def test_the_simulator_is_the_environment(
    env_id: str, data: st.DataObject, seed: int, before: int
) -> None:
    kwargs, wrappers = data.draw(kwargs_of(env_id)), data.draw(WRAPPERS)
    wrappers = [one for one in wrappers if one[0] is not TimeLimit]  # nobody steps past its end
    rng = np.random.default_rng(seed)
    with made(env_id, kwargs, wrappers) as (env, _), made(env_id, kwargs, wrappers) as (twin, _):
        space = env.action_space
        assert isinstance(space, gymnasium.spaces.Box)
        low, high = (b.clip(-5, 5) for b in (space.low, space.high))
        actions = rng.uniform(low, high, (before + 6, *low.shape)).astype(np.float32)
        obs, _ = env.reset(seed=seed)
        twin.reset(seed=seed)
        for action in actions[:before]:
            obs = env.step(action)[0]
            twin.step(action)
        found = Simulator(env).trajectories(
            torch.from_numpy(obs).double()[None],
            torch.from_numpy(actions[before:])[None, None],
            torch.Generator(),
        )
        assert found.rewards is not None
        atol = 1e-6 if env_id == "Pendulum-v1" else 1e-9
        for t, action in enumerate(actions[before:]):
            following, reward, *_ = twin.step(action)
            np.testing.assert_allclose(found.observations[0, 0, 0, t + 1], following, atol=atol)
            np.testing.assert_allclose(found.rewards[0, 0, 0, t], float(reward), atol=1e-7)


@pytest.mark.situation("right")
@pytest.mark.parametrize("env_id", TASKS)
@examples(3)
@given(data=st.data(), seed=st.integers(0, 2**31 - 1))
def test_an_environment_made_again_steps_as_it_did(
    env_id: str, data: st.DataObject, seed: int
) -> None:
    kwargs, wrappers = data.draw(kwargs_of(env_id)), data.draw(WRAPPERS)
    rng = np.random.default_rng(seed)
    with made(env_id, kwargs, wrappers) as (env, spec):
        plain = EnvSpec.from_plain(spec.to_plain())
        assert plain == spec
        again = make_env(plain)
        space = again.action_space
        assert isinstance(space, gymnasium.spaces.Box)
        assert again.spec is not None
        assert env.spec is not None
        assert again.spec.max_episode_steps == env.spec.max_episode_steps
        np.testing.assert_array_equal(again.reset(seed=seed)[0], env.reset(seed=seed)[0])
        for _ in range(12):
            action = rng.uniform(space.low, space.high).astype(np.float32)
            ours, theirs = again.step(action.copy()), env.step(action.copy())
            np.testing.assert_array_equal(ours[0], theirs[0])
            assert ours[1:4] == theirs[1:4]
            if ours[2] or ours[3]:
                break
        again.close()
