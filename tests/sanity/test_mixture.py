"""Mixtures of two Gaussians against quadrature and their own draws."""

import torch

from mbrl_bilevel.sanity.mixture import (
    energy_score,
    log_prob,
    mean_and_variance,
    mixture,
    sample,
)

P, Q = mixture(0.3, (-1.0, 1.0), (0.2, 0.5)), mixture(0.6, (0.4, -2.0), (0.7, 0.3))
GRID = torch.linspace(-6.0, 6.0, 1_201, dtype=torch.float64)
CELL = float(GRID[1] - GRID[0])


def test_density_and_moments_by_quadrature():
    density = log_prob(P, GRID).exp()
    mean = (CELL * density * GRID).sum()
    square = (CELL * density * GRID.square()).sum()
    torch.testing.assert_close(CELL * density.sum(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(mean_and_variance(P), (mean, square - mean.square()))


def test_energy_score_by_quadrature_of_all_pairs():
    p, q = (log_prob(x, GRID).exp() for x in (P, Q))
    distance = (GRID.unsqueeze(1) - GRID).abs()
    slow = CELL**2 * (p @ distance @ q - 0.5 * p @ distance @ p)
    torch.testing.assert_close(energy_score(P, Q), slow, rtol=1e-4, atol=0)


def test_energy_score_is_least_at_the_truth():
    assert energy_score(Q, Q) < energy_score(P, Q)


def test_draws_have_the_distribution():
    """Shares of draws below some numbers, within four standard errors."""
    count = 20_000
    draws = sample(P, count, torch.Generator().manual_seed(0))
    for bound in (-1.2, 0.0, 0.8, 1.5):
        expected = float(CELL * log_prob(P, GRID).exp()[bound > GRID].sum())
        error = (expected * (1 - expected) / count) ** 0.5
        assert abs(float((draws < bound).double().mean()) - expected) < 4 * error + CELL
