"""Likelihood objectives against their closed forms and against each other."""

import math

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.constant_targets import sparse_targets
from mbrl_bilevel.models.gaussian import GaussianEnsemble
from mbrl_bilevel.objectives.likelihood import MSE, NLL, BetaNLL
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings


def case(covariance="diagonal", n=3):
    g = torch.Generator().manual_seed(0)
    net = GaussianEnsemble(4, n, members=2, hidden=(8,), covariance=covariance, generator=g)
    net.double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g).double())
    x, y = torch.randn(2, 6, 4, generator=g).double(), torch.randn(2, 6, n, generator=g).double()
    return net, x, y, g


def mean_gradient(net, loss, n=3):
    """Gradient of the loss with respect to the bias of the mean head."""
    net.zero_grad()
    loss.sum().backward()
    return net.network.layers[-1].bias.grad[:, 0, :n].clone()


def test_nll_is_summed_over_dimensions_and_averaged_over_the_batch():
    net, x, y, g = case()
    loss, _ = NLL()(net, x, y, g)
    p = net(x)
    z = (y - p.mean) / p.std
    terms = 0.5 * z.square() + p.log_std + 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(loss, terms.sum(-1).mean(-1))


def test_beta_zero_is_nll():
    net, x, y, g = case()
    torch.testing.assert_close(BetaNLL(0.0)(net, x, y, g)[0], NLL()(net, x, y, g)[0])


def test_beta_one_gives_the_mean_the_gradient_of_half_the_squared_error():
    net, x, y, g = case()
    beta = mean_gradient(net, BetaNLL(1.0)(net, x, y, g)[0])
    mse = mean_gradient(net, MSE()(net, x, y, g)[0])
    torch.testing.assert_close(2 * beta, mse, rtol=1e-12, atol=1e-12)


def test_beta_weights_every_dimension_by_its_detached_variance():
    net, x, y, g = case()
    p = net(x)
    weight = p.std.detach() ** (2 * 0.5)
    by_hand = weight * (0.5 * ((y - p.mean) / p.std).square() + p.log_std)
    gradient = mean_gradient(net, by_hand.sum(-1).mean(-1))
    torch.testing.assert_close(gradient, mean_gradient(net, BetaNLL(0.5)(net, x, y, g)[0]))


def test_mse_plugs_in_the_deviation_of_held_out_residuals():
    """For a fixed mean that deviation is the maximum-likelihood one: no other does better."""
    net, x, y, _ = case()
    x, y = x[0], y[0]
    MSE().calibrate(net, x, y)
    residual = (net(x).mean - y).square().mean(-2).sqrt()
    torch.testing.assert_close(net(x).std[:, 0], residual, rtol=1e-6, atol=0)
    best = net(x).log_prob(y).mean(-1)
    for factor in (0.95, 1.05):
        net.set_std(factor * residual)
        assert (net(x).log_prob(y).mean(-1) < best).all()


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_beta_outside_its_range_is_refused(beta):
    with pytest.raises(InputError, match="beta"):
        BetaNLL(beta)


def test_beta_nll_refuses_a_full_covariance():
    net, x, y, g = case("full")
    with pytest.raises(InputError, match="diagonal"):
        BetaNLL()(net, x, y, g)


def sparse_case():
    """The first of three targets is held: a third of them, and a tenth is many."""
    net, x, y, g = case()
    net.hold_std(torch.tensor([0]))
    return net, x, y, g


def test_with_sparse_targets_the_mean_is_fitted_in_units_of_its_dimensions_mean_variance():
    net, x, y, g = sparse_case()
    found = mean_gradient(net, NLL()(net, x, y, g)[0])
    p = net(x)
    variance = p.std.detach().square().mean(1, keepdim=True)
    by_hand = mean_gradient(net, ((y - net(x).mean).square() / (2 * variance)).sum(-1).mean(-1))
    torch.testing.assert_close(found, by_hand, rtol=1e-12, atol=1e-12)


def test_with_sparse_targets_the_noise_has_a_thousandth_of_its_gradient_under_nll():
    """So Adam moves its heads as before, and hidden layers follow the means; a held one rests."""
    net, x, y, g = sparse_case()
    NLL()(net, x, y, g)[0].sum().backward()
    found = net.network.layers[-1].bias.grad[:, 0, 3:].clone()
    net.zero_grad()
    (-net(x).log_prob(y)).mean(-1).sum().backward()
    whole = net.network.layers[-1].bias.grad[:, 0, 3:]
    assert torch.equal(found[:, 0], torch.zeros(2).double())
    torch.testing.assert_close(found, 1e-3 * whole, rtol=1e-9, atol=0)


def test_one_sparse_target_of_many_leaves_the_likelihood_of_the_others_as_it_is():
    net, x, y, g = case(n=11)
    net.hold_std(torch.tensor([3]))
    torch.testing.assert_close(NLL()(net, x, y, g)[0], -net(x).log_prob(y).mean(-1))


@pytest.mark.situation("right")
@pytest.mark.parametrize("objective", [NLL, BetaNLL])
def test_sparse_targets_leave_the_means_of_the_others_as_good_as_by_mse(objective):
    """Two smooth targets and 30 that are 0 in nine rows of ten; the likelihood is no worse."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 6, generator=g)
    smooth = torch.tanh(x @ torch.randn(6, 2, generator=g)) + 0.1 * torch.randn(
        3000, 2, generator=g
    )
    contact = (x[:, :1] > 1.3) * torch.randn(3000, 30, generator=g)
    y = torch.cat([smooth, contact], 1)
    sparse = sparse_targets(y)
    assert sparse.tolist() == [False] * 2 + [True] * 30
    y = (y - y.mean(0)) / y.std(0)
    error, nll = {}, {}
    for kind in (objective, MSE):
        net = GaussianEnsemble(
            6, 32, members=1, hidden=(16, 16), generator=torch.Generator().manual_seed(1)
        )
        net.hold_std(torch.nonzero(sparse).squeeze(-1))
        parts = [Samples(x[rows], y[rows]) for rows in (slice(2000), slice(2000, 2500))]
        fit_network(
            net, kind(), *parts, generator=g, progress=False, settings=FitSettings(steps=400)
        )
        prediction = net(x[2500:])
        error[kind] = (prediction.mean[0] - y[2500:])[:, :2].square().mean()
        nll[kind] = -prediction.log_prob(y[2500:]).mean() / 32
    assert error[objective] < 1.2 * error[MSE]
    assert nll[objective] < nll[MSE] + 0.05
