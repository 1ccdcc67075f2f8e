"""Outer steps: they ask any inner problem for what they need, and for nothing else."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from mbrl_bilevel.bilevel.problem import BilevelProblem
from mbrl_bilevel.bilevel.soba import Soba
from mbrl_bilevel.bilevel.unrolled import Unrolled
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.models.two_means import TwoMeanEnsemble
from mbrl_bilevel.objectives.named_outer_steps import outer_step
from mbrl_bilevel.objectives.outer_data import OuterBatches, OuterData
from mbrl_bilevel.objectives.outer_steps import ClosedForm, HypergradientStep, SobaStep
from mbrl_bilevel.objectives.policy_gradient import PolicyGradient
from mbrl_bilevel.objectives.two_level import TwoLevel
from mbrl_bilevel.objectives.two_means import TwoMeanRegression
from mbrl_bilevel.rewards.mahalanobis import Mahalanobis


class WeightedRegression(nn.Module):
    """An inner problem of a user's own: squared errors with a learned weight per dimension."""

    name = "weighted"
    selects_by = "mse"

    def __init__(self):
        super().__init__()
        self.log_weight = nn.Parameter(torch.tensor([0.3, -0.4]))

    def forward(self, network, x, y, generator=None):
        return self.loss(network(x).mean, self.log_weight, y), {}

    def loss(self, mean, log_weight, y):
        return (log_weight.exp() * (mean - y).square()).sum(-1).mean(-1)

    def calibrate(self, network, x, y):
        pass

    def warm_start(self, network):
        pass

    def precision_diagonal(self, network, x):
        return self.log_weight.exp().expand(len(x), -1)

    def outer_loss(self, network, x, y):
        """This optimum has no closed form: another outer step is asked for."""
        raise InputError("weighted regressions have no closed form")

    def bilevel_problem(self, network):
        def inner(theta, phi, data):
            mean = functional_call(network, theta, (data[0],)).mean
            return self.loss(mean, phi["log_weight"], data[1])

        def outer(theta, phi, data):
            return (functional_call(network, theta, (data[0],)).mean - data[1]).square().mean()

        return BilevelProblem(inner, outer, ensemble=True)

    def frozen_batch(self, network, x, y, generator):
        return x, y


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(seed):
    return tuple(torch.randn(2, 8, 2, generator=seeded(seed)) for _ in range(2))


def network():
    return GaussianEnsemble(2, 2, members=2, hidden=(4,), generator=seeded())


def test_a_problem_of_ones_own_is_differentiated_like_any_other():
    inner, net = WeightedRegression(), network()
    found = HypergradientStep(Unrolled(5))(net, inner, batch(1), batch(2), seeded())
    theta = {k: p.detach() for k, p in net.named_parameters()}
    phi = {"log_weight": inner.log_weight.detach()}
    expected = Unrolled(5)(inner.bilevel_problem(net), theta, phi, batch(1), batch(2))
    assert expected.grad["log_weight"].norm() > 0
    torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=0)


def test_two_levels_move_the_parameters_of_a_problem_of_ones_own_along_the_direction():
    inner, net = WeightedRegression(), network()
    x, y = (part[0] for part in batch(3))
    outer = OuterData(OuterBatches(x, y, torch.arange(8).expand(2, -1), 8, seeded(4)))
    step = SobaStep(Soba(inner.bilevel_problem(net), damping=0.1))
    objective = TwoLevel(inner, outer, step, every=1, learning_rate=0.01, steps=100)
    before = inner.log_weight.detach().clone()
    metrics = objective.after_step(net, batch(1), 50, seeded())
    assert metrics["hypergradient_norm"] > 0
    moved = inner.log_weight.detach() - before
    # Adam's first step is one learning rate, down the gradient
    torch.testing.assert_close(moved, -0.01 * inner.log_weight.grad.sign(), rtol=1e-3, atol=0)


def test_two_means_have_the_closed_form_alone():
    net = TwoMeanEnsemble(2, 2, members=2, hidden=(4,), generator=seeded())
    inner = TwoMeanRegression(net, generator=seeded(1))
    found = ClosedForm()(net, inner, batch(1), batch(2), seeded())
    assert found.metrics["hypergradient_norm"] > 0
    with pytest.raises(InputError, match=r"choose ClosedForm\(\)"):
        HypergradientStep(Unrolled(5))(net, inner, batch(1), batch(2), seeded())
    with pytest.raises(InputError, match=r"choose ClosedForm\(\)"):
        outer_step("fisher", net, inner)


def test_samples_are_frozen_for_one_outer_step_and_an_exact_loss_has_none():
    net, (x, y) = network(), batch(1)
    reward = Mahalanobis(2)
    assert PolicyGradient(reward).frozen_batch(net, x, y, seeded())[2] is None
    sampled = PolicyGradient(reward, estimator="reparameterized", samples=3)
    noise = sampled.frozen_batch(net, x, y, seeded())[2]
    assert noise.shape == (3, 2, 8, 2)
    torch.testing.assert_close(noise, torch.randn(3, 2, 8, 2, generator=seeded()), rtol=0, atol=0)
