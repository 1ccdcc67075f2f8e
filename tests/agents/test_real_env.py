"""Real steps one at a time, and the way back into the midst of an episode."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.agents.real_env import RealEnv
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.errors import InputError


def actions(env, count, seed=0):
    space = env.env.action_space
    unit = np.random.default_rng(seed).random((count, *space.shape))
    return (space.low + unit * (space.high - space.low)).astype(np.float64)


def copied(state):
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("env_id", "steps"), [("Hopper-v5", 7), ("Hopper-v5", 60), ("InvertedPendulum-v5", 33)]
)
def test_its_state_leads_back_to_the_same_observation(env_id, steps):
    """Bit for bit, mid-episode and after episodes have ended, and so do the steps after."""
    real = RealEnv(make_env(env_id), seed=3)
    for action in actions(real, steps):
        real.step(action)
    assert real.actions  # mid-episode
    again = RealEnv(make_env(env_id), seed=3)
    again.step(actions(again, 1, seed=9)[0])  # it was somewhere else
    again.load_state(copied(real.state()))
    assert np.array_equal(again.observation, real.observation)
    assert again.finished == real.finished
    assert (again.episode, again.total_reward) == (real.episode, real.total_reward)
    for action in actions(real, 40, seed=1):
        one, other = real.step(action), again.step(action)
        for ours, theirs in zip(one, other, strict=True):
            assert np.array_equal(ours, theirs)
    assert again.finished == real.finished
    assert len(real.finished) >= 1


class FarAway(gymnasium.ObservationWrapper):
    """Observations behind an offset, as positions on a map or times of day are."""

    def __init__(self, env, offset):
        super().__init__(env)
        self.offset = offset
        self.observation_space = Box(-np.inf, np.inf, env.observation_space.shape, np.float64)

    def observation(self, observation):
        return observation.astype(np.float64) + self.offset


def walk_far_away(offset, steps=120):
    real = RealEnv(FarAway(make_env("InvertedPendulum-v5"), offset), seed=0)
    for action in actions(real, steps):
        real.step(action)


@pytest.mark.situation("refused")
def test_an_environment_whose_offset_leaves_nothing_in_float32_is_refused():
    with pytest.raises(InputError, match=r"environment InvertedPendulum-v5 has observations\[0\]"):
        walk_far_away(1e8)


@pytest.mark.situation("warned")
def test_an_environment_whose_offset_costs_precision_is_warned_of():
    with pytest.warns(UserWarning, match="environment InvertedPendulum-v5: float32 rounds changes"):
        walk_far_away(1e5)
    walk_far_away(0.0)


def test_the_state_between_two_episodes():
    real = RealEnv(make_env("InvertedPendulum-v5"), seed=0)
    assert real.begins
    while not real.finished:
        real.step(np.ones(1))
    assert real.begins
    again = RealEnv(make_env("InvertedPendulum-v5"), seed=0)
    again.load_state(copied(real.state()))
    assert again.begins
    assert again.finished == real.finished
    assert np.array_equal(again.observation, real.observation)


def test_episodes_and_seeds_differ():
    real, other = (RealEnv(make_env("InvertedPendulum-v5"), seed=seed) for seed in (0, 1))
    first = real.observation
    assert not np.array_equal(first, other.observation)
    while not real.finished:
        real.step(np.ones(1))
    assert not np.array_equal(first, real.observation)


class Counter(gymnasium.Env):
    """Counts its steps in an array of its own, which it writes into again and again."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float64)

    def __init__(self, ends, kind):
        self.ends, self.kind, self.count = ends, kind, np.zeros(1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count[:] = 0
        return self.count, {}

    def step(self, action):
        self.count += 1
        ended = bool(self.count[0] == self.ends)
        terminated, truncated = (
            ended and self.kind in ("terminated", "both"),
            ended and self.kind in ("truncated", "both"),
        )
        return self.count, 2.0 * float(action[0]), terminated, truncated, {}


@pytest.mark.situation("right")
@pytest.mark.parametrize("kind", ["terminated", "truncated", "both"])
def test_transitions_flags_and_returns(kind):
    """Truncation ends an episode, but only termination says that there is no future."""
    real = RealEnv(Counter(3, kind), seed=0)
    steps = [real.step(np.array([0.25])) for _ in range(7)]
    assert [s.observation[0] for s in steps] == [0, 1, 2, 0, 1, 2, 0]
    assert [s.next_observation[0] for s in steps] == [1, 2, 3, 1, 2, 3, 1]
    ends = [False, False, kind != "truncated"]
    assert [s.terminated for s in steps] == [*ends, *ends, False]
    assert real.finished == [(1.5, 3), (1.5, 3)]
    assert real.episode == 2


@pytest.mark.situation("right")
def test_max_steps_truncates_where_the_environment_does_not_end_before():
    real = RealEnv(Counter(3, "terminated"), seed=0, max_steps=2)
    steps = [real.step(np.array([0.25])) for _ in range(5)]
    assert [s.next_observation[0] for s in steps] == [1, 2, 1, 2, 1]
    assert not any(s.terminated for s in steps)
    assert real.finished == [(1.0, 2), (1.0, 2)]


def test_a_step_as_a_batch_of_one():
    real = RealEnv(Counter(1, "terminated"), seed=0)
    batch = real.step(np.array([0.25])).batch()
    expected = ([[0.0]], [[0.25]], [0.5], [[1.0]], [1.0])
    for column, values in zip(batch, expected, strict=True):
        assert torch.equal(column, torch.tensor(values, dtype=torch.float32))
