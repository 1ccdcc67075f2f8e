"""Mixtures of two Gaussians by unbounded parameters, against quadrature."""

import torch

from mbrl_bilevel.sanity.mixture import distribution, energy_score, mixture

P, Q = mixture(0.3, (-1.0, 1.0), (0.2, 0.5)), mixture(0.6, (0.4, -2.0), (0.7, 0.3))
GRID = torch.linspace(-6.0, 6.0, 1_201, dtype=torch.float64)
CELL = float(GRID[1] - GRID[0])


def test_the_parameters_are_of_the_mixture_that_was_asked_for():
    p = distribution(P)
    expected = torch.tensor([[0.3, 0.7], [-1.0, 1.0], [0.2, 0.5]], dtype=torch.float64)
    found = torch.stack([p.log_share.exp(), p.mean, p.log_std.exp()])
    torch.testing.assert_close(found, expected)


def test_energy_score_by_quadrature_of_all_pairs():
    p, q = (distribution(x).log_prob(GRID).exp() for x in (P, Q))
    distance = (GRID.unsqueeze(1) - GRID).abs()
    slow = CELL**2 * (p @ distance @ q - 0.5 * p @ distance @ p)
    torch.testing.assert_close(energy_score(P, Q), slow, rtol=1e-4, atol=0)


def test_energy_score_is_least_at_the_truth():
    assert energy_score(Q, Q) < energy_score(P, Q)
