"""A policy in training: its actions, the rewards it learns from, and when it has diverged."""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from mbrl_bilevel.agents.policy_learner import PolicyLearner
from mbrl_bilevel.agents.setting_groups import PolicySettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.replay import Batch, Replay
from mbrl_bilevel.training.divergence import TrainingDiverged

LOW, HIGH = np.array([-1.0, 0.5]), np.array([3.0, 0.75])
SPACES = Spaces(Box(-np.inf, np.inf, (3,)), Box(LOW, HIGH, dtype=np.float64))


def learner(seed=0, **settings):
    small = PolicySettings(policy_hidden=8, **settings)
    return PolicyLearner(small, SPACES, torch.Generator().manual_seed(seed))


def transitions(count=32, reward=1.0, terminated=0.0):
    generator = torch.Generator().manual_seed(1)
    obs, after = torch.randn(2, count, 3, generator=generator)
    low, high = (torch.tensor(bound, dtype=torch.float32) for bound in (LOW, HIGH))
    action = low + (high - low) * torch.rand(count, 2, generator=generator)
    one = torch.ones(count)
    return Batch(obs, action, reward * one, after, terminated * one)


def replay(**columns):
    held = Replay(32, 3, 2)
    held.add(transitions(**columns))
    return held


def test_random_actions_are_uniform_in_the_box_and_others_the_actors():
    """Mean +- 4 errors of 1,000 uniform draws."""
    one = learner()
    actions = np.stack([one.random_action() for _ in range(1000)])
    assert (actions >= LOW).all()
    assert (actions <= HIGH).all()
    error = 4 * (HIGH - LOW) / math.sqrt(12 * 1000)
    assert (np.abs(actions.mean(0) - (LOW + HIGH) / 2) < error).all()
    obs = np.array([0.3, -1.0, 2.0])
    ours, theirs = learner(seed=3), learner(seed=3)
    action = ours.act(obs)
    row = torch.tensor(obs, dtype=torch.float32).unsqueeze(0)
    expected, _ = theirs.networks.actor.sample(row, theirs.generator)
    assert np.array_equal(action, expected[0].detach().numpy())
    assert action.dtype == np.float32


def test_shaped_rewards():
    batch = transitions(reward=2.0, terminated=1.0)._replace(reward=torch.arange(32.0))
    found = learner(termination_cost=3.0, reward_scale=0.5).shaped(batch)
    torch.testing.assert_close(found.reward, 0.5 * (torch.arange(32.0) - 3.0))
    assert torch.equal(found.terminated, batch.terminated)
    assert torch.equal(learner().shaped(batch).reward, batch.reward)


def test_it_diverges_beyond_ten_times_what_rewards_can_add_up_to():
    """(0.5 |r| + alpha 2) / (1 - 0.9) + 0.5 * 4, with |r| = 3 of real and 7 of imagined steps."""
    settings = {"discount": 0.9, "reward_scale": 0.5, "termination_cost": 4.0, "temperature": 0.2}
    one, real = learner(**settings), replay(reward=-3.0)
    for reward, imagined in ((3.0, None), (7.0, torch.tensor(7.0))):
        possible = (0.5 * reward + 0.1 * 2) / (1 - 0.9) + 0.5 * 4
        for q, lost in ((9.9 * possible, False), (10.1 * possible, True)):
            told = {"largest_q": q, "temperature": 0.1, "skipped_steps": 0.0}
            one.sums.add({name: torch.tensor(value) for name, value in told.items()})
            if lost:
                with pytest.raises(TrainingDiverged, match=r"^the critic diverged by step 5: val"):
                    one.metrics(5, real, imagined)
            else:
                assert one.metrics(5, real, imagined)["policy/largest_q"] == pytest.approx(q)


@pytest.mark.parametrize(("skipped", "lost"), [(1, False), (2, True)])
def test_a_tenth_of_the_updates_may_not_be_skipped(skipped, lost):
    one, batch = learner(), transitions()
    for i in range(12):
        spoilt = batch._replace(reward=batch.reward * (math.nan if i < skipped else 1.0))
        one.update(spoilt)
    if lost:
        with pytest.raises(TrainingDiverged, match=r"^17% of the updates before step 9 were not"):
            one.metrics(9, replay())
    else:
        assert one.metrics(9, replay())["policy/skipped_steps"] == pytest.approx(1 / 12)


def test_nothing_is_said_of_no_updates():
    assert learner().metrics(0, Replay(4, 3, 2)) == {}


def test_its_state_and_its_rate_go_on():
    first, second = learner(averaging_rate=0.5), learner(seed=1, averaging_rate=0.5)
    first.update(transitions())
    first.scale_learning_rate(0.1)
    second.load_state({k: v.clone() for k, v in first.state().items()})
    second.generator.set_state(first.generator.get_state())
    assert second.learning_rate_scaled
    for one in (first, second):
        one.update(transitions(reward=2.0))
    assert first.metrics(2, replay()) == second.metrics(2, replay())
    weights, others = first.weights(), second.weights()
    assert all(np.array_equal(weights[name], others[name]) for name in weights)
    assert not np.array_equal(weights["w1"], first.networks.actor.weights()["w1"])  # the average
