"""A step of a learned model: which member moves a row, gradients, rewards, terminations."""

import math

import pytest
import torch

from mbrl_bilevel.agents.model_step import model_step
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from tests.agents.linear_gaussian import expected_step, linear_model, quadratic, task


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(count, seed=1):
    values = torch.randn(count, 3, generator=seeded(seed), dtype=torch.float64)
    return values[:, :2], values[:, 2:]


def step(model, obs, act, generator=None, its_task=None):
    return model_step(model, model.network, its_task or task(), obs, act, generator or seeded())


def who(obs, act, after):
    """The member that has moved each row of a model without noise."""
    distance = [(expected_step(None, e, obs, act) - after).abs().amax(-1) for e in range(3)]
    smallest, member = torch.stack(distance).min(0)
    assert smallest.max() < 1e-9
    return member


@pytest.mark.parametrize("count", [1, 2, 3, 10, 300])
def test_every_row_is_moved_by_one_member_and_members_have_equal_shares(count):
    model, (obs, act) = linear_model(), rows(count)
    often = torch.bincount(who(obs, act, step(model, obs, act).observation), minlength=3)
    assert often.sum() == count
    assert often.max() <= -(-count // 3)


def test_members_are_drawn_anew_at_every_step():
    """TS1: any member, uniformly, whatever the step before has drawn, and for each row apart."""
    model, (obs, act), generator = linear_model(), rows(30), seeded(2)
    count = 600
    drawn = torch.stack(
        [who(obs, act, step(model, obs, act, generator).observation) for _ in range(2 * count)]
    )
    # 36,000 draws of a third each, one row at a time 1,200; five standard errors, for all 90.
    per_row = torch.stack([(drawn == e).double().mean(0) for e in range(3)])
    assert (per_row - 1 / 3).abs().max() < 5 * math.sqrt(2 / 9 / (2 * count))
    cells = torch.bincount((3 * drawn[0::2] + drawn[1::2]).flatten(), minlength=9) / (30 * count)
    # Draws of rows are a little dependent (equal shares), which only lowers the variance.
    assert (cells - 1 / 9).abs().max() < 4 * math.sqrt(8 / 81 / (30 * count))
    same = (drawn[:, 0] == drawn[:, 1]).double().mean().item()  # of 29 others 9 have the same
    assert same == pytest.approx(9 / 29, abs=4 * math.sqrt(0.22 / (2 * count)))


def test_noise_is_that_of_the_members_gaussian():
    model, count = linear_model(std=0.3, members=1), 20_000
    obs, act = (part.expand(count, -1) for part in rows(1))
    found = step(model, obs, act).observation
    # 20,000 samples: standard errors of sigma / 141 and sigma / 200; four of them.
    mean = expected_step(model, 0, obs[0], act[0])
    assert (found.mean(0) - mean).abs().max() < 4 * 0.3 / 141
    assert (found.std(0) - 0.3).abs().max() < 4 * 0.3 / 200
    assert found.T.corrcoef()[0, 1].abs() < 4 / 141


@pytest.mark.parametrize("learn_reward", [False, True])
@pytest.mark.parametrize("noise", ["input", "constant"])
def test_gradients_flow_through_mean_noise_and_reward(learn_reward, noise):
    """Against finite differences, for the same random numbers."""
    model = DynamicsModel(
        2,
        1,
        ModelSettings(members=3, hidden=(8,), noise=noise, layer_norm=True),
        learn_reward=learn_reward,
        env_id="Line-v0",
        generator=seeded(),
    ).double()
    model.input_standardizer.std.copy_(torch.tensor([2.0, 0.5, 3.0]))
    model.target_standardizer.std.fill_(0.7)
    its_task = task(None if learn_reward else quadratic)

    def outcome(obs, act):
        found = step(model, obs, act, its_task=its_task)
        return found.observation, found.reward

    obs, act = (part.clone().requires_grad_() for part in rows(5))
    assert torch.autograd.gradcheck(outcome, (obs, act))


def test_the_reward_is_the_tasks_where_it_has_one_and_else_the_models():
    model, (obs, act) = linear_model(learn_reward=True), rows(12)
    learned, known = (step(model, obs, act, its_task=task(r)) for r in (None, quadratic))
    assert torch.equal(learned.observation, known.observation)
    torch.testing.assert_close(known.reward, quadratic(obs, act, known.observation))
    member = who(obs, act, learned.observation)
    x = torch.cat([obs, act], -1)
    weight = model.network.network.linear_layers()[-1].weight[member, :, 2]
    torch.testing.assert_close(learned.reward, (x * weight).sum(-1))


def test_terminations_are_the_tasks_and_have_no_gradient():
    model, (obs, act) = linear_model(), rows(50)
    found = step(
        model,
        obs.requires_grad_(),
        act,
        its_task=task(terminated=lambda after: after[..., 0] > 0.2),
    )
    assert not found.alive.requires_grad
    assert found.observation.requires_grad
    assert torch.equal(found.alive, (found.observation[:, 0] <= 0.2).double())
    assert 0 < found.alive.sum() < 50


def test_observations_may_leave_the_range_of_the_data():
    """A bound would cut the gradient."""
    model, (obs, act) = linear_model(), rows(6)
    model.lowest.fill_(-1e-3)
    model.highest.fill_(1e-3)
    obs = obs.clone().requires_grad_()
    found = step(model, obs, act).observation
    assert found.abs().min() > 1e-3
    (gradient,) = torch.autograd.grad(found.sum(), obs)
    assert (gradient != 0).all()
