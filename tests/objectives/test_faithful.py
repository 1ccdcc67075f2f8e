"""The faithful objective: the mean is that of mse, and no gradient of the noise reaches it."""

import math

import pytest
import torch

from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.faithful import Faithful
from mbrl_bilevel.objectives.likelihood import MSE
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(covariance="diagonal", **options):
    net = GaussianEnsemble(
        2, 2, members=2, hidden=(16, 16), covariance=covariance, generator=seeded(), **options
    )
    return net.double()


def rows(count, seed):
    g = seeded(seed)
    x = torch.randn(count, 2, generator=g).double()
    noise = torch.randn(count, 2, generator=g) * torch.exp(x[:, :1])
    return Samples(x, torch.stack([x.sum(-1).sin(), x[:, 0] * x[:, 1]], -1) + 0.2 * noise)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_the_loss_is_squared_error_plus_the_likelihood_of_its_residuals(covariance):
    net, (x, y) = network(covariance), rows(6, 1)
    x, y = x.expand(2, -1, -1), y.expand(2, -1, -1)
    gaussian = net(x)
    residual, S = y - gaussian.mean, gaussian.scale_tril @ gaussian.scale_tril.mT
    mahalanobis = (residual * torch.linalg.solve(S, residual)).sum(-1)
    nll = 0.5 * (mahalanobis + torch.logdet(S) + 2 * math.log(2 * math.pi))
    expected = (residual.square().sum(-1) + nll).mean(-1)
    torch.testing.assert_close(Faithful()(net, x, y, seeded())[0], expected)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_hidden_layers_and_the_head_of_the_mean_have_the_gradient_of_mse(covariance):
    net, (x, y) = network(covariance), rows(20, 1)
    x, y = x.expand(2, -1, -1), y.expand(2, -1, -1)
    found = []
    for objective in (Faithful(), MSE()):
        net.zero_grad()
        objective(net, x, y, seeded())[0].sum().backward()
        found.append([p.grad.clone() for p in net.parameters()])
    *trunk, weight, bias = zip(*found, strict=True)
    for ours, theirs in trunk:
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    for ours, theirs in (weight, bias):
        torch.testing.assert_close(ours[..., :2], theirs[..., :2], rtol=1e-12, atol=1e-14)
        assert ours[..., 2:].abs().min() > 0  # the noise learns
        assert (theirs[..., 2:] == 0).all()


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_fit_ends_at_the_mean_of_mse(dropout):
    """The same seeds; in float64, where rounding does not grow over 120 steps."""
    held_out, means = rows(100, 2), []
    for objective in (Faithful(), MSE()):
        net = network(dropout=dropout)
        fit_network(
            net,
            objective,
            rows(300, 1),
            held_out,
            generator=seeded(3),
            settings=FitSettings(steps=120, batch_size=32, evaluate_every=20, learning_rate=0.01),
        )
        means.append(net(held_out.x).mean)
    torch.testing.assert_close(*means, rtol=1e-7, atol=1e-8)


def test_its_noise_follows_the_input_where_that_of_mse_cannot():
    net, held_out = network(), rows(400, 2)
    fit_network(
        net,
        Faithful(),
        rows(4000, 1),
        held_out,
        generator=seeded(3),
        settings=FitSettings(steps=400, batch_size=128, learning_rate=0.01),
    )
    # log s = x_1 + constant; what the mean gets wrong counts as noise, most where that is small.
    x = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).double()
    slope = (net(x).log_std[:, 1] - net(x).log_std[:, 0]).mean() / 2
    assert slope.item() == pytest.approx(1.0, abs=0.35)
