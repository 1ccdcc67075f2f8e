"""Soft actor-critic online: random steps first, then updates; when it is lost, how it goes on."""

import math

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents.policy_file import load_policy_folder
from mbrl_bilevel.training.divergence import TrainingDiverged
from tests.agents.small_agents import HIGH, LOW, assert_continues, batches_of, sac, steps


def test_random_steps_come_first_and_teach_nothing(monkeypatch):
    """Uniform in the box: mean -0.25 +- 0.043, variance 0.1875 +- 0.017 of 100; 4 errors."""
    agent = sac(start_steps=100, updates_per_step=3)
    actor = agent.learner.networks.actor
    with torch.no_grad():  # an actor that always does the same
        for parameter in actor.parameters():
            parameter.zero_()
        actor.network.linear_layers()[-1].bias[0, 0] = torch.tensor([0.7, -25.0])
    seen = batches_of(agent, monkeypatch)
    steps(agent, 100)
    assert not seen
    action = agent.replay.in_order().action[:, 0]
    assert action.mean().item() == pytest.approx(-0.25, abs=4 * 0.043)
    assert action.var().item() == pytest.approx(0.1875, abs=4 * 0.017)
    assert (action >= LOW).all()
    assert (action <= HIGH).all()
    steps(agent, 1)
    assert len(seen) == 3
    own = -0.25 + 0.75 * math.tanh(0.7)
    assert agent.replay.in_order().action[-1, 0].item() == pytest.approx(own, abs=1e-5)
    steps(agent, 4)
    assert len(seen) == 15
    assert {len(batch.reward) for batch, *_ in seen} == {16}
    assert len(agent.replay) == agent.step == 105


def test_metrics_are_averages_since_they_were_last_asked_for(monkeypatch):
    agent = sac(start_steps=30)
    seen = batches_of(agent, monkeypatch)
    steps(agent, 33)
    found = agent.metrics()
    told = [metrics for *_, metrics in seen]
    for name in ("critic_loss", "q", "entropy", "temperature"):
        mean = np.mean([metrics[name].item() for metrics in told])
        assert found[f"policy/{name}"] == pytest.approx(mean, rel=1e-6)
    largest = max(metrics["largest_q"].item() for metrics in told)
    assert found["policy/largest_q"] == pytest.approx(largest)
    assert 1 <= found["real/length"] <= 20
    steps(agent, 1)
    assert agent.metrics()["policy/q"] == pytest.approx(seen[-1][-1]["q"].item())
    assert "real/return" not in agent.metrics()


@pytest.mark.parametrize(
    ("factor", "words"),
    [(1e6, "^the critic diverged by step 33: .* lower the"), (math.nan, "^100% of the updates")],
)
def test_a_critic_beyond_all_rewards_ends_the_training(factor, words):
    agent = sac(start_steps=30)
    steps(agent, 32)
    agent.metrics()
    with torch.no_grad():
        agent.learner.networks.critic.linear_layers()[-1].weight.mul_(factor)
    steps(agent, 1)
    with pytest.raises(TrainingDiverged, match=words):
        agent.metrics()


def test_a_state_that_is_not_finite_replaces_nothing(tmp_path):
    agent = sac(start_steps=30)
    steps(agent, 32)
    agent.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        agent.learner.networks.actor.network.linear_layers()[0].bias[0, 0, 0] = torch.nan
    with pytest.raises(TrainingDiverged, match="a state at step 32 is not finite"):
        agent.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    """Amid an episode and between two logs."""
    again = assert_continues(sac, tmp_path, 105, 6)
    saved = load_policy_folder(tmp_path)
    assert saved.metadata["algorithm"] == "sac"
    assert not np.array_equal(saved.weights["w1"], again.policy().weights["w1"])


def test_a_lower_rate_is_kept_in_its_checkpoint(tmp_path):
    agent, again = sac(), sac()
    assert not agent.learning_rate_scaled
    agent.scale_learning_rate(0.1)
    agent.save(tmp_path)
    again.load(tmp_path)
    assert again.learning_rate_scaled


def test_without_a_checkpoint_it_starts_at_the_beginning(tmp_path):
    agent = sac()
    agent.load(tmp_path)
    assert agent.step == 0
