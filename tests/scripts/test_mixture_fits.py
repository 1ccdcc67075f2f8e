"""Fits of mixtures on a system with two modes, and their metrics against slow references."""

import pytest
import torch

from mbrl_bilevel.models.mixture import MixtureEnsemble
from mbrl_bilevel.scripts import mixture_fits as fits
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings

SETTINGS = FitSettings(steps=400, learning_rate=1e-2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(components=3, seed=0):
    return MixtureEnsemble(
        1, 2, components=components, members=2, hidden=(16,), generator=seeded(seed)
    )


def two_parts(noise):
    """Two targets: x or -x by a fair coin, and noise; standardised."""
    draw = torch.randn(3, 2_000, 1, generator=seeded(7))
    x, coin = 1 + draw[0].abs(), draw[1].sign()
    y = torch.cat([x * coin + noise * draw[2], draw[2]], 1)
    y /= y.std(0)
    return Samples(x[:1_500], y[:1_500]), Samples(x[1_500:], y[1_500:])


@pytest.fixture(scope="module")
def rows():
    return two_parts(noise=0.1)


def trained(loss, rows, components=3):
    net = network(components)
    fits.fit(net, loss, *rows, SETTINGS, seeded(1))
    return fits.evaluate(net, rows[1])


@pytest.fixture(scope="module")
def gaussian(rows):
    return trained(fits.likelihood, rows, components=1)


@pytest.mark.parametrize(
    ("loss", "gain", "between"),
    [
        (fits.likelihood, 0.5, 0.8),
        (fits.energy_score, 0.3, 0.5),
        (fits.energy_score_samples(16, seeded(2)), 0.1, 0.5),
    ],
    ids=["likelihood", "energy_score", "energy_score_samples"],
)
def test_likelihood_and_energy_score_find_the_two_modes(loss, gain, between, rows, gaussian):
    """The first target's NLL falls below one Gaussian's; most variance is between components."""
    found = trained(loss, rows)
    assert found["nll"][0] < gaussian["nll"][0] - gain
    assert found["between"][0] > between
    assert found["energy_score"][0] < gaussian["energy_score"][0]


def test_a_squared_error_makes_one_gaussian_of_variance_one_half(rows):
    """Theory T5: N(E y, 1/2) whatever the data; its NLL and energy score are known."""
    found = trained(fits.squared_error(16, seeded(2)), rows)
    expected = 0.5 * torch.log(torch.tensor(torch.pi)) + 1.0  # both targets have mean 0, variance 1
    torch.testing.assert_close(found["nll"].float(), expected.expand(2), atol=0.08, rtol=0)
    assert (found["between"] < 0.1).all()


@pytest.mark.parametrize(("noise", "both"), [(1.0, True), (0.1, False)])
def test_a_learned_reward_leads_to_its_density_where_modes_overlap(noise, both):
    """Draws of one mode earn nothing for another that they never come to."""
    rows, reward = two_parts(noise), network(seed=3)
    fits.fit(reward, fits.likelihood, *rows, SETTINGS, seeded(1))
    goal = fits.evaluate(reward, rows[1])
    found = trained(fits.learned_reward(reward, 16, seeded(2)), rows)
    apart = (found["nll"] - goal["nll"]).abs()
    assert apart[1] < 0.1
    assert apart[0] < 0.1 if both else apart[0] > 1.0


def test_metrics_are_means_over_rows_and_members(rows, monkeypatch):
    monkeypatch.setattr(fits, "CHUNK", 7)
    net, (x, y) = network(), Samples(*(part[:20] for part in rows[1]))
    found = fits.evaluate(net, Samples(x, y))
    p = net(x)
    mean, variance = p.moments()
    z = (y - mean) / variance.sqrt()
    z = z - z.mean(1, keepdim=True)
    slow = {
        "nll": -p.log_prob(y).mean((0, 1)),
        "bounded_nll": (-p.log_prob(y)).clamp(max=5.0).mean((0, 1)),
        "energy_score": p.energy_score(y).mean((0, 1)),
        "mse": (y - mean).square().mean((0, 1)),
        "pooled_nll": -p.log_prob(y).exp().mean(0).log().mean(0),
        "kurtosis": ((z**4).mean(1) / (z**2).mean(1) ** 2 - 3).mean(0),
    }
    for name, value in slow.items():
        torch.testing.assert_close(found[name].float(), value.detach(), rtol=1e-3, atol=1e-5)
    of_members = fits.held_out_nll(net, Samples(x, y))
    torch.testing.assert_close(of_members, -p.log_prob(y).mean(1).detach())
