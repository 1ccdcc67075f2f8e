"""Mixtures of Gaussians against quadrature, finite differences and their own draws."""

import math

import pytest
import torch

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.mixture import Mixture, MixtureEnsemble

GRID = torch.linspace(-8.0, 8.0, 1_601, dtype=torch.float64)
CELL = float(GRID[1] - GRID[0])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def mixtures(*shape, components=3, seed=0):
    """Shares, means and deviations of about 1, .3 to 1 the latter."""
    draw = torch.randn(3, *shape, components, generator=seeded(seed), dtype=torch.float64)
    return Mixture(draw[0].log_softmax(-1), draw[1], -0.6 + 0.6 * torch.tanh(draw[2]))


def quadrature(p, values):
    """E[values(y)], by the grid on the leading axis."""
    y = GRID.view(-1, *(1 for _ in p.mean.shape[:-1]))
    return (CELL * p.log_prob(y).exp() * values(y)).sum(0)


def test_density_and_moments_by_quadrature():
    p = mixtures(2, 5)
    mean, variance = p.moments()
    torch.testing.assert_close(quadrature(p, torch.ones_like), torch.ones_like(mean))
    torch.testing.assert_close(quadrature(p, lambda y: y), mean)
    torch.testing.assert_close(quadrature(p, lambda y: (y - mean) ** 2), variance)


def test_between_is_the_variance_of_the_component_that_a_draw_is_of():
    p = mixtures(2, 5)
    within = (p.log_share.exp() * (2 * p.log_std).exp()).sum(-1)
    torch.testing.assert_close(p.between(), p.moments()[1] - within)
    together = Mixture(p.log_share, p.mean[..., :1].expand_as(p.mean), p.log_std)
    torch.testing.assert_close(together.between(), torch.zeros(2, 5, dtype=torch.float64))


def test_distance_and_energy_score_by_quadrature_of_all_pairs():
    p, q = mixtures(4), mixtures(4, components=2, seed=1)
    of_p, of_q = (m.log_prob(GRID.unsqueeze(-1)).exp() for m in (p, q))
    apart = (GRID.unsqueeze(1) - GRID).abs()
    slow = CELL**2 * torch.einsum("is,ij,js->s", of_p, apart, of_q)
    torch.testing.assert_close(p.distance(q), slow, rtol=1e-4, atol=0)
    y = torch.tensor([-1.0, 0.0, 0.3, 2.0], dtype=torch.float64)
    itself = CELL**2 * torch.einsum("is,ij,js->s", of_p, apart, of_p)
    slow = quadrature(p, lambda a: (a - y).abs()) - 0.5 * itself
    torch.testing.assert_close(p.energy_score(y), slow, rtol=1e-3, atol=0)


def test_energy_score_is_the_area_between_the_distribution_functions():
    """The other definition of the CRPS: the integral of (F(t) - 1[t >= y])^2 over t."""
    p, y = mixtures(4), torch.tensor([-1.0, 0.0, 0.3, 2.0], dtype=torch.float64)
    z = (GRID.view(-1, 1, 1) - p.mean) / p.log_std.exp()
    below = (p.log_share.exp() * torch.special.ndtr(z)).sum(-1)
    area = CELL * (below - (GRID.unsqueeze(-1) >= y).double()).square().sum(0)
    torch.testing.assert_close(p.energy_score(y), area, rtol=0, atol=CELL)


def test_energy_score_of_one_gaussian_is_the_published_formula():
    """sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)) (Gneiting and Raftery 2007, eq. 21)."""
    p, y = mixtures(6, components=1), torch.randn(6, generator=seeded(1), dtype=torch.float64)
    std = p.log_std.exp().squeeze(-1)
    z = (y - p.mean.squeeze(-1)) / std
    phi = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    slow = std * (z * (2 * torch.special.ndtr(z) - 1) + 2 * phi - 1 / math.sqrt(math.pi))
    torch.testing.assert_close(p.energy_score(y), slow)


def test_gradient_of_the_energy_score_by_finite_differences():
    p, y = mixtures(3), torch.tensor([-1.0, 0.4, 3.0], dtype=torch.float64)
    logits = p.log_share.clone()

    def score(logits, mean, log_std):
        return Mixture(logits.log_softmax(-1), mean, log_std).energy_score(y)

    inputs = tuple(t.clone().requires_grad_() for t in (logits, p.mean, p.log_std))
    assert torch.autograd.gradcheck(score, inputs)


def test_draws_have_the_distribution():
    """Shares of draws below some numbers, within four standard errors."""
    p, count = mixtures(3, 2), 20_000
    draws = p.sample(count, seeded())
    assert draws.shape == (count, 3, 2)
    z = lambda bound: (bound - p.mean) / p.log_std.exp()  # noqa: E731
    for bound in (-1.2, 0.0, 0.8):
        expected = (p.log_share.exp() * torch.special.ndtr(z(bound))).sum(-1)
        error = (expected * (1 - expected) / count).sqrt()
        assert ((draws < bound).double().mean(0) - expected).abs().le(4 * error).all()


def test_pooled_density_is_the_mean_of_the_members():
    p, y = mixtures(4, 5), torch.randn(5, generator=seeded(1), dtype=torch.float64)
    assert p.pooled().mean.shape == (5, 12)
    torch.testing.assert_close(p.pooled().log_prob(y).exp(), p.log_prob(y).exp().mean(0))


def test_a_network_of_mixtures_has_its_shapes_bounds_and_shares():
    net = MixtureEnsemble(
        4, 2, components=3, members=5, hidden=(8,), log_std_bounds=(-1.0, 0.5), generator=seeded()
    )
    p = net(50 * torch.randn(7, 4, generator=seeded(1)))
    assert p.mean.shape == p.log_std.shape == p.log_share.shape == (5, 7, 2, 3)
    torch.testing.assert_close(p.log_share.exp().sum(-1), torch.ones(5, 7, 2))
    assert -1 <= p.log_std.min() < -0.9 < 0.4 < p.log_std.max() <= 0.5


@pytest.mark.parametrize(("outputs", "components"), [(0, 3), (2, 0)])
def test_sizes_below_one_are_refused(outputs, components):
    with pytest.raises(InputError, match="each number must be at least 1"):
        MixtureEnsemble(4, outputs, components=components)
