"""Rollouts in the learned model: they follow the model, the task, the policy and the replay."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.agents.model_rollouts import ModelRollouts
from mbrl_bilevel.agents.policy_learner import PolicyLearner
from mbrl_bilevel.agents.setting_groups import (
    PolicySettings,
    RolloutLength,
    RolloutSettings,
    StartStateSettings,
)
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.envs.tasks import Task
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.models.uncertainty import sample_with_uncertainty

CHANGE = torch.tensor([[0.5, 0.0], [0.25, -0.5], [0.0, 1.0]])  # of (observation, action)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def reward(obs, act, next_obs):
    return obs[..., 0] + 2 * act[..., 0] - 3 * next_obs[..., 1]


TASK = Task("Line-v0", reward, lambda after: after[..., 0] > 1.0, ("x", "y"))


def linear_model(std=0.0):
    """Whose change of observation is linear, by a network without hidden layers, and known."""
    bounds = (-30.0, 20.0)  # far off: they are soft
    model = DynamicsModel(
        2, 1, ModelSettings(members=2, hidden=()), env_id="Line-v0", log_std_bounds=bounds
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        layer = model.network.network.linear_layers()[-1]
        layer.weight[:, :, :2] = CHANGE
        layer.bias[:, :, 2:] = np.log(std) if std else -100.0
    return model


class Linear(PolicyLearner):
    """A policy that acts by `act`."""

    def sample(self, obs):
        return act(obs)


SPACES = Spaces(Box(-np.inf, np.inf, (2,)), Box(-1.0, 1.0, (1,)))


def rollouts(model=None, *, policy=None, spaces=SPACES, starts=None, **settings):
    small = PolicySettings(policy_hidden=4, **(policy or {}))
    chosen = {"rollouts": 6, "rollout_length": RolloutLength(4, 4), **settings}
    return ModelRollouts(
        RolloutSettings(**chosen),
        model or linear_model(),
        TASK,
        Linear(small, spaces, seeded()),
        spaces,
        seeded(),
        starts=starts or StartStateSettings(recent_starts=0.0),
    )


def act(obs):
    return (0.3 * obs[:, :1]).clamp(-1, 1)


STARTS = torch.randn(5, 2, generator=seeded(7)).clamp(max=0.9)


@pytest.mark.situation("warned")
def test_bounds_that_real_observations_leave_are_given_up_with_one_warning():
    space = Box(np.array([-9, -0.1], np.float32), np.array([9, 0.1], np.float32))
    bounded = Spaces(space, SPACES.action)
    tight, again = (rollouts(spaces=bounded) for _ in range(2))
    wide = rollouts()
    with pytest.warns(UserWarning, match="Line-v0 .y from") as warned:
        found = [tight.imagine(STARTS, step)[0] for step in (0, 1)]
    assert len(warned) == 1
    expected = [wide.imagine(STARTS, step)[0] for step in (0, 1)]
    for batch, other in zip(found, expected, strict=True):
        assert all(map(torch.equal, batch, other))
    again.load_state(tight.state())  # as on --resume: known, and not said again
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.imagine(STARTS[:1] * 0, 0)
    assert again.outside.tolist() == [False, True]


def test_what_is_imagined_follows_the_model_and_the_task():
    batch, figures = rollouts().imagine(STARTS, step=0)
    assert len(batch.reward) == 4 * 6
    torch.testing.assert_close(batch.action, act(batch.observation))
    change = torch.cat([batch.observation, batch.action], 1) @ CHANGE
    torch.testing.assert_close(batch.next_observation, batch.observation + change)
    torch.testing.assert_close(
        batch.reward, reward(batch.observation, batch.action, batch.next_observation)
    )
    assert torch.equal(batch.terminated, (batch.next_observation[:, 0] > 1.0).float())
    assert 0 < batch.terminated.sum() < len(batch.reward)
    assert figures["rollout_length"] == 4
    torch.testing.assert_close(figures["imagined_reward"], batch.reward.mean())
    torch.testing.assert_close(figures["imagined_terminations"], batch.terminated.mean())
    assert figures["penalty"] == 0


def test_rollouts_begin_at_real_states_and_anew_after_a_termination():
    batch, _ = rollouts().imagine(STARTS, step=0)
    obs, after = (c.reshape(4, 6, 2) for c in (batch.observation, batch.next_observation))
    ends = batch.terminated.reshape(4, 6).bool()

    def is_start(rows):
        return (rows.unsqueeze(-2) == STARTS).all(-1).any(-1)

    assert is_start(obs[0]).all()
    assert torch.equal(obs[1:][~ends[:-1]], after[:-1][~ends[:-1]])
    assert ends[:-1].any()
    assert is_start(obs[1:][ends[:-1]]).all()


def test_rollouts_are_those_of_the_generator_and_as_long_as_the_step_says():
    length = RolloutLength(1, 3, 10, 20)
    for step, expected in ((10, 1), (15, 2), (20, 3)):
        one, two = (rollouts(rollout_length=length).imagine(STARTS, step)[0] for _ in range(2))
        assert len(one.reward) == 6 * expected
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    twice = rollouts(rollout_length=length)
    first, second = (twice.imagine(STARTS, 20)[0] for _ in range(2))
    assert not torch.equal(first.observation, second.observation)


def test_the_penalty_is_taken_off_the_reward():
    model = linear_model(std=0.2)
    batch, figures = rollouts(model, penalty="aleatoric", penalty_weight=1.5).imagine(STARTS, 0)
    rows = batch.observation, batch.action
    expected = 1.5 * sample_with_uncertainty(model, *rows, seeded(), "aleatoric")[1]
    torch.testing.assert_close(expected, torch.full_like(expected, 1.5 * 0.2 * 2**0.5))
    known = reward(batch.observation, batch.action, batch.next_observation)
    torch.testing.assert_close(batch.reward, known - expected)
    torch.testing.assert_close(figures["penalty"], expected.mean())


def test_no_penalty_and_a_penalty_without_weight_are_the_same():
    batches = [
        rollouts(linear_model(std=0.2), **settings).imagine(STARTS, 0)[0]
        for settings in (
            {},
            {"penalty": "none", "penalty_weight": 5.0},
            {"penalty": "disagreement", "penalty_weight": 0.0},
        )
    ]
    for batch in batches[1:]:
        assert all(torch.equal(a, b) for a, b in zip(batches[0], batch, strict=True))


def line(count):
    """Real states in the order of time: state i is (i, i)."""
    place, nothing = torch.arange(float(count)), torch.zeros(count)
    both = place.unsqueeze(-1).expand(-1, 2)
    return Batch(both, nothing.unsqueeze(-1), nothing, both, nothing)


@pytest.mark.parametrize("share", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("added", [40, 400, 530])
def test_a_share_of_rollouts_begins_in_recent_states(share, added):
    """Before the ring is full, when it is, and wrapped around; 4 errors of 2,000 draws allowed."""
    real = Replay(400, 2, 1)
    real.add(line(added))
    starts = StartStateSettings(recent_starts=share, recent_states=20)
    drawn = rollouts(starts=starts).start_states(real, 2_000)[:, 0]
    held = min(added, 400)
    assert drawn.min() >= added - (held if share < 1 else 20)
    assert drawn.max() == added - 1
    expected = share + (1 - share) * 20 / held
    error = (expected * (1 - expected) / 2_000) ** 0.5
    assert (drawn >= added - 20).float().mean().item() == pytest.approx(expected, abs=4 * error)


def test_a_round_is_kept_as_the_policy_learns_from_it():
    real = Replay(10, 2, 1)
    real.add(line(3)._replace(observation=STARTS[:3], next_observation=STARTS[:3]))
    plain, scaled = rollouts(), rollouts(policy={"reward_scale": 0.5, "termination_cost": 3.0})
    for one in (plain, scaled):
        one.branch(real, 0)
        assert one.replay.added == 4 * 6
    ours, theirs = scaled.replay.in_order(), plain.replay.in_order()
    assert 0 < ours.terminated.sum() < len(ours.reward)
    torch.testing.assert_close(ours.reward, 0.5 * (theirs.reward - 3.0 * theirs.terminated))
    assert scaled.largest_reward == plain.largest_reward == theirs.reward.abs().max()


def test_rollouts_that_are_cut_leave_their_later_steps_out():
    """Members apart by .2 x."""
    model = linear_model(std=0.1)
    with torch.no_grad():
        model.network.network.linear_layers()[-1].weight[1, 0, 0] += 0.2
    settings = {"rollouts": 200, "rollout_cut": "disagreement", "cut_quantile": 0.5}
    cut = rollouts(model, **settings)
    batch, metrics = cut.imagine(STARTS, 0)
    counted = len(batch.reward)
    assert metrics["counted_steps"] == counted / 800
    # Of five start states three are at or below the median: 60 % of the first steps, at most as
    # many of the others.
    assert 100 <= counted <= 480
    apart = rollouts(model, **settings)._cut()
    unsure = apart.counts(STARTS[:1].expand(200, -1), act(STARTS[:1]).expand(200, -1))
    assert bool(unsure.all())  # alike: none is above the median
    real = Replay(10, 2, 1)
    real.add(line(5)._replace(observation=STARTS, next_observation=STARTS))
    for step in range(6):
        cut.branch(real, step)
    assert len(cut.round_sizes) == 4  # of imagined_rounds
    assert max(cut.round_sizes) <= 480
    again = rollouts(model, **settings)
    again.load_state(cut.state())
    assert again.round_sizes == cut.round_sizes


def test_a_model_of_another_task_imagines_nothing():
    other = rollouts()
    other.task = replace(TASK, env_id="Circle-v0")
    with pytest.raises(InputError, match="trained for Line-v0, not for Circle-v0"):
        other.imagine(STARTS, 0)
