"""One-step figures against slow references and closed forms."""

import math

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
    whole = one_step(net, x, y).figures()
    monkeypatch.setattr("mbrl_bilevel.evaluation.one_step.CHUNK", 7)
    for name, value in one_step(net, x, y).figures().items():
        assert value == pytest.approx(whole[name], rel=1e-9)
