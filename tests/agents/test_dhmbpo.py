"""DHMBPO: when it fits and updates, what it acts by, and how it goes on."""

import numpy as np
import pytest
import torch

from mbrl_bilevel.agents import refit
from mbrl_bilevel.agents.policy_file import load_policy_folder
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.training.divergence import TrainingDiverged
from tests.agents.small_agents import HIGH, LOW, assert_continues, dhmbpo, no_fit, steps


def updates_of(agent, monkeypatch):
    """The step of each update, and whether it was of the critics alone."""
    seen, update = [], agent.updates.update

    def spy(starts, **how):
        seen.append((agent.step, how.get("critics_only", False)))
        update(starts, **how)

    monkeypatch.setattr(agent.updates, "update", spy)
    return seen


def test_fits_and_updates_keep_their_times(monkeypatch):
    fitted = []
    agent = dhmbpo(
        fit=lambda data: fitted.append(len(data)) or {},
        start_steps=20,
        updates_per_step=2,
        first_updates_per_step=3,
    )
    seen = updates_of(agent, monkeypatch)
    steps(agent, 36)
    assert fitted == [20, 27, 34]
    expected = []
    for step in range(20, 36):
        if step in (20, 27, 34):
            expected += 4 * [(step, True)]
        expected += (3 if step < 27 else 2) * [(step, False)]
    assert seen == expected


def test_the_first_fit_is_longer(monkeypatch):
    taken, fit = [], refit.fit

    def spy(*arguments, **how):
        chosen = how["settings"]
        taken.append((chosen.steps, chosen.batch_size, chosen.resampling))
        return fit(*arguments, **how)

    monkeypatch.setattr(refit, "fit", spy)
    steps(dhmbpo(model_batch_size=16), 116)
    assert taken == [(8, 16, "bootstrap"), (5, 16, "bootstrap"), (5, 16, "bootstrap")]


def test_a_fit_restarts_the_updates_with_the_new_model_and_the_replays_statistics():
    agent = dhmbpo()
    steps(agent, 108)
    old = agent.updates.network(torch.ones(1, 3)).mean
    steps(agent, 1)  # the second fit comes before the step
    updates, obs = agent.updates, agent.replay.in_order().observation[:108]
    torch.testing.assert_close(updates.standardizer.mean, obs.mean(0))
    torch.testing.assert_close(updates.standardizer.std, obs.std(0, correction=0))
    assert updates.updates == 4 + 1
    new = agent.model.network.select(agent.model.elites)(torch.ones(1, 3)).mean
    assert torch.equal(updates.network(torch.ones(1, 3)).mean, new)
    assert not torch.equal(old, new)


def test_it_acts_at_random_first_and_by_its_policy_from_there_on():
    agent = dhmbpo(start_steps=300, fit=no_fit)
    with torch.no_grad():  # an actor that is sure of the highest action
        head = agent.updates.actor.network.linear_layers()[-1]
        head.weight.zero_()
        head.bias.copy_(torch.tensor([9.0, -9.0]))
    agent.updates.update = lambda starts, **how: None
    steps(agent, 310)
    actions = agent.replay.in_order().action
    share = (actions[:300] - LOW) / (HIGH - LOW)
    assert ((share >= 0) & (share <= 1)).all()
    # 300 uniform numbers: the empirical law is within 1.95 / sqrt(300) of it in 999 of 1,000 cases.
    law = share.flatten().sort().values - torch.arange(0.5, 300) / 300
    assert law.abs().max() < 1.95 / 300**0.5
    torch.testing.assert_close(actions[300:], HIGH.expand(10, 1), rtol=0, atol=1e-4)


def test_the_policy_that_is_evaluated_acts_by_the_averaged_actors_mean_on_raw_observations():
    agent = dhmbpo(averaging_rate=0.3)
    steps(agent, 110)
    obs = agent.replay.in_order().observation
    updates, averaged = agent.updates, agent.average.actor
    with torch.no_grad():
        mean, _ = averaged(updates.standardizer.standardize(obs))
        expected = averaged.scaled(mean.tanh())
        assert not torch.equal(mean, updates.actor(updates.standardizer.standardize(obs))[0])
    np.testing.assert_allclose(agent.policy()(obs.numpy()), expected, atol=1e-5)
    assert agent.policy().metadata["algorithm"] == "dhmbpo"


def test_metrics_name_the_model_both_rollouts_the_policy_and_real_episodes():
    agent = dhmbpo()
    steps(agent, 110)
    found = agent.metrics()
    expected = {"model/held_out_nll", "model/fresh_rmse", "policy/q", "policy/alive_detached"}
    expected |= {"policy/entropy", "policy/skipped_steps", "real/return"}
    expected |= {f"policy/action_gradient_{t}" for t in range(3)}
    assert expected <= found.keys()
    assert found["policy/skipped_steps"] == 0
    assert "policy/q" not in agent.metrics()


def test_a_policy_that_is_not_finite_is_reported():
    agent = dhmbpo()
    steps(agent, 104)
    agent.metrics()
    with torch.no_grad():
        agent.updates.actor.network.linear_layers()[0].bias[0, 0, 0] = torch.nan
    agent.updates.update(agent._starts)
    with pytest.raises(TrainingDiverged, match="100% of the updates before step 104"):
        agent.metrics()


@pytest.mark.parametrize("first", [40, 104])
def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, first):
    """Amid an episode, before the first fit or between two; fits and updates follow."""
    again = assert_continues(dhmbpo, tmp_path, first, 116 - first)
    saved = load_policy_folder(tmp_path)
    assert saved.metadata["algorithm"] == "dhmbpo"
    assert not np.array_equal(saved.weights["w1"], again.policy().weights["w1"])
    assert DynamicsModel.load(tmp_path).env_id == "Point-v0"


def test_a_checkpoint_holds_the_optimiser_of_fits_that_held_out_scores_end(tmp_path):
    """At step 112 two fits lie behind, which ended after different numbers of steps."""

    def make():
        return dhmbpo(
            model_stop="held_out", model_patience=2, model_evaluate_every=2, model_steps=6,
            model_optimizer="kept",
        )  # fmt: skip

    again = assert_continues(make, tmp_path, 112, 8)
    assert again.fits.state()["moments/0/step"] > 8


def test_a_lower_learning_rate_is_part_of_its_checkpoint(tmp_path):
    first, second = dhmbpo(), dhmbpo()
    steps(first, 103)
    assert not first.learning_rate_scaled
    first.scale_learning_rate(0.1)
    first.save(tmp_path)
    second.load(tmp_path)
    assert second.learning_rate_scaled
    steps(second, 10)  # over a fit, which restarts Adam
    for optimizer in second.updates.optimizers().values():
        assert optimizer.param_groups[0]["lr"] == pytest.approx(3e-5)


@pytest.mark.parametrize("objective", ["mse", "beta_nll", "pg", "two_means"])
def test_the_model_may_be_fitted_by_any_objective(objective):
    options = {"layer_norm": True, "dropout": 0.1}
    kind = OBJECTIVES.settings(objective).kind
    agent = dhmbpo(objective=objective, model_options=options, kind=kind)
    before = [p.detach().clone() for p in agent.model.network.parameters()]
    steps(agent, 110)
    found = agent.metrics()
    assert all(np.isfinite(v) for v in found.values())
    assert found["policy/skipped_steps"] == 0
    assert not all(map(torch.equal, before, agent.model.network.parameters()))
