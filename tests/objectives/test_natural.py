"""Natural parameters: the likelihood by its own formula, convexity, and a fit that finds both."""

import math

import pytest
import torch

from mbrl_bilevel.models.natural import NaturalEnsemble
from mbrl_bilevel.objectives.natural import Natural
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(**options):
    return NaturalEnsemble(2, 2, members=2, hidden=(16, 16), generator=seeded(), **options)


def test_the_loss_is_that_of_the_exponential_family():
    """log p = eta1 y + eta2 y^2 + eta1^2 / (4 eta2) + log(-2 eta2) / 2 - log(2 pi) / 2."""
    net = network().double()
    x = torch.randn(2, 7, 2, generator=seeded(1)).double()
    y = torch.randn(2, 7, 2, generator=seeded(2)).double()
    eta1, log_std = net.network(x)[..., :2], net(x).log_std
    eta2 = -0.5 * torch.exp(-2 * log_std)
    each = eta1 * y + eta2 * y.square() + eta1.square() / (4 * eta2) + 0.5 * torch.log(-2 * eta2)
    expected = -(each - 0.5 * math.log(2 * math.pi)).sum(-1).mean(-1)
    torch.testing.assert_close(Natural()(net, x, y, seeded())[0], expected)


def test_the_gradient_of_eta1_is_the_plain_residual():
    """Of -log p by eta1: mu - y, whatever the noise; by the mean of nll it is (mu - y) / s^2."""
    net = network().double()
    x, y = (torch.randn(2, 7, 2, generator=seeded(i)).double() for i in (1, 2))
    Natural()(net, x, y, seeded())[0].sum().backward()
    found = net.network.layers[-1].bias.grad[:, 0, :2]
    torch.testing.assert_close(found, (net(x).mean - y).mean(1))


def test_a_fit_finds_mean_and_noise():
    """y = (x_1 + x_2, x_1) with noise of deviation 0.6 exp(x_1 / 2)."""
    g = seeded(1)
    x = torch.randn(3000, 2, generator=g)
    std = 0.6 * torch.exp(0.5 * x[:, :1])
    mean = torch.stack([x.sum(-1), x[:, 0]], -1)
    data, net = Samples(x, mean + std * torch.randn(3000, 2, generator=g)), network()
    settings = FitSettings(steps=400, batch_size=128, learning_rate=0.01, evaluate_every=200)
    fit_network(net, Natural(), data, data, generator=seeded(), settings=settings)
    at = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    found = net(at)
    truth = 0.6 * torch.exp(0.5 * at[:, :1]).expand(-1, 2)
    # What the mean gets wrong after so few steps counts as noise, most where that is small.
    torch.testing.assert_close(found.std.mean(0), truth, rtol=0.4, atol=0)
    assert found.mean.mean(0)[:, 1].tolist() == pytest.approx([-1.0, 0.0, 1.0], abs=0.2)
