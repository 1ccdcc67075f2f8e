"""One-step figures against slow references and closed forms."""

import json
import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from mbrl_bilevel.evaluation.one_step import one_step
from mbrl_bilevel.models.gaussian import GaussianEnsemble


def ensemble(seed=0, members=4, n=2):
    g = torch.Generator().manual_seed(seed)
    net = GaussianEnsemble(3, n, members=members, hidden=(8,), generator=g).double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=g).double())
    return net, torch.randn(60, 3, generator=g).double(), g


def test_likelihood_and_error_are_those_of_the_mixture():
    net, x, g = ensemble()
    y = torch.randn(60, 2, generator=g).double()
    gaussian = net(x)
    mixture = MixtureSameFamily(
        Categorical(torch.ones(60, 4).double()),
        Independent(Normal(gaussian.mean.transpose(0, 1), gaussian.std.transpose(0, 1)), 1),
    )
    found = one_step(net, x, y)
    assert found.nll == pytest.approx(-mixture.log_prob(y).mean().item() / 2, rel=1e-9)
    error = mixture.mean - y
    assert found.rmse == pytest.approx(error.square().mean().sqrt().item(), rel=1e-9)
    r2 = 1 - error.square().sum() / (y - y.mean(0)).square().sum()
    assert found.r2 == pytest.approx(r2.item(), rel=1e-9)
    assert found.member_nll == pytest.approx(-gaussian.log_prob(y).mean().item() / 2, rel=1e-9)


def predicting(std):
    """An ensemble that predicts mean 0 and the given deviation everywhere."""
    net = GaussianEnsemble(3, 1, members=1, hidden=(4,)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    net.set_std(torch.tensor([[std]], dtype=torch.float64))
    return net


def test_a_calibrated_model_has_no_calibration_error_and_its_entropy_as_nll():
    g = torch.Generator().manual_seed(0)
    y = 0.7 * torch.randn(40_000, 1, generator=g).double()
    found = one_step(predicting(0.7), torch.zeros(40_000, 3).double(), y)
    assert found.ece < 4 * 0.5 / math.sqrt(40_000)  # four times the largest standard error
    entropy = math.log(0.7) + 0.5 * math.log(2 * math.pi * math.e)
    assert found.nll == pytest.approx(entropy, abs=4 * math.sqrt(0.5 / 40_000))


def test_overconfidence_has_the_calibration_error_of_the_closed_form():
    """A predicted deviation of half the true one puts Phi(z_p / 2) of targets below quantile p."""
    g = torch.Generator().manual_seed(1)
    y = torch.randn(40_000, 1, generator=g).double()
    found = one_step(predicting(0.5), torch.zeros(40_000, 3).double(), y)
    levels = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    below = torch.special.ndtr(torch.special.ndtri(levels) / 2)
    assert found.ece == pytest.approx((below - levels).abs().mean().item(), abs=0.01)
    assert found.coverage == pytest.approx(below.tolist(), abs=0.01)


def test_more_rows_than_one_pass_takes_change_nothing(monkeypatch):
    net, x, g = ensemble()
    y = torch.randn(60, 2, generator=g).double()
    whole = one_step(net, x, y).metrics()
    monkeypatch.setattr("mbrl_bilevel.evaluation.one_step.CHUNK", 7)
    for name, value in one_step(net, x, y).metrics().items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-9)


