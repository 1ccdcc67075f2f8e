"""Coverage of sampled futures against closed forms."""

import math

import pytest
import torch

from mbrl_bilevel.evaluation.coverage import interval_coverage, share_inside
from mbrl_bilevel.evaluation.windows import Windows


@pytest.mark.parametrize("particles", [1, 2, 5, 20])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_equally_likely_ranks_are_covered_as_often_as_the_level_says(particles, level):
    ranks = torch.arange(particles + 1)
    share = share_inside(ranks, torch.zeros_like(ranks), particles, level)
    assert share.mean().item() == pytest.approx(level, abs=1e-6)


def test_19_particles_have_the_interval_between_their_order_statistics():
    ranks = torch.arange(20)
    half = share_inside(ranks, torch.zeros_like(ranks), 19, 0.5)
    assert half.tolist() == pytest.approx([0.0] * 5 + [1.0] * 10 + [0.0] * 5, abs=1e-5)


def test_a_truth_that_all_particles_hit_may_have_every_rank():
    ties = share_inside(torch.tensor(0), torch.tensor(7), 7, 0.9)
    assert ties.item() == pytest.approx(0.9)


def windows_of(truth, recorded=None):
    s, k, _ = truth.shape
    recorded = torch.ones(s, k, dtype=torch.bool) if recorded is None else recorded
    return Windows(truth[:, 0], torch.zeros(s, k, 1), truth, recorded)


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_gaussian_particles_cover_what_their_deviation_lets_them(spread):
    """Particles N(0, s^2), truths N(0, 1): the central interval p holds P(|z| < s z_p)."""
    g = torch.Generator().manual_seed(0)
    truth = torch.randn(20_000, 1, 1, generator=g)
    paths = spread * torch.randn(99, 20_000, 1, 1, generator=g)
    found = interval_coverage(paths, windows_of(truth))
    for level, share in zip((0.5, 0.9), found[:, 0].tolist(), strict=True):
        z = spread * torch.special.ndtri(torch.tensor((1 + level) / 2)).item()
        # 0.014: four standard errors of 20,000 truths; 99 particles blur quantiles by as much again
        assert share == pytest.approx(math.erf(z / math.sqrt(2)), abs=0.02)


def test_steps_that_were_not_recorded_do_not_count():
    truth = torch.zeros(4, 2, 1)
    truth[2:, 1] = 100.0
    recorded = torch.tensor([[True, True], [True, True], [True, False], [True, False]])
    paths = torch.linspace(-1, 1, 20).view(20, 1, 1, 1).expand(20, 4, 2, 1)
    found = interval_coverage(paths, windows_of(truth, recorded))
    assert found.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_particles_that_are_not_finite_cover_nothing():
    found = interval_coverage(
        torch.full((20, 4, 1, 1), torch.nan), windows_of(torch.zeros(4, 1, 1))
    )
    assert found.tolist() == [[0.0], [0.0]]
