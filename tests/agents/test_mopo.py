"""MOPO: imitation first, then rollouts; what stays near the data, and how it goes on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.policy_file import load_policy_folder
from tests.agents.point import TASK
from tests.agents.small_agents import (
    IMAGINED,
    assert_continues,
    batches_of,
    mopo,
    paid,
    random_data,
    steps,
)


def test_a_step_is_a_number_of_updates_on_the_data_set_and_on_rollouts(monkeypatch):
    task = replace(TASK, reward=paid)
    agent = mopo(real_ratio=0.5, updates_per_step=2, task=task)
    before = agent.replay.rows.clone()
    seen = batches_of(agent, monkeypatch)
    steps(agent, 8)
    assert len(seen) == 16
    assert torch.equal(agent.replay.rows, before)
    data = random_data(60)
    for batch, *_ in seen:
        real = batch.reward != IMAGINED
        assert int(real.sum()) == 8
        same = (batch.observation[real].unsqueeze(1) == data.observation).all(-1)
        assert same.any(1).all()
    assert agent.rollouts.replay.added == 2 * 10


def test_imitation_comes_first_and_then_the_real_rows_are_what_to_stay_near(monkeypatch):
    agent = mopo(real_ratio=0.5, imitate_steps=3)
    rounds = []
    seen = batches_of(agent, monkeypatch)
    for _ in range(5):
        steps(agent, 1)
        rounds.append(agent.rollouts.replay.added)
    assert [how.get("imitate", False) for _, how, _ in seen] == [True] * 3 + [False] * 2
    assert rounds == [0, 0, 0, 10, 10]
    for batch, how, _ in seen[3:]:
        assert torch.equal(how["behaviour"].observation, batch.observation[:8])


def test_without_real_rows_nothing_is_to_stay_near(monkeypatch):
    agent = mopo(real_ratio=0.0)
    seen = batches_of(agent, monkeypatch)
    steps(agent, 2)
    assert [how for _, how, _ in seen] == [{"behaviour": None}] * 2


@pytest.mark.parametrize("imitate_steps", [0, 1])
def test_a_termination_costs_and_every_reward_is_scaled(monkeypatch, imitate_steps):
    """Real and imagined: the same first batch with both and without."""
    batches = []
    for settings in ({}, {"termination_cost": 2.5, "reward_scale": 0.25}):
        data = random_data(60, terminated=True)
        agent = mopo(real_ratio=0.5, imitate_steps=imitate_steps, data=data, **settings)
        seen = batches_of(agent, monkeypatch)
        steps(agent, 1)
        batches.append(seen[0][0])
    plain, costly = batches
    assert set(plain.terminated.tolist()) == {0.0, 1.0}
    torch.testing.assert_close(costly.reward, 0.25 * (plain.reward - 2.5 * plain.terminated))


def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    again = assert_continues(lambda: mopo(real_ratio=0.25), tmp_path, 5, 6)
    saved = load_policy_folder(tmp_path)
    assert saved.metadata["algorithm"] == "mopo"
    assert not np.array_equal(saved.weights["w1"], again.policy().weights["w1"])


def test_a_bellman_penalty_is_paid_by_imagined_rows_at_every_update(monkeypatch, tmp_path):
    def make():
        return mopo(real_ratio=0.5, penalty="bellman", penalty_weight=3.0, task=task)

    task = replace(TASK, reward=paid)  # IMAGINED for every step in the model
    agent = make()
    seen = batches_of(agent, monkeypatch)
    steps(agent, 6)
    penalties = torch.stack([IMAGINED - batch.reward[8:] for batch, *_ in seen])
    assert bool((penalties > 0).all())
    assert agent.metrics()["rollout/bellman_penalty"] == pytest.approx(penalties.mean().item())
    assert_continues(make, tmp_path, 5, 6)