def test_figures_of_single_members_and_dimensions_match_a_slow_reference():
    net, x, g = ensemble()
    y = torch.randn(60, 2, generator=g).double()
    gaussian, found = net(x), one_step(net, x, y)
    for i in range(2):
        of_one = MixtureSameFamily(
            Categorical(torch.ones(60, 4).double()),
            Normal(gaussian.mean[..., i].T, gaussian.std[..., i].T),
        )
        nll = -of_one.log_prob(y[:, i]).mean().item()
        assert found.nll_by_dimension[i] == pytest.approx(nll, rel=1e-9)
    whole = MixtureSameFamily(
        Categorical(torch.ones(60, 4).double()),
        Independent(Normal(gaussian.mean.transpose(0, 1), gaussian.std.transpose(0, 1)), 1),
    )
    assert found.sharpness == pytest.approx(whole.variance.mean().sqrt().item(), rel=1e-9)
    mean_variance = gaussian.std.square().mean().item()
    assert found.member_sharpness == pytest.approx(math.sqrt(mean_variance), rel=1e-9)
    errors = []
    for e in range(4):
        cdf = Normal(gaussian.mean[e], gaussian.std[e]).cdf(y)
        for p in range(1, 20):
            errors += [((cdf[:, i] <= p / 20).double().mean() - p / 20).abs() for i in range(2)]
        share = (cdf <= 0.5).double().mean().item()
        assert found.member_coverage[e][9] == pytest.approx(share, abs=1e-9)
    assert found.member_ece == pytest.approx(torch.stack(errors).mean().item(), abs=1e-6)


def test_a_mixture_of_members_that_disagree_is_wider_and_less_sharp_than_they():
    """Means -1 and 1 with deviation 0.1: members know little of it, the mixture's variance 1.01."""
    net = GaussianEnsemble(3, 1, members=2, hidden=(4,)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        net.set_std(torch.full((2, 1), 0.1, dtype=torch.float64))
        net.network.layers[-1].bias[:, 0, 0] = torch.tensor([-1.0, 1.0]).double()
    found = one_step(net, torch.zeros(5, 3).double(), torch.zeros(5, 1).double())
    assert found.sharpness == pytest.approx(math.sqrt(1.01), rel=1e-6)
    assert found.member_sharpness == pytest.approx(0.1, rel=1e-6)
    assert found.coverage[9] == 1.0  # the mixture's median is 0, as every target is


def test_other_units_are_those_of_rescaled_targets():
    """Targets, means and deviations times c: the density falls by log c, R2 by dimension stays."""
    net, x, g = ensemble()
    y = torch.randn(60, 2, generator=g).double()
    unit = torch.tensor([2.0, 0.5]).double()
    own, other = one_step(net, x, y), one_step(net, x, y, unit)
    gaussian = net(x)
    error = unit * (gaussian.mean.mean(0) - y)
    assert other.rmse == pytest.approx(error.square().mean().sqrt().item(), rel=1e-9)
    r2 = 1 - error.square().sum() / (unit * (y - y.mean(0))).square().sum()
    assert other.r2 == pytest.approx(r2.item(), rel=1e-9)
    scaled = Independent(Normal(unit * gaussian.mean, unit * gaussian.std), 1)
    nll = -(scaled.log_prob(unit * y).logsumexp(0) - math.log(4)).mean().item() / 2
    assert other.nll == pytest.approx(nll, rel=1e-9)
    assert other.nll_by_dimension[0] == pytest.approx(own.nll_by_dimension[0] + math.log(2))
    assert other.r2_by_dimension == pytest.approx(own.r2_by_dimension)
    assert (other.ece, other.coverage) == (own.ece, own.coverage)


def test_rows_that_overflow_are_counted_and_left_out():
    net, x, g = ensemble()
    y = torch.randn(60, 2, generator=g).double()
    broken = y.clone()
    broken[:3] = 1e200  # its square is not finite
    found = one_step(net, x, broken).metrics()
    assert found.pop("non_finite") == 3
    for name, value in one_step(net, x[3:], y[3:]).metrics().items():
        if name != "non_finite":
            np.testing.assert_allclose(found[name], value, rtol=1e-9)


def test_nothing_finite_is_null_and_never_nan():
    net, x, _ = ensemble()
    found = one_step(net, x, torch.full((60, 2), 1e200, dtype=torch.float64)).metrics()
    assert found["non_finite"] == 60
    assert found["rmse"] is None
    assert found["nll_by_dimension"] == [None, None]
    assert "NaN" not in json.dumps(found)
